"""Names of the official networks' weights -> ours.

The release pickles whole modules: `recurrent.*` is a GRUCell, `main` a Sequential in which the slots of noise layers
stay where noise is off.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vgen.models.mocogan.networks import Discriminator
from vgen.weights.keymap import KeyMap, Rule


def _main(convolutions: tuple[int, ...], norms: tuple[int | None, ...], last: Rule) -> list[Rule]:
    """Rules for a Sequential whose convolutions and norms stand at these places; the last convolution has its own."""
    rules = []
    for level, (conv, norm) in enumerate(zip(convolutions, norms, strict=True)):
        rules.append(Rule(rf"^main\.{conv}\.", f"levels.{level}.conv."))
        if norm is not None:
            rules.append(Rule(rf"^main\.{norm}\.", f"levels.{level}.norm."))
    return [*rules, last]


GENERATOR_KEYS = KeyMap(
    [
        Rule(r"^recurrent\.(weight|bias)_(ih|hh)$", r"recurrent.\1_\2_l0"),
        *_main((0, 3, 6, 9), (1, 4, 7, 10), Rule(r"^main\.12\.", "to_pixel.")),
    ]
)
_FULL = KeyMap(_main((1, 4, 8, 12), (None, 5, 9, 13), Rule(r"^main\.15\.", "to_score.")))
# 12 for frames, where one more slot of noise comes before it
_PATCHES = KeyMap(_main((1, 4, 8), (None, 5, 9), Rule(r"^main\.1[12]\.", "to_score.")))


def discriminator_keys(network: Discriminator) -> KeyMap:
    """The rules for this kind of discriminator."""
    return _PATCHES if network.patches else _FULL


def generator_config(state: Mapping[str, Tensor], content: int = 50) -> dict[str, Any]:
    """Arguments of `VideoGenerator` for official weights; the content's size cannot be told from the categories'.

    Raises:
        KeyError: The weights are another network's.
        ValueError: The code is smaller than content and motion.
    """
    motion = int(state["recurrent.weight_hh"].shape[1])
    inputs, width = state["main.0.weight"].shape[:2]
    categories = int(inputs) - content - motion
    if categories < 0:
        raise ValueError(f"a code of {inputs} numbers has no {content} of content beside {motion} of motion")
    return {"content": content, "motion": motion, "categories": categories, "channels": int(width) // 8}


def with_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the norms' counters of batches, which PyTorch before 0.4 had not and which nothing here reads."""
    norms = (key.removesuffix("running_var") for key in state if key.endswith(".running_var"))
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | dict(state)
