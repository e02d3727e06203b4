"""What has to stay in fp32 when the rest of a model runs in bf16."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def at_least_fp32(x: Tensor) -> Tensor:
    """The tensor in fp32; fp64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class FullPrecisionBuffers(nn.Module):
    """A module whose floating-point buffers follow it to a device, but not below fp32.

    For tables of constants: `precision: bf16-true` casts whole models, and a noise schedule or a rotary frequency of
    eight bits is another schedule or frequency. Parameters are cast as usual.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FullPrecisionBuffers":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            given = before[name]
            if buffer is not None and given is not None and buffer.is_floating_point() and buffer.dtype.itemsize < 4:
                self._buffers[name] = at_least_fp32(given).to(buffer.device)
        return self
