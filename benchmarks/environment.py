"""What a measurement was taken on."""

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "lightning", "diffusers", "numpy")


def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_name() -> str | None:
    """Model name of the first GPU, if there is one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def slug(name: str) -> str:
    """A hardware name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def git_commit() -> str | None:
    """The commit that is measured, `-dirty` behind it where files differ from it."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def facts(threads: int) -> dict[str, Any]:
    """Hardware, versions, commit and load, as they go into a result file."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": git_commit(),
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "gpu": gpu_name(), "cuda": torch.version.cuda},
        "threads": threads,
        "versions": versions,
        "load_average": list(os.getloadavg()),
    }
