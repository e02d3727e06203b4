"""Which detectors there are, where their files belong, and how to obtain them.

Files are looked for in the folder that the environment variable VGEN_DETECTORS names, else in
`~/.cache/vgen/detectors`, and models that a library downloads in that library's own cache.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from vgen.errors import UserError, did_you_mean
from vgen.files import sha256

FOLDER_VARIABLE = "VGEN_DETECTORS"


@dataclass(frozen=True)
class DetectorCard:
    """What is known about a detector.

    Args:
        name: By which it is opened.
        title: Network and data.
        metrics: What it is for.
        files: Released files, any one of which will do.
        companions: Files that have to be beside it.
        source: How to obtain them.
        hub: Id at the Hugging Face hub, whose cache is searched too.
        torch_hub: Whether torch's hub cache is searched too.
        package: Python package that is needed.
        hash_in_name: The file's name ends in the first digits of its SHA-256.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    files: tuple[str, ...]
    source: str
    companions: tuple[str, ...] = ()
    hub: str | None = None
    torch_hub: bool = False
    package: str | None = None
    hash_in_name: bool = False


@dataclass(frozen=True)
class DetectorStatus:
    """What `vgen doctor` says about a detector.

    Args:
        card: The detector.
        path: Where it was found; None: missing.
        text: The path, or what is missing, where it belongs and how to obtain it.
    """

    card: DetectorCard
    path: Path | None
    text: str


_TORCHVISION = "https://download.pytorch.org/models/"
CARDS = {
    card.name: card
    for card in (
        DetectorCard(
            "i3d",
            "I3D of Kinetics-400, TF-Hub weights",
            ("fvd", "kvd", "cfvd", "sfvd", "rfvd"),
            ("i3d_torchscript.pt", "i3d_pretrained_400.pt"),
            "linked in github.com/universome/stylegan-v (src/metrics/frechet_video_distance.py); or "
            "i3d_pretrained_400.pt, linked in github.com/wilson1yan/VideoGPT and github.com/songweige/TATS",
        ),
        DetectorCard(
            "c3d",
            "C3D of UCF-101",
            ("isv",),
            ("conv3d_deepnetA_ucf.npz",),
            "release of github.com/pfnet-research/tgan2",
            companions=("mean2.npz",),
        ),
        DetectorCard(
            "inception",
            "Inception-v3 of 2015-12-05",
            ("fid_frames",),
            ("pt_inception-2015-12-05-6726825d.pth",),
            "release of github.com/toshas/torch-fidelity; and `pip install torch-fidelity`",
            torch_hub=True,
            package="torch_fidelity",
            hash_in_name=True,
        ),
        DetectorCard(
            "videomae",
            "VideoMAE-v2 ViT-g of Something-Something v2",
            ("cd_fvd",),
            ("vit_g_hybrid_pt_1200e_ssv2_ft.pth",),
            "huggingface.co/OpenGVLab/InternVideoMAE_models, folder mae-g (4 GB)",
        ),
        DetectorCard(
            "clip",
            "CLIP ViT-B/32",
            ("clipsim", "clip_frame", "vb_background_consistency"),
            ("clip-vit-base-patch32",),
            "`hf download openai/clip-vit-base-patch32`, or copy that repository as a folder",
            hub="openai/clip-vit-base-patch32",
        ),
        DetectorCard(
            "dino",
            "DINO ViT-B/16",
            ("vb_subject_consistency",),
            ("dino-vitb16",),
            "`hf download facebook/dino-vitb16`, or copy that repository as a folder",
            hub="facebook/dino-vitb16",
        ),
        DetectorCard(
            "raft",
            "RAFT large, optical flow",
            ("vb_dynamic_degree", "motion_smoothness_flow"),
            ("raft_large_C_T_SKHT_V2-ff5fadd5.pth",),
            f"{_TORCHVISION}raft_large_C_T_SKHT_V2-ff5fadd5.pth",
            torch_hub=True,
            hash_in_name=True,
        ),
        DetectorCard(
            "lpips_alex",
            "AlexNet of ImageNet, for LPIPS",
            ("lpips",),
            ("alexnet-owt-7be5be79.pth",),
            f"{_TORCHVISION}alexnet-owt-7be5be79.pth",
            torch_hub=True,
            hash_in_name=True,
        ),
        DetectorCard(
            "lpips_vgg",
            "VGG16 of ImageNet, for LPIPS",
            ("lpips",),
            ("vgg16-397923af.pth",),
            f"{_TORCHVISION}vgg16-397923af.pth",
            torch_hub=True,
            hash_in_name=True,
        ),
    )
}


def folder() -> Path:
    """Where detector files belong: $VGEN_DETECTORS, else ~/.cache/vgen/detectors."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else Path("~/.cache/vgen/detectors").expanduser()


def card(name: str) -> DetectorCard:
    """The card of a name.

    Raises:
        UserError: No such detector.
    """
    if name not in CARDS:
        hint = did_you_mean(name, CARDS) or f"there are: {', '.join(CARDS)}"
        raise UserError(f"no detector {name!r}", where="detectors", hint=hint)
    return CARDS[name]


def find(name: str, path: str | Path | None = None) -> Path:
    """Finds the file (or folder) of a detector and its companions.

    Args:
        name: Of the detector.
        path: A file to take instead of searching.

    Raises:
        UserError: It is not there, incomplete, not the file that its name promises, or its package is not installed;
            says where it belongs and how to obtain it.
    """
    wanted = card(name)
    if wanted.package is not None and importlib.util.find_spec(wanted.package) is None:
        raise UserError(f"{wanted.title} needs the package {wanted.package}", hint=wanted.source)
    found = Path(path).expanduser() if path is not None else _search(wanted)
    if found is None or not found.exists():
        place = str(found) if found is not None else str(folder() / wanted.files[0])
        raise UserError(
            f"{wanted.title} is missing: {' or '.join(wanted.files)} ({', '.join(wanted.metrics)})",
            where=place,
            hint=f"{wanted.source}; put it there, or name a folder by {FOLDER_VARIABLE}",
        )
    for companion in wanted.companions:
        if not (found.parent / companion).is_file():
            raise UserError(
                f"{wanted.title} needs {companion} beside {found.name}",
                where=str(found.parent / companion),
                hint=wanted.source,
            )
    if wanted.hash_in_name and found.name in wanted.files:
        digits = found.stem.rpartition("-")[2]
        if not (digest := sha256(found)).startswith(digits):
            raise UserError(
                f"{found.name} is damaged: its SHA-256 begins with {digest[:8]}, not {digits}",
                where=str(found),
                hint=f"fetch it again: {wanted.source}",
            )
    return found


def _search(wanted: DetectorCard) -> Path | None:
    places = [folder()]
    if wanted.torch_hub:
        import torch

        places.append(Path(torch.hub.get_dir()) / "checkpoints")
    for place in places:
        for file in wanted.files:
            if (place / file).exists():
                return place / file
    if wanted.hub is not None:
        from huggingface_hub import try_to_load_from_cache

        config = try_to_load_from_cache(wanted.hub, "config.json")
        if isinstance(config, str):
            return Path(config).parent
    return None


def status() -> list[DetectorStatus]:
    """Looks for every detector, without opening any; for `vgen doctor`."""
    found = []
    for wanted in CARDS.values():
        try:
            path = find(wanted.name)
        except UserError as error:
            what = f"missing, belongs at {error.where}" if error.where else f"needs the package {wanted.package}"
            found.append(DetectorStatus(wanted, None, f"{what}: {wanted.source}"))
        else:
            found.append(DetectorStatus(wanted, path, str(path)))
    return found
