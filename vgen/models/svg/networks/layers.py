"""Layers that see all frames of a clip at once, and compute on each as if it had come alone."""

from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.nn.precision import FullPrecisionBuffers, at_least_fp32

Statistics = Literal["running", "batch"]
Calls = Literal["once", "twice", "together"]
Layer = TypeVar("Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


class FrameNorm(FullPrecisionBuffers):
    """BatchNorm with statistics of each frame of the clips by itself, as a network has that is called frame by frame.

    SVG encodes and decodes one frame at a time: every call normalises by the statistics of one moment of all clips of
    the batch, and moves the running ones. This gives the numbers of these calls, and the same gradients, in one. What
    moments have in common with each other, and so the running statistics, says little about each of them: SVG-LP's
    release samples by the statistics of the batch of samples (`statistics`).

    Args:
        channels: Channels C.
        calls: How often a frame goes through the network in a training step: `once`; or `twice` but for the first and
            the last frame, which is what SVG-LP's encoder does (as input, and as target of the step before). Twice the
            same output, but the running statistics move twice. `together`: not as SVG, but as BatchNorm usually is: all
            frames of all clips have the same statistics, which running ones then stand for.
        momentum: Of the running statistics, for each call.
        eps: Added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, calls: Calls = "once", momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.calls, self.momentum, self.eps = calls, momentum, eps
        self.statistics: Statistics = "running"  # of evaluation; see `SVGNetwork.using`
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, 1.0, 0.02)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> the same shape."""
        together = self.training and self.calls == "together"
        if together or (not self.training and self.statistics == "running"):
            own = (self.running_mean, self.running_var, at_least_fp32(self.weight), at_least_fp32(self.bias))
            return F.batch_norm(x.flatten(0, 1), *own, together, self.momentum, self.eps).view_as(x)
        frames = x.shape[1]
        # A frame's channels beside the next one's: a view, and one kernel for all frames. Of momentum 1, it leaves the
        # frames' own statistics behind.
        means = self.running_mean.new_zeros(frames * x.shape[2])
        variances = torch.ones_like(means)
        gain, shift = (at_least_fp32(value).repeat(frames) for value in (self.weight, self.bias))
        out = F.batch_norm(x.flatten(1, 2), means, variances, gain, shift, training=True, momentum=1.0, eps=self.eps)
        if self.training:
            self._move(means.view(frames, -1), variances.view(frames, -1))
        return out.view_as(x)

    @torch.no_grad()
    def _move(self, means: Tensor, variances: Tensor) -> None:
        """The running statistics behind the calls of all frames, in their order."""
        frames = len(means)
        twice = self.calls == "twice"
        order = [frame for frame in range(frames) for _ in range(2 if twice and 0 < frame < frames - 1 else 1)]
        weights, keep = [0.0] * frames, 1.0
        for frame in reversed(order):
            weights[frame] += self.momentum * keep
            keep *= 1 - self.momentum
        share = torch.tensor(weights, dtype=means.dtype).to(means.device, non_blocking=True)
        self.running_mean.mul_(keep).add_(share @ means)
        self.running_var.mul_(keep).add_(share @ variances)
        self.num_batches_tracked.add_(len(order))


class ConvUnit(nn.Module):
    """Convolution, normalisation and activation of every frame.

    Args:
        conv: A 2D convolution, plain or transposed.
        calls: See `FrameNorm`.
        activation: LeakyReLU with slope 0.2, or tanh.
    """

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        calls: Calls = "once",
        activation: Literal["leaky_relu", "tanh"] = "leaky_relu",
    ) -> None:
        super().__init__()
        self.conv = initialised(conv)
        self.norm = FrameNorm(conv.out_channels, calls)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C', H', W')."""
        x = self.norm(by_frame(self.conv, x))
        return x.tanh() if self.activation == "tanh" else F.leaky_relu(x, 0.2)


def by_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """A 2D layer on every frame of (B, T, C, H, W)."""
    out: Tensor = layer(x.flatten(0, 1))
    return out.unflatten(0, x.shape[:2])


def initialised(layer: Layer) -> Layer:
    """The layer with the release's initial values: N(0, 0.02), biases zero; LSTMs keep torch's."""
    nn.init.normal_(layer.weight, 0.0, 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
