"""The smallest fake sets that fill a training and a test split, by the name of their DataModule.

A new DataModule adds its own here: the tests of recipes and of data sets pick it up from `vgen.data.datamodules`.
"""

from vgen.data import fake

TINY = {
    "BAIR": lambda root: fake.write_bair(root, subjects=2),
    "CLEVRER": lambda root: fake.write_clevrer(root, 32, subjects=2, frames=18),
    "Cityscapes": lambda root: fake.write_cityscapes(root, 32, frames=17),
    "FaceForensics": lambda root: fake.write_faceforensics(root, 48, subjects=3, min_frames=18, max_frames=19),
    "Folder": lambda root: fake.write_folder(root, 64, subjects=3, frames=16),
    "KTH": lambda root: fake.write_kth(root, 32, subjects=3, min_frames=17, max_frames=18),
    "Kinetics600": lambda root: fake.write_kinetics600(root, 32, subjects=3, min_frames=17, max_frames=18),
    "MHAD": lambda root: fake.write_mhad(root, 48, subjects=2, actions=(1, 9, 27), min_frames=16, max_frames=17),
    "MUG": lambda root: fake.write_mug(
        root, 64, train_subjects=1, test_subjects=1, takes=1, min_frames=16, max_frames=16
    ),
    "MovingMNIST": lambda root: fake.write_moving_mnist(root, subjects=10, takes=3),
    "NATOPS": lambda root: fake.write_natops(
        root, 48, subjects=2, gestures=2, repetitions=1, min_frames=16, max_frames=17
    ),
    "SkyTimelapse": lambda root: fake.write_skytimelapse(root, 36, subjects=2, min_frames=17, max_frames=18),
    "TaiChiHD": lambda root: fake.write_taichi(root, 32, subjects=2, min_frames=64, max_frames=65),
    "UCF101": lambda root: fake.write_ucf101(root, 48, min_frames=17, max_frames=20),
}
