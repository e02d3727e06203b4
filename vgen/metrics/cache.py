"""Features of real clips on disk, so that a data set passes a detector once."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vgen.files import write_atomic, write_json
from vgen.metrics.features import Features

DEFAULT_FOLDER = "~/.cache/vgen/features"
_FORMAT = 1


class FeatureCache:
    """A folder of features, each under a key of everything that decides them.

    Args:
        folder: Is made where it does not exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def path(self, description: Mapping[str, Any]) -> Path:
        """File of the features that a description stands for."""
        text = json.dumps({"format": _FORMAT, **description}, sort_keys=True)
        return self.folder / f"features_{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"

    def load(self, description: Mapping[str, Any]) -> Features | None:
        """The features; None where there are none, or the file is damaged."""
        try:
            stored = load_file(self.path(description))
            return Features(**stored)
        except (OSError, SafetensorError, TypeError):
            return None

    def save(self, description: Mapping[str, Any], features: Features) -> None:
        """Writes the features in one step, and beside them, for people, what they are."""
        path = self.path(description)
        stored = {name: value.contiguous() for name, value in vars(features).items()}
        write_json(path.with_suffix(".json"), dict(description))
        write_atomic(path, lambda temporary: save_file(stored, temporary))
