"""Inception-I3D of Kinetics-400 (Carreira and Zisserman 2017, figure 3), the network behind FVD.

Published FVDs use the weights of TF-Hub's `i3d-kinetics-400/1`, whose graph adds 1e-3 in every batch norm, as do
StyleGAN-V's TorchScript and pytorch-i3d. The ports of VideoGPT, TATS, PVDM and cd-fvd run the same weights with 1e-5,
about 1 % off in the logits: `epsilon` chooses.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.metrics.detectors.base import Detector, Identity

Spatial = Literal["stretch", "crop"]
SIDE = 224
# Time is halved three times (rounded up) and then pooled by two: nine frames leave the two that the last pool needs.
LEAST_FRAMES = 9
# name: input channels, (b0, b1a, b1b, b2a, b2b, b3b)
_MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME padding of (B, C, T, H, W) with zeros: its size depends on the input, the odd one goes last."""
    sides: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(k - (size % s or s), 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)


class Unit(nn.Module):
    """Convolution, batch norm and ReLU with SAME padding."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inner, outer, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outer, eps=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, T, H, W) -> (B, outer, T / stride, H / stride, W / stride), rounded up."""
        return F.relu(self.bn(self.conv3d(pad_same(x, self.kernel, self.stride))))


class Pool(nn.Module):
    """Max pooling with SAME padding; zeros stand for minus infinity, as the input is never negative."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maximum over windows."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """An inception module: four branches side by side."""

    def __init__(self, inner: int, outer: tuple[int, int, int, int, int, int], epsilon: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = outer
        self.b0 = Unit(inner, b0, epsilon=epsilon)
        self.b1a = Unit(inner, b1a, epsilon=epsilon)
        self.b1b = Unit(b1a, b1b, 3, epsilon=epsilon)
        self.b2a = Unit(inner, b2a, epsilon=epsilon)
        self.b2b = Unit(b2a, b2b, 3, epsilon=epsilon)
        self.b3a = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(inner, b3b, epsilon=epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, T, H, W) -> (B, b0 + b1b + b2b + b3b, T, H, W)."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


class Head(nn.Module):
    """The 1x1 convolution that gives the logits."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, T, H, W) -> (B, outer, T, H, W)."""
        out: Tensor = self.conv3d(x)
        return out


class InceptionI3d(nn.Module):
    """The network; its keys are those of `i3d_pretrained_400.pt`. 12,697,264 parameters at 400 classes.

    Args:
        num_classes: Width of the logits.
        in_channels: Colour channels.
        epsilon: Of the batch norms; 1e-3 is the reference graph.
    """

    def __init__(self, num_classes: int = 400, in_channels: int = 3, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.logits = Head(1024, num_classes)
        self.Conv3d_1a_7x7 = Unit(in_channels, 64, 7, 2, epsilon)
        self.MaxPool3d_2a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64, 1, 1, epsilon)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3, 1, epsilon)
        self.MaxPool3d_3a_3x3 = Pool((1, 3, 3), (1, 2, 2))
        for name, (inner, outer) in _MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = Pool((2, 2, 2), (2, 2, 2))
            self.add_module(name, Mixed(inner, outer, epsilon))

    def pooled(self, video: Tensor) -> Tensor:
        """(B, C, T, 224, 224) in [-1, 1], T >= 9 -> (B, 1024, T', 1, 1) after the average pool of 2x7x7."""
        x = video
        for name, layer in self.named_children():
            if name != "logits":
                x = layer(x)
        return F.avg_pool3d(x, (2, 7, 7), stride=1)

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, T, 224, 224) in [-1, 1], T >= 9 -> (B, num_classes) logits, averaged over time."""
        return self.logits(self.pooled(video)).mean((2, 3, 4))


def resize(pixels: Tensor, spatial: Spatial = "stretch", side: int = SIDE) -> Tensor:
    """Brings clips to a network's size, bilinearly without antialiasing, as every FVD code does.

    Args:
        pixels: (B, C, T, H, W) float in 0..255.
        spatial: `stretch`: both sides to 224 (google-research, StyleGAN-V, TATS, cd-fvd). `crop`: the shorter side to
            224, the other in proportion (rounded up), then the middle (VideoGPT, PVDM, DIGAN, MCVD). Square clips:
            the same.
        side: Side of the result.

    Returns:
        (B, C, T, side, side) in 0..255.
    """
    batch, _, frames, height, width = pixels.shape
    short = min(height, width)
    size = (side, side)
    if spatial == "crop":
        # In floating point, as the official code has it: some sizes come out one pixel longer than their fraction.
        tall, wide = (side if x == short else math.ceil(x * (side / short)) for x in (height, width))
        size = (tall, wide)
    x = pixels.transpose(1, 2).flatten(0, 1)
    if size != (height, width):
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return x[:, :, top : top + side, left : left + side].unflatten(0, (batch, frames)).transpose(1, 2)


def prepare(pixels: Tensor, spatial: Spatial = "stretch") -> Tensor:
    """Brings clips (B, C, T, H, W) of 0..255 to the network's input (B, C, T, 224, 224) in [-1, 1]; see `resize`."""
    return resize(pixels, spatial) / 127.5 - 1


def load_state(network: InceptionI3d, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict of the official layout; counters of batches may be there or not.

    Raises:
        RuntimeError: Keys or shapes do not fit.
    """
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **{key: value.float() for key, value in state.items() if key not in counters}})


class I3DDetector(Detector):
    """I3D behind its preprocessing.

    Args:
        network: With weights, whose file `identity` names.
        identity: Which weights; settings are added to it.
        spatial: See `prepare`.
        layer: `logits` (400, what FVD means) or `pool` (1024, averaged over time).
        batch: Clips in each pass.
    """

    def __init__(
        self,
        network: InceptionI3d,
        identity: Identity,
        spatial: Spatial = "stretch",
        layer: Literal["logits", "pool"] = "logits",
        batch: int = 16,
    ) -> None:
        epsilon = network.Conv3d_1a_7x7.bn.eps
        settings = {**identity.settings, "epsilon": epsilon, "spatial": spatial, "layer": layer}
        super().__init__(Identity(identity.name, identity.kind, identity.sha256, settings), batch, LEAST_FRAMES)
        self.network, self.spatial, self.layer = network, spatial, layer
        self.eval().requires_grad_(False)

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        video = prepare(pixels, self.spatial)
        if self.layer == "pool":
            return self.network.pooled(video).mean((2, 3, 4))
        found: Tensor = self.network(video)
        return found


class ScriptedI3D(Detector):
    """StyleGAN-V's TorchScript run as it is: `script(x, rescale, resize, return_features)`.

    Args:
        script: The loaded TorchScript.
        identity: Which file.
        batch: Clips in each pass.
    """

    def __init__(self, script: nn.Module, identity: Identity, batch: int = 16) -> None:
        settings = {**identity.settings, "epsilon": 1e-3, "spatial": "stretch", "layer": "logits", "run": "script"}
        super().__init__(Identity(identity.name, identity.kind, identity.sha256, settings), batch, LEAST_FRAMES)
        self.script = script.eval()
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        found: Tensor = self.script(pixels, rescale=True, resize=True, return_features=True)
        return found
