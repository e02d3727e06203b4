"""3x3 convolution with constant weights on a CPU, in 4/9 of the multiplications.

Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv:1509.09308, equations 7 to 12): every tile of 2x2
outputs is A^T [(G g G^T) * (B^T d B)] A, where d are the 4x4 inputs below it and the products of all channels and tiles
are 16 matrix products. G g G^T is computed once, as the weights never change. With transforms made of sums alone,
rounding is as that of the direct form. cuDNN does the like by itself; oneDNN does not.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# B^T d: row i is d[first] + sign d[second].
_INPUT = ((0, -1, 2), (1, 1, 2), (2, -1, 1), (1, -1, 3))
# G of the kernel turned round is G with these rows: turning exchanges the outer two.
_TURNED = (3, 1, 2, 0)
_LEAST_CHANNELS, _LEAST_PIXELS = 128, 64


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether x (N, C, H, W) is convolved faster this way with a weight (K, C, 3, 3), and can be at all.

    The sums of the transforms have to be small beside the products saved, and sides have to be even.
    """
    height, width = x.shape[-2:]
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and weight.shape[-2:] == (3, 3)
        and not (height % 2 or width % 2)
        and height * width >= _LEAST_PIXELS
        and weight.shape[1] >= _LEAST_CHANNELS
        and weight.shape[0] > _LEAST_CHANNELS
    )


def transformed(weight: Tensor) -> Tensor:
    """G g G^T of weights (K, C, 3, 3): (16, C, K)."""
    matrix = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    tiles = torch.einsum("ai,kcij,bj->abck", matrix, weight.double(), matrix)
    return tiles.to(weight.dtype).flatten(0, 1).contiguous()


class WinogradConv2d(torch.autograd.Function):
    """`F.conv2d(x, weight, bias, padding=1)`, from `transformed(weight)`; only x has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """From x (N, C, H, W), H and W even, weight (16, C, K), bias (K,) to (N, K, H, W), channels last in memory."""
        ctx.save_for_backward(weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        """The gradient convolved with the kernels turned round."""
        (weight,) = ctx.saved_tensors
        return _convolve(gradient, weight.transpose(1, 2), None, _TURNED), None, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, place: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    """Of x (N, C, H, W) and weight (16, C, K); row or column i of a transformed tile is kept at `place[i]`."""
    count, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    rows = [padded[:, i : i + height - 1 : 2] for i in range(4)]
    tiles = x.new_empty(4, 4, count, height // 2, width // 2, channels)
    for i, (first, sign, second) in enumerate(_INPUT):
        row = torch.add(rows[first], rows[second], alpha=sign)
        columns = [row[:, :, j : j + width - 1 : 2] for j in range(4)]
        for j, (left, side, right) in enumerate(_INPUT):
            torch.add(columns[left], columns[right], alpha=side, out=tiles[place[i], place[j]])
    products = torch.bmm(tiles.view(16, -1, channels), weight).view(*tiles.shape[:-1], -1)
    size = (count, products.shape[-1], height, width)
    result = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out = result.permute(0, 2, 3, 1)
    for i, partial in enumerate(_outputs([products[k] for k in place])):
        _outputs([partial[k] for k in place], (out[:, i::2, 0::2], out[:, i::2, 1::2]))
    if bias is not None:
        out.add_(bias)
    return result


def _outputs(m: list[Tensor], out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """A^T m: the two outputs along one axis."""
    first, second = out or (None, None)
    return torch.add(m[0], m[1], out=first).add_(m[2]), torch.sub(m[1], m[2], out=second).sub_(m[3])
