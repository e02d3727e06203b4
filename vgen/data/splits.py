"""Who is in which set: the published subject splits and class names (facts of the data sets, no code).

Sources: the LFDM release (Ni et al., CVPR 2023) for the subject splits of MUG, UTD-MHAD and NATOPS, SVG (Denton and
Fergus 2018) for one of KTH, DIGAN (Yu et al. 2022) for the food classes of Kinetics, and the data sets' own
documentation for class names and layouts.
"""

from collections.abc import Mapping
from typing import Literal

Split = Literal["train", "val", "test"]

MUG_CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
MUG_TRAIN = tuple(
    "008 017 021 028 030 031 034 036 037 038 039 042 043 044 045 055 060 061 062 063 071 075 076 077 083 084".split()
)
MUG_TEST = tuple(
    "001 002 006 007 010 013 014 020 027 032 033 040 046 048 049 052 064 065 066 070 072 073 074 078 079 082".split()
)
# These subjects came twice: their folders have one more level, session0 and session1.
MUG_SESSION_SUBJECTS = ("002", "003", "049")

MHAD_CLASSES = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shooting",
    "draw x",
    "draw circle clockwise",
    "draw circle counter clockwise",
    "draw triangle",
    "right hand bowling",
    "front boxing",
    "baseball swing from right",
    "tennis forehand swing",
    "two arms curl",
    "tennis serve",
    "two hand push",
    "knock on door",
    "hand catch",
    "pick up and throw",
    "jogging",
    "walking",
    "sit to stand",
    "stand to sit",
    "forward lunge (left foot forward)",
    "squat",
)
MHAD_TRAIN = ("1", "2", "3", "5")
MHAD_TEST = ("4", "6", "7", "8")

NATOPS_CLASSES = (
    "I Have Command",
    "All Clear",
    "Not Clear",
    "Spread Wings",
    "Fold Wings",
    "Lock Wings",
    "Up Hook",
    "Down Hook",
    "Remove Tiedowns",
    "Remove Chocks",
    "Insert Chocks",
    "Move Ahead",
    "Turn Left",
    "Turn Right",
    "Next Marshaller",
    "Slow Down",
    "Stop",
    "Nosegear Steering",
    "Hot Brakes",
    "Brakes On",
    "Brakes Off",
    "Install Tiedowns",
    "Fire",
    "Cut Engine",
)
NATOPS_TRAIN = ("3", "4", "8", "9", "12", "13", "15", "17", "19", "20")
# Subject 1 is in neither list: the release leaves it out.
NATOPS_TEST = ("2", "5", "6", "7", "10", "11", "14", "16", "18")

KTH_CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
KTH_SVG: Mapping[Split, tuple[int, ...]] = {"train": tuple(range(1, 21)), "test": tuple(range(21, 26))}
KTH_OFFICIAL: Mapping[Split, tuple[int, ...]] = {
    "train": (11, 12, 13, 14, 15, 16, 17, 18),
    "val": (19, 20, 21, 23, 24, 25, 1, 4),
    "test": (22, 2, 3, 5, 6, 7, 8, 9, 10),
}

# A class of Kinetics belongs to "food" when its name holds one of these (Weissenborn et al. 2020; DIGAN).
KINETICS_FOOD = (
    "baking", "barbequing", "breading", "cooking", "cutting", "pancake", "vegetables", "meat", "cake", "sandwich",
    "pizza", "sushi", "tea", "peeling", "fruit", "eggs", "salad",
)  # fmt: skip
