"""The interface of all condition encoders, and the reading of class names."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError, did_you_mean
from vgen.video import ClipSpec

NO_CONDITION = -1
"""The label index that stands for "no condition": its embedding is zeros and its null mask is True."""


class Conditioner(Configurable, nn.Module):
    """Turns the conditions of a batch into one vector per clip.

    A model builds its conditioner from the recipe, calls `prepare` once with the clip specification, and `forward` in
    every step. Dropping conditions for classifier-free guidance is not done here: see `vgen.conditioning.null`.

    Args:
        dim: Width of the vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise UserError(f"a condition embedding needs a width of at least 1, got {dim}", where="conditioner.dim")
        self.dim = dim
        self.class_names: tuple[str, ...] = ()

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Takes class names from the data; called once by the model, before the optimiser is made."""
        self.class_names = clip_spec.class_names

    def materialize(self) -> None:
        """Does the work that needs files (a text model), so that a missing file is an error before the first step.

        Does nothing where there is no such work or it has been done, for example by loading a checkpoint.
        """

    def forward(self, conditions: dict[str, Any]) -> Tensor:
        """Embeds the conditions of a batch.

        Args:
            conditions: Per-clip conditions (first dimension B): `label` an int64 tensor or class names, `text` a list
                of strings; `None`, `"None"` and the index -1 mean no condition.

        Returns:
            (B, dim); rows without a condition are zeros.
        """
        raise NotImplementedError


def is_null_text(text: str | None) -> bool:
    """True for None and for the word "None", which the LFDM release uses as its unconditional prompt."""
    return text is None or text == "None"


def class_index(name: str, class_names: Sequence[str]) -> int:
    """Returns the index of a class name.

    Raises:
        UserError: The data had no such class; the hint names the closest one.
    """
    names = list(class_names)
    if name in names:
        return names.index(name)
    if not names:
        raise UserError(f"{name!r} is not a known class: the data of this model has no class names", where="label")
    known = ", ".join(names) if len(names) <= 30 else ", ".join(names[:30]) + ", ..."
    raise UserError(
        f"{name!r} is not a class of this model",
        where="label",
        hint=did_you_mean(name, names) or f"the classes are: {known}",
    )


def label_indices(
    labels: int | str | Tensor | Sequence[int | str | None] | None, class_names: Sequence[str], n: int | None = None
) -> Tensor:
    """Reads labels in any form that a person or a batch gives them.

    Args:
        labels: One label for all clips or one per clip, as index, class name or None (no condition).
        class_names: Names by index; may be empty where only indices are used.
        n: Number of clips; None takes it from `labels`.

    Returns:
        (n,) int64, -1 where there is no condition; on the device of `labels` if that is a tensor.

    Raises:
        UserError: An unknown name, an index out of range, or another number of labels than clips.
    """
    if isinstance(labels, Tensor):
        # A tensor comes from a loader: its range is not looked at, because that would wait for the device.
        indices = labels.long().reshape(-1)
    else:
        rows = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
        numbers = [_index(row, class_names) for row in rows]
        indices = torch.tensor(numbers, dtype=torch.int64)
    if n is not None and indices.numel() != n:
        if indices.numel() != 1:
            raise UserError(f"got {indices.numel()} labels for {n} clips", where="label", hint="give one, or one each")
        indices = indices.expand(n)
    return indices


def _index(row: int | str | None, class_names: Sequence[str]) -> int:
    if isinstance(row, str) and row in class_names:
        return class_index(row, class_names)
    if row is None or (isinstance(row, str) and is_null_text(row)):
        return NO_CONDITION
    if isinstance(row, str):
        return class_index(row, class_names)
    if row < NO_CONDITION or (class_names and row >= len(class_names)):
        raise UserError(
            f"label {row} is out of range", where="label", hint=f"the classes are 0 to {len(class_names) - 1}"
        )
    return int(row)
