"""Fewer steps of a discrete schedule: which, and the schedule that they make (Nichol & Dhariwal 2021, section 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vgen.errors import UserError


def space_timesteps(total: int, spacing: str | int) -> list[int]:
    """The steps of 0..total-1 that are kept, ascending.

    Args:
        total: Steps T of the schedule.
        spacing: `ddimN`: every s-th step from 0, with the smallest whole s that gives N of them. A number or numbers
            `n1,n2,...`: T is cut into as many equal sections, the first T mod k one longer, and n_i steps are spread
            over section i from its first to its last.

    Raises:
        UserError: When there are no such steps.
    """
    text = str(spacing)
    try:
        if text.startswith("ddim"):
            wanted = int(text.removeprefix("ddim"))
            step = next((s for s in range(1, total + 1) if len(range(0, total, s)) == wanted), None)
            if step is None:
                raise UserError(f"no whole stride takes {wanted} of {total} steps", "steps", f"try {wanted}")
            return list(range(0, total, step))
        counts = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"steps {text!r} are neither N, n1,n2,... nor ddimN", "steps") from error
    kept, start = [], 0
    for i, count in enumerate(counts):
        size = total // len(counts) + (i < total % len(counts))
        if not 0 < count <= size:
            raise UserError(f"cannot take {count} of {size} steps", "steps")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        place = 0.0
        for _ in range(count):
            kept.append(start + round(place))
            place += stride
        start += size
    return kept


def respaced_betas(alphas_cumprod: Tensor, kept: Sequence[int]) -> Tensor:
    """The betas of the process over the kept steps: 1 - abar_t / abar of the kept step before.

    Args:
        alphas_cumprod: abar of all steps, (T,) fp64.
        kept: Ascending steps.

    Returns:
        (len(kept),) fp64.
    """
    abar = alphas_cumprod[torch.as_tensor(kept)]
    return 1 - abar / torch.cat((abar.new_ones(1), abar[:-1]))
