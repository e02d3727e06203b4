"""How the papers prepared their clips: named, so that one key of a recipe reproduces one published row.

A preset is what its authors' *code* does, where that is public. Everything that a recipe writes out itself goes before
the preset; what neither says is the data set's own.
"""

from dataclasses import dataclass, replace
from typing import Literal

from vgen.data.sampling import FrameSampling, ShortClips
from vgen.data.transforms import Augmentation, Filter, Resize

TrainOn = Literal["train", "all"]


@dataclass(frozen=True)
class Preset:
    """What one paper did to its clips; None leaves a setting to the data set.

    Args:
        source: Where the facts are from.
        resize: How frames get their size (see `vgen.data.transforms.resize`).
        filter: With which filter.
        jpeg: Quality of the JPEG files in which the resized frames were stored.
        sampling: How the frames of a training clip are chosen (see `vgen.data.sampling.frame_indices`).
        stride: Step between frames.
        short_clips: What happens to clips with too few frames.
        augmentation: Random changes of training clips.
        eval_sampling: How the frames of test clips are chosen.
        train_on: `all`: training also sees what the official lists call test set.
        variant: Variant of the data set.
    """

    source: str
    resize: Resize | None = None
    filter: Filter | None = None
    jpeg: int | None = None
    sampling: FrameSampling | None = None
    stride: int | None = None
    short_clips: ShortClips | None = None
    augmentation: Augmentation | None = None
    eval_sampling: FrameSampling | None = None
    train_on: TrainOn | None = None
    variant: str | None = None

    def on_all(self) -> "Preset":
        """The same, trained on the test clips too."""
        return replace(self, train_on="all")

    def on(self, variant: str) -> "Preset":
        """The same on a variant of the set."""
        return replace(self, variant=variant)

    def at_stride(self, stride: int) -> "Preset":
        """The same with another step between frames."""
        return replace(self, stride=stride)


# The half-way house of many loaders: a centred square, two-tap bilinear without antialiasing.
PVDM = Preset(
    "PVDM (Yu et al. 2023), tools/dataloader.py",
    resize="crop_first",
    filter="bilinear_no_antialias",
    sampling="window",
    short_clips="drop",
    augmentation="none",
)
# Clips of twice the length; where a clip has only half of it, the first half is black.
PVDM_LONG = replace(PVDM, short_clips="zero_first_half")
DIGAN = Preset(
    "DIGAN (Yu et al. 2022), released data loader",
    resize="crop_first",
    filter="bilinear_no_antialias",
    sampling="chunks",
    short_clips="drop",
    augmentation="flip",
)
# The same loader with other lists.
DIGAN_UCF = replace(DIGAN, sampling="all_windows", train_on="all")
DIGAN_TAICHI = replace(DIGAN, sampling="interleaved", stride=4)
VIDM_FILES = Preset(
    "VIDM (Mei and Patel 2023), released data loader",
    resize="stretch",
    filter="bicubic",
    sampling="uniform_floor",
    short_clips="drop",
    augmentation="flip",
)
VIDEOGPT = Preset(
    "VideoGPT (Yan et al. 2021), videogpt/data.py; TATS (Ge et al. 2022) reads video files the same way",
    resize="crop",
    filter="bilinear_no_antialias",
    sampling="all_windows",
    short_clips="drop",
    augmentation="none",
)
TATS_FRAMES = Preset(
    "TATS (Ge et al. 2022), loader of frame folders",
    resize="crop_first",
    filter="lanczos",
    sampling="window",
    short_clips="drop",
    augmentation="none",
)
STYLEGAN_V = Preset(
    "StyleGAN-V (Skorokhodov et al. 2022), conversion script and training set",
    resize="crop",
    filter="lanczos",
    jpeg=95,
    sampling="sparse",
    short_clips="drop",
    augmentation="flip",
)
MOCOGAN = Preset(
    "MoCoGAN (Tulyakov et al. 2018): every second of 32 frames, whatever its option every_nth says",
    resize="crop",
    filter="bilinear",
    sampling="window",
    stride=2,
    short_clips="drop",
    augmentation="none",
    train_on="all",
)
TGAN = Preset(
    "TGAN (Saito et al. 2017): 85x64 by Pillow's default filter, then the middle columns",
    resize="crop",
    filter="bicubic",
    sampling="window",
    short_clips="drop",
    augmentation="none",
)
TGAN_V2 = Preset(
    "TGANv2 (Saito et al. 2020): 256x192 by OpenCV's cubic filter, random columns, mirroring",
    resize="wide",
    filter="bicubic_no_antialias",
    sampling="window",
    short_clips="drop",
    augmentation="crop_flip",
)
LATTE = Preset(
    "Latte (Ma et al. 2024): every third frame",
    resize="crop",
    filter="bilinear_no_antialias",
    sampling="window",
    stride=3,
    short_clips="drop",
    augmentation="flip",
)
LATTE_SKY = replace(LATTE, resize="crop_first")
CDFVD = Preset(
    "cd-fvd (Ge et al. 2024): one random window of every video, antialiased",
    resize="crop",
    filter="bilinear",
    sampling="window",
    eval_sampling="window",
    short_clips="drop",
    augmentation="none",
)
SVG = Preset(
    "SVG (Denton and Fergus 2018)",
    sampling="window",
    short_clips="drop",
    augmentation="none",
)
LFDM = Preset(
    "LFDM (Ni et al. 2023), stage 2",
    resize="letterbox",
    filter="area",
    short_clips="repeat_last",
    augmentation="lfdm_clip",
    eval_sampling="uniform",
)
LFDM_PAIRS = replace(LFDM, source="LFDM (Ni et al. 2023), stage 1", sampling="pair", augmentation="lfae_pair")
