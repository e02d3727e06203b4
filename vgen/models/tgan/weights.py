"""Names in the official Chainer snapshots -> ours, and a reader of such files.

Layouts are PyTorch's already. `bn*/N` counts batches and has no use here.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.weights.keymap import KeyMap, Rule

_COMMON = [
    Rule(r"/N$"),
    Rule(r"/W$", ".weight"),
    Rule(r"/b$", ".bias"),
    Rule(r"/gamma$", ".weight"),
    Rule(r"/beta$", ".bias"),
    Rule(r"/avg_mean$", ".running_mean"),
    Rule(r"/avg_var$", ".running_var"),
    Rule(r"/num_batches_tracked$", ".num_batches_tracked"),
]
SEED_KEYS = KeyMap(
    [
        Rule(r"^dc([0-3])/", r"levels.\1.conv/"),
        Rule(r"^bn([0-3])/", r"levels.\1.norm/"),
        Rule(r"^dc4/", "to_code/"),
        *_COMMON,
    ]
)
_DOWN_BY_ONE = [
    rule
    for i in range(1, 5)
    for rule in (Rule(rf"^dc{i}/", f"levels.{i - 1}.conv/"), Rule(rf"^bn{i}/", f"levels.{i - 1}.norm/"))
]
IMAGE_KEYS = KeyMap(
    [
        Rule(r"^l0s/", "from_slow/"),
        Rule(r"^l0f/", "from_fast/"),
        Rule(r"^bn0s/", "norm_slow/"),
        Rule(r"^bn0f/", "norm_fast/"),
        *_DOWN_BY_ONE,
        Rule(r"^dc5/", "to_pixel/"),
        *_COMMON,
    ]
)
CRITIC_KEYS = KeyMap(
    [
        Rule(r"^c([0-3])/", r"levels.\1.conv/"),
        Rule(r"^bn0/", "unused_norm/"),
        Rule(r"^bn([1-3])/", r"levels.\1.norm/"),
        Rule(r"^c4/", "to_score/"),
        *_COMMON,
    ]
)


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with PyTorch's counters of batches, which Chainer's norms have not and which nothing here reads."""
    norms = {key.rpartition("/")[0] for key in state if key.endswith("/avg_var")}
    return {**state, **{f"{norm}/num_batches_tracked": torch.tensor(0) for norm in norms}}


def read_snapshot(path: str) -> dict[str, Tensor]:
    """Reads a Chainer npz of one network: arrays of numbers by their slashed names.

    Raises:
        UserError: The file is missing, damaged, or holds more than numbers.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError("no such checkpoint file", path)
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: torch.from_numpy(np.asarray(content[name])) for name in content.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        hint = "an npz of arrays of numbers, as Chainer's save_npz writes it; nothing in it was run"
        raise UserError(f"the file cannot be read as an npz: {str(error).splitlines()[0][:120]}", path, hint) from error


def generator_config(seeds: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `VideoGenerator` for official weights.

    Raises:
        KeyError: The weights are other networks'.
    """
    return {
        "slow": int(seeds["dc0/W"].shape[0]),
        "fast": int(seeds["dc4/W"].shape[1]),
        "channels": int(images["dc1/W"].shape[0]),
        "seed_shift": "bn0/beta" in seeds,
    }
