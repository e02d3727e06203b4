"""Classifier-free guidance: which clips lose their condition, and what stands in its place.

Ho and Salimans, "Classifier-Free Diffusion Guidance" (2022), algorithm 1: in training the condition is replaced by a
null token with a fixed probability; sampling combines both predictions.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgen.conditioning.base import is_null_text
from vgen.errors import UserError


def explicit_null_mask(conditions: dict[str, Any], n: int, device: torch.device | str = "cpu") -> Tensor:
    """Marks the clips that were given no condition.

    A clip has none where its `text` is None or "None" or, in a batch without texts, where its `label` is None, "None"
    or negative; a batch with neither key has none at all.

    Args:
        conditions: Per-clip conditions (first dimension n).
        n: Number of clips.
        device: Where the mask is wanted.

    Returns:
        (n,) bool.
    """
    value = conditions.get("text")
    if value is None:
        value = conditions.get("label")
    if value is None:
        return torch.ones(n, dtype=torch.bool, device=device)
    if isinstance(value, Tensor):
        return (value.reshape(-1) < 0).to(device)
    rows = [value] * n if isinstance(value, str | int) else list(value)
    flags = [row < 0 if isinstance(row, int) else is_null_text(row) for row in rows]
    return torch.tensor(flags, dtype=torch.bool).to(device, non_blocking=True)  # without waiting for the device


def drop_mask(
    n: int, probability: float, device: torch.device | str = "cpu", generator: torch.Generator | None = None
) -> Tensor:
    """Draws which of n clips lose their condition in this training step: uniform < probability.

    Returns:
        (n,) bool.
    """
    if not 0.0 <= probability <= 1.0:
        raise UserError(f"a drop probability lies between 0 and 1, got {probability}", where="null_probability")
    if probability == 0.0:
        return torch.zeros(n, dtype=torch.bool, device=device)
    return torch.rand(n, device=device, generator=generator) < probability


def null_mask(
    conditions: dict[str, Any],
    n: int,
    probability: float = 0.0,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mask that a guided model needs: clips without a condition, and those that lose it by chance.

    Args:
        conditions: Per-clip conditions (first dimension n).
        n: Number of clips.
        probability: Chance of dropping a condition; 0 outside training.
        device: Where the mask is wanted.
        generator: Source of chance; None takes the device's own.

    Returns:
        (n,) bool, True where the null embedding takes the condition's place.
    """
    return explicit_null_mask(conditions, n, device) | drop_mask(n, probability, device, generator)


class NullEmbedding(nn.Module):
    """The vector that stands for "no condition", for models whose network does not hold one.

    Args:
        dim: Width of the condition vector.
        mode: `zeros` (a constant, not in the state dict) or `learned` (a parameter (1, dim), drawn from N(0, 1)).
    """

    null: Tensor

    def __init__(self, dim: int, mode: Literal["zeros", "learned"] = "zeros") -> None:
        super().__init__()
        if mode == "learned":
            self.null = nn.Parameter(torch.randn(1, dim))
        else:
            self.register_buffer("null", torch.zeros(1, dim), persistent=False)

    def forward(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """Replaces the rows of embedding (B, dim) where mask (B,) is True."""
        return torch.where(mask[:, None], self.null.to(embedding.dtype), embedding)
