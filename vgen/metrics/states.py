"""The base of metrics whose states are rows of tensors, gathered from all ranks as they are."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torchmetrics import Metric


class GatheredMetric(Metric):
    """Keeps what it was given, exactly, so that the result does not depend on how clips were shared out over ranks."""

    is_differentiable = False
    full_state_update = False

    def set_dtype(self, dst_type: Any) -> "GatheredMetric":
        """Keeps float64: a model in half precision must not round the sums of its metrics."""
        return self

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gathers the states of all ranks.

        A rank without clips would send an empty float32 tensor, whatever the others send, and gloo aborts on that: it
        first learns from the others what its rows would look like.
        """
        if should_sync and not self._is_synced and distributed.is_available() and distributed.is_initialized():
            group = process_group or self.process_group
            own = {name: _row(getattr(self, name)) for name, default in self._defaults.items() if default == []}
            every: list[Any] = [None] * distributed.get_world_size(group)
            distributed.all_gather_object(every, own, group=group)
            for name, row in own.items():
                known = next((rows[name] for rows in every if rows[name] is not None), None)
                if row is None and known is not None:
                    shape, dtype = known
                    setattr(self, name, [torch.empty((0, *shape), dtype=dtype, device=self.device)])
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)


def _row(state: list[Tensor] | Tensor) -> tuple[tuple[int, ...], torch.dtype] | None:
    """Shape and kind of one row of a state; None where there is none."""
    first = state if isinstance(state, Tensor) else state[0] if state else None
    return None if first is None else (tuple(first.shape[1:]), first.dtype)


def stack_rows(state: list[Tensor] | Tensor) -> Tensor | None:
    """All rows of a state (a list, or after a synchronisation a tensor); None without any."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else None
