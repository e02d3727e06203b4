"""`vgen doctor`: what is installed, what is there, what is missing and where it belongs."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

# Torchvision's own file names: the hash is part of them, so a wrong or truncated download is noticed on loading.
_TORCHVISION_FILES = {
    "VGG19 (perceptual loss)": ("vgg19-dcbb9e9d.pth", "VGGPyramid"),
    "VGG16 (LPIPS as a loss)": ("vgg16-397923af.pth", "LPIPS"),
}
_TEXT_ENCODERS = ("bert-base-cased",)
_LOW_DISK_GB = 10  # a full-size run keeps two checkpoints with optimiser state, samples and packed data
_NO_DISK_GB = 1
_LOW_SHARED_GB = 1  # batches go from reading processes to the training through shared memory
_DATA_KEYS = frozenset({"root", "packed"})


Level = Literal["ok", "note", "bad"]


@dataclass
class Line:
    """One line of the output; `bad` means that something needed is missing."""

    topic: str
    name: str
    text: str
    level: Level = "ok"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="YAML",
        help="a recipe (repeat for overlays): its data and pretrained parts then count as needed",
    )
    parser.add_argument("--data", action="append", default=[], metavar="DIR", help="a data set's folder that is needed")


def _versions() -> Iterator[Line]:
    import vgen

    yield Line("versions", "vgen", vgen.__version__)
    supported = sys.version_info >= (3, 11)
    yield Line("versions", "python", platform.python_version(), "ok" if supported else "bad")
    for text in _requirements():
        from packaging.requirements import Requirement

        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Line("versions", wanted.name, f"missing: pip install '{wanted}'", "bad")
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        yield Line(
            "versions", wanted.name, version + ("" if fits else f", needs {wanted.specifier}"), "ok" if fits else "bad"
        )


def _requirements() -> list[str]:
    """What the installed package declares, or the checkout that is on the path without being installed."""
    import vgen

    try:
        return importlib.metadata.requires("vgen") or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(vgen.__file__).parents[1] / "pyproject.toml"
        return list(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"])


def _devices() -> Iterator[Line]:
    import torch

    yield Line("devices", "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            memory = properties.total_memory / 2**30
            text, built = f"{properties.name}, {memory:.0f} GB, {bf16}", torch.cuda.get_arch_list()
            # Code for an older architecture of the same generation runs on a newer one.
            fits = any(arch.rpartition("_")[2].rstrip("af")[:-1] == str(properties.major) for arch in built)
            fits = fits or any(arch.startswith("compute") for arch in built)
            missing = "" if fits else f"; this torch was built for {', '.join(built)} alone"
            yield Line("devices", f"cuda:{index}", text + missing, "ok" if fits else "bad")
    elif torch.backends.mps.is_available():
        yield Line("devices", "mps", "available")
    else:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Line("devices", "gpu", f"none found (torch is {build})", "note")


def _libraries() -> Iterator[Line]:
    from vgen import _torchvision

    try:
        import torchvision  # noqa: F401  the import is the check

        declared = _torchvision.operators_declared()
        text = "imports; its compiled operators do not load beside this torch, vgen declared nms and qnms"
        yield Line("libraries", "torchvision", text if declared else "imports, compiled operators load")
    except (ImportError, RuntimeError) as error:
        yield Line("libraries", "torchvision", f"cannot be imported: {str(error).splitlines()[0]}", "bad")
    try:
        import av

        codec = av.codec.Codec("libx264", "w")
        yield Line("libraries", "video", f"{codec.name} writes h264")
    except Exception as error:  # PyAV raises its own classes, and ImportError where it is missing
        yield Line("libraries", "video", f"h264 cannot be written: {error}", "bad")


def _read_configs(paths: list[str]) -> dict[str, Any]:
    """Merges recipe and overlays as plain data; the later file wins.

    Raises:
        UserError: A file cannot be read.
    """
    from vgen.cli.recipe import load_yaml, merge

    config: dict[str, Any] = {}
    for path in paths:
        config = merge(config, load_yaml(Path(path)))
    return config


def _walk(config: object, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every mapping with the key it stands under, leaving out what is declared to be random."""
    if isinstance(config, dict):
        arguments = config.get("init_args")
        if config.get("random_init") is True or (isinstance(arguments, dict) and arguments.get("random_init") is True):
            return
        yield key, config
        for name, value in config.items():
            yield from _walk(value, str(name))
    elif isinstance(config, list):
        for item in config:
            yield from _walk(item, key)


def _data_of(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Folders that a configuration reads clips from, with the key that names each."""
    blocks = [(key, block) for key, block in _walk(config) if key == "data" or "root" in block]
    blocks += [(key, block["init_args"]) for key, block in blocks if isinstance(block.get("init_args"), dict)]
    return [(f"{k}.{n}", v) for k, block in blocks for n, v in block.items() if n in _DATA_KEYS and isinstance(v, str)]


def _data(given: list[str], config: dict[str, Any]) -> Iterator[Line]:
    """The folders that are needed; where nothing says which, those of every recipe, needed by none."""
    from vgen.cli.recipe import load_yaml

    named = [("--data", path) for path in given] + _data_of(config)
    level: Level = "bad"
    if not named:
        level = "note"
        found = [(recipe, path) for recipe in _all_recipes() for _, path in _data_of(load_yaml(recipe))]
        found += [(tiny, path) for tiny in _all_recipes("tiny") for _, path in _data_of(load_yaml(tiny))]
        named = [(str(Path(recipe.parent.name, recipe.name)), path) for recipe, path in found]
    by_path: dict[str, list[str]] = {}
    for where, path in named:
        if where not in by_path.setdefault(path, []):
            by_path[path].append(where)
    for path, places in by_path.items():
        folder, where = Path(path).expanduser(), ", ".join(places)
        if folder.is_dir():
            count = sum(1 for entry in folder.iterdir() if not entry.name.startswith("."))
            yield Line("data", path, f"{count} entries" if count else f"empty ({where})", "ok" if count else level)
        elif folder.is_file():
            yield Line("data", path, "a file")
        else:
            yield Line("data", path, f"not found ({where}); `vgen data make-fake` writes a small stand-in", level)


def _all_recipes(folder: str = "") -> list[Path]:
    from vgen.cli.commands.models import recipes

    return [path.parent / folder / path.name for path in recipes("*") if (path.parent / folder / path.name).is_file()]


def _initial(config: dict[str, Any]) -> Iterator[Line]:
    """Weights that a recipe starts from."""
    for key, block in _walk(config):
        path = block.get("path") if key in ("init_from", "codec", "companion") else None
        if isinstance(path, str) and not path.startswith("stage://"):
            there = Path(path).expanduser().exists()
            text = "found" if there else f"not found ({key}.path): train it, or name another run, file or export"
            yield Line("pretrained", path, text, "ok" if there else "bad")


def _pretrained(config: dict[str, Any]) -> Iterator[Line]:
    import torch
    from huggingface_hub import constants, try_to_load_from_cache

    blocks = list(_walk(config))
    strings = {value for _, block in blocks for value in block.values() if isinstance(value, str)}
    classes = [value for _, block in blocks if isinstance(value := block.get("class_path"), str)]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name, (file, loss) in _TORCHVISION_FILES.items():
        path = folder / file
        needed = any(c.rpartition(".")[2] == loss for c in classes)
        if path.is_file():
            yield Line("pretrained", name, str(path))
        else:
            yield Line("pretrained", name, f"missing, belongs at {path} (torchvision)", "bad" if needed else "note")
    for model in _TEXT_ENCODERS:
        # The hub moved its first models under an organisation; caches hold either name.
        cached = [try_to_load_from_cache(repo, "config.json") for repo in (model, f"google-bert/{model}")]
        hit = next((path for path in cached if isinstance(path, str)), None)
        needed = model in strings or f"google-bert/{model}" in strings
        missing = f"missing, belongs in {constants.HF_HUB_CACHE} (Hugging Face hub), or give a local folder"
        yield Line(
            "pretrained", model, str(Path(hit).parent) if hit else missing, "ok" if hit else "bad" if needed else "note"
        )


def _detectors() -> Iterator[Line]:
    from vgen.metrics.detectors import status

    for found in status():
        yield Line("detectors", found.card.title, found.text, "note" if found.path is None else "ok")


def _logging() -> Iterator[Line]:
    from vgen.cli.tracking import key_source

    # Only whether there is a key is said, never the key.
    source = key_source()
    text = f"set ({source})" if source else "none: a W&B logger writes offline; metrics.csv is always written"
    yield Line("logging", "wandb key", text, "ok" if source else "note")
    yield Line("logging", "wandb mode", os.environ.get("WANDB_MODE") or "online where a key is set")


def _disk() -> Iterator[Line]:
    free = shutil.disk_usage(".").free / 2**30
    text, level = f"{free:.0f} GB", "ok"
    if free < _LOW_DISK_GB:
        text, level = f"{free:.1f} GB (little for a full-size run)", "note" if free >= _NO_DISK_GB else "bad"
    yield Line("disk", "free here", text, cast(Level, level))
    if not os.access(".", os.W_OK):
        yield Line("disk", "this folder", "cannot be written: runs/ would lie here", "bad")
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total / 2**30
        low = size < _LOW_SHARED_GB
        text = f"{size:.1f} GB" + (" (little for num_workers > 0; docker: --shm-size)" if low else "")
        yield Line("disk", "shared memory", text, "note" if low else "ok")


def run(args: argparse.Namespace) -> int:
    """Prints what was found.

    Returns:
        0 where nothing that is needed is missing, else 1. Without `--config` and `--data`, data sets and pretrained
        weights are optional: nothing says yet that they are needed.

    Raises:
        UserError: A `--config` file cannot be read.
    """
    config = _read_configs(args.config)
    lines = [
        *_versions(),
        *_devices(),
        *_libraries(),
        *_data(args.data, config),
        *_pretrained(config),
        *_initial(config),
        *_detectors(),
        *_logging(),
        *_disk(),
    ]
    width = max(len(line.name) for line in lines)
    marks = {"ok": "ok", "note": "--", "bad": "!!"}
    topic = ""
    for line in lines:
        if line.topic != topic:
            topic = line.topic
            print(f"\n{topic}")
        print(f"  {marks[line.level]}  {line.name:<{width}}  {line.text}")
    bad = [line for line in lines if line.level == "bad"]
    print()
    if bad:
        print(f"{len(bad)} needed and missing: {', '.join(line.name for line in bad)}")
    else:
        print("everything needed is there")
    return 1 if bad else 0
