"""`vgen doctor`: what is installed, what is there, what is missing and where it belongs."""

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Torchvision's own file names: the hash is part of them, so a wrong or truncated download is noticed on loading.
_TORCHVISION_FILES = {
    "VGG19 (perceptual loss)": "vgg19-dcbb9e9d.pth",
    "AlexNet (LPIPS)": "alexnet-owt-7be5be79.pth",
    "VGG16 (LPIPS)": "vgg16-397923af.pth",
}
_TEXT_ENCODERS = ("bert-base-cased",)
_CORE = ("torch", "torchvision", "lightning", "jsonargparse", "torchmetrics", "diffusers", "transformers", "av")
_LOW_DISK_GB = 10  # a full-size run keeps two checkpoints with optimiser state, samples and packed data
_DATA_KEYS = frozenset({"root", "folder", "data_root", "annotations"})


@dataclass
class Line:
    """One line of the output; `bad` means that something needed is missing."""

    topic: str
    name: str
    text: str
    level: Literal["ok", "note", "bad"] = "ok"


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
    # Beside a checkout that is on the path without being installed, the declared requirements are unknown.
    declared = importlib.metadata.requires("vgen") if _installed("vgen") else None
    for requirement in declared or _CORE:
        if "extra ==" in requirement:
            continue
        name = requirement.split(";")[0]
        for sign in "[<>=!~ ":
            name = name.split(sign)[0]
        version = _installed(name)
        yield Line("versions", name, version or f"missing: pip install '{requirement}'", "ok" if version else "bad")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Line]:
    import torch

    yield Line("devices", "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            memory = properties.total_memory / 2**30
            yield Line("devices", f"cuda:{index}", f"{properties.name}, {memory:.0f} GB, {bf16}")
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
    """Merges recipe and overlays as plain data: deep for mappings, the later file wins.

    Raises:
        UserError: A file cannot be read.
    """
    import yaml

    from vgen.errors import UserError

    def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
        merged = dict(base)
        for key, value in over.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        return merged

    config: dict[str, Any] = {}
    for path in paths:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read {path!r}: {error.strerror}", where="--config") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path!r} is not valid YAML: {str(error).splitlines()[0]}", where="--config") from error
        if isinstance(data, dict):
            config = merge(config, data)
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


def _data(given: list[str], config: dict[str, Any]) -> Iterator[Line]:
    named = [("--data", path) for path in given]
    for key, block in _walk(config):
        named += [(f"{key}.{k}", v) for k, v in block.items() if k in _DATA_KEYS and isinstance(v, str)]
    for where, path in dict.fromkeys(named):
        folder = Path(path).expanduser()
        if folder.is_dir():
            count = sum(1 for entry in folder.iterdir() if not entry.name.startswith("."))
            yield Line("data", path, f"{count} entries" if count else f"empty ({where})", "ok" if count else "bad")
        elif folder.is_file():
            yield Line("data", path, "a file")
        else:
            yield Line("data", path, f"not found ({where}); `vgen data make-fake` writes a small stand-in", "bad")
    if not named:
        found = sorted(p for p in Path("data").iterdir() if p.is_dir()) if Path("data").is_dir() else []
        for folder in found:
            yield Line("data", str(folder), "found")
        if not found:
            yield Line(
                "data", "data/", "nothing there; `vgen data make-fake mug --out data/fake_mug` writes a set", "note"
            )


def _pretrained(config: dict[str, Any]) -> Iterator[Line]:
    import torch
    from huggingface_hub import constants, try_to_load_from_cache

    blocks = list(_walk(config))
    strings = {value for _, block in blocks for value in block.values() if isinstance(value, str)}
    classes = [value for _, block in blocks if isinstance(value := block.get("class_path"), str)]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name, file in _TORCHVISION_FILES.items():
        path = folder / file
        needed = name.startswith("VGG19") and any("VGG" in c or "Perceptual" in c for c in classes)
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


def _logging() -> Iterator[Line]:
    mode = os.environ.get("WANDB_MODE")
    netrc = Path("~/.netrc").expanduser()
    try:
        keyed = "api.wandb.ai" in netrc.read_text(encoding="utf-8", errors="replace")
    except OSError:
        keyed = False
    # Only whether there is a key is said, never the key.
    key = "set" if os.environ.get("WANDB_API_KEY") else "in ~/.netrc" if keyed else "none: metrics stay in metrics.csv"
    yield Line("logging", "wandb key", key, "note" if key.startswith("none") else "ok")
    yield Line("logging", "wandb mode", mode or "online where a key is set")


def _disk() -> Iterator[Line]:
    free = shutil.disk_usage(".").free / 2**30
    low = free < _LOW_DISK_GB
    yield Line(
        "disk",
        "free here",
        f"{free:.0f} GB" + (" (little for a full-size run)" if low else ""),
        "note" if low else "ok",
    )


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
