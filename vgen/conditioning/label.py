"""Class labels as vectors."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgen.conditioning.base import Conditioner, label_indices
from vgen.errors import UserError
from vgen.video import ClipSpec


class LabelEmbedding(Conditioner):
    """One vector per class.

    Args:
        dim: Width of the vector; at least the number of classes for `one_hot`, which pads it with zeros.
        num_classes: Number of classes; None takes it from the data.
        kind: `learned` (a table drawn from N(0, 1)) or `one_hot` (fixed, nothing to learn).
        scale: Length of the one-hot vector; None takes sqrt(dim), which gives it the length that a learned vector
            has at the start. Not used by `learned`.
    """

    weight: Tensor | None

    def __init__(
        self,
        dim: int,
        num_classes: int | None = None,
        kind: Literal["learned", "one_hot"] = "learned",
        scale: float | None = None,
    ) -> None:
        super().__init__(dim)
        if kind not in ("learned", "one_hot"):
            raise UserError(f"unknown kind of label embedding {kind!r}", where="conditioner.kind")
        self.num_classes, self.kind, self.scale = num_classes, kind, scale
        self.register_parameter("weight", None)
        if num_classes is not None:
            self._make_table(num_classes)

    def _make_table(self, classes: int) -> None:
        if self.kind == "learned":
            self.weight = nn.Parameter(torch.randn(classes, self.dim))
            return
        if classes > self.dim:
            raise UserError(
                f"a one-hot embedding of {classes} classes does not fit into {self.dim} numbers",
                where="conditioner.dim",
                hint=f"set dim to {classes} or more",
            )
        scale = math.sqrt(self.dim) if self.scale is None else self.scale
        del self.weight
        # Follows from the arguments, so it is not stored.
        self.register_buffer("weight", torch.eye(classes, self.dim) * scale, persistent=False)

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the table, with one row per class of the data.

        Raises:
            UserError: The data has no classes, or another number than `num_classes`.
        """
        super().prepare(clip_spec)
        found = len(clip_spec.class_names)
        if self.weight is None:
            if not found:
                raise UserError(
                    "a label embedding needs classes, and the data has none",
                    where="conditioner",
                    hint="set num_classes, or use data with labels",
                )
            self._make_table(found)
        elif found and found != self.weight.shape[0]:
            raise UserError(
                f"num_classes is {self.weight.shape[0]}, but the data has {found} classes",
                where="conditioner.num_classes",
                hint="leave num_classes out: it is taken from the data",
            )

    def forward(self, conditions: dict[str, Any]) -> Tensor:
        """Looks up `conditions["label"]`, or class names in `conditions["text"]`; see `Conditioner.forward`."""
        if self.weight is None:
            raise RuntimeError("LabelEmbedding.prepare(clip_spec) has not been called")
        labels = conditions.get("label")
        if labels is None:
            labels = conditions.get("text")
        if labels is None:
            raise UserError("no label to condition on", where="conditions", hint="give `label`")
        indices = label_indices(labels, self.class_names).to(self.weight.device, non_blocking=True)
        rows = self.weight[indices.clamp_min(0)]
        return rows * (indices >= 0).to(rows.dtype)[:, None]
