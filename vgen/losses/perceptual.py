"""The VGG19 pyramid loss of FOMM, MRAA and LFDM (Johnson et al. 2016, equation 2, on several scales)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.losses.backbone import read_backbone
from vgen.losses.pyramid import ImagePyramid
from vgen.nn import winograd
from vgen.nn.precision import at_least_fp32
from vgen.nn.recompute import recompute

VGG19_FILE = "vgg19-dcbb9e9d.pth"
_WHAT = "VGG19 weights for the perceptual loss"
# torchvision's `features` up to relu5_1: output channels of each 3x3 convolution, 0 for a max-pooling
_LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)
# convolutions (counted from 0) after whose ReLU features are taken: relu1_1, 2_1, 3_1, 4_1, 5_1
_TAPS = (0, 2, 4, 8, 12)
_LARGE = 64  # pixels


class FrozenVGG19(nn.Module):
    """VGG19 up to relu5_1 with ImageNet weights, 12,944,960 numbers.

    The weights are non-persistent buffers: they follow the module to its device, but belong to no optimiser and no
    checkpoint.

    Args:
        weights: File with torchvision's state dict; None looks into torch's hub cache.
        random_init: Fixed random weights instead of a file. For tests and tiny experiments: such a loss compares
            random features.
    """

    mean: Tensor
    std: Tensor
    weight0: Tensor

    def __init__(self, weights: str | None = None, random_init: bool = False) -> None:
        super().__init__()
        state = _random_state() if random_init else read_backbone(weights, VGG19_FILE, _WHAT, "an L1Pyramid")
        index = 0
        self.convolutions = 0
        self._transformed: dict[int, Tensor] = {}  # of `winograd`, as they are needed
        for width in _LAYOUT:
            if width:
                for name in ("weight", "bias"):
                    value = state[f"features.{index}.{name}"].float()
                    self.register_buffer(f"{name}{self.convolutions}", value, persistent=False)
                self.convolutions += 1
            index += 2 if width else 1  # a ReLU follows each convolution
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> features after relu1_1, relu2_1, relu3_1, relu4_1, relu5_1."""
        x = ((image - self.mean) / self.std).to(self.weight0.dtype)
        features, done = [], 0
        for width in _LAYOUT:
            if not width:
                x = F.max_pool2d(x, 2)
                continue
            x = F.relu(self._convolution(done, x), inplace=True)
            if done in _TAPS:
                features.append(x)
            done += 1
        return features

    def _convolution(self, number: int, x: Tensor) -> Tensor:
        weight, bias = getattr(self, f"weight{number}"), getattr(self, f"bias{number}")
        if not winograd.pays(x, weight):
            if x.device.type == "cpu":  # what is large runs faster with channels last, what is tiny does not
                large = x.shape[-2] * x.shape[-1] >= _LARGE
                x = x.contiguous(memory_format=torch.channels_last if large else torch.contiguous_format)
            return F.conv2d(x, weight, bias, padding=1)
        if number not in self._transformed:
            self._transformed[number] = winograd.transformed(weight)
        return winograd.WinogradConv2d.apply(x, self._transformed[number], bias)  # type: ignore[no-any-return]


def _random_state() -> dict[str, Tensor]:
    """He-normal weights from a generator of their own: the same in every run, as no checkpoint stores them."""
    generator = torch.Generator().manual_seed(19)
    state, index, inputs = {}, 0, 3
    for width in _LAYOUT:
        if width:
            spread = math.sqrt(2 / (inputs * 9))
            state[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3, generator=generator) * spread
            state[f"features.{index}.bias"] = torch.zeros(width)
            inputs = width
        index += 2 if width else 1
    return state


class VGGPyramid(Configurable, nn.Module):
    """Sum over scales and layers of weight x mean |VGG(prediction) - VGG(target)|.

    Official values: four scales, five layers, weight 10 each. An image side x smallest scale must be at least 16, so
    that four poolings leave a pixel: 128 pixels with scale 1/8.

    Args:
        scales: Side of each copy / side of the image.
        layer_weights: Weight of relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
        weights: File with torchvision's VGG19 state dict; None looks into torch's hub cache.
        random_init: Fixed random weights instead of a file.
        num_channels: Image channels; one channel is shown to VGG as grey.
        checkpointing: Compute the prediction's features again in the backward pass instead of keeping them: they are
            most of what a training step of an auto-encoder keeps.
    """

    def __init__(
        self,
        scales: tuple[float, ...] = (1, 0.5, 0.25, 0.125),
        layer_weights: tuple[float, ...] = (10, 10, 10, 10, 10),
        weights: str | None = None,
        random_init: bool = False,
        num_channels: int = 3,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        if num_channels not in (1, 3):
            raise UserError(f"VGG19 sees colour or grey images, not {num_channels} channels", where="VGGPyramid")
        self.layer_weights = tuple(layer_weights)
        self.pyramid = ImagePyramid(scales, num_channels)
        self.vgg = FrozenVGG19(weights, random_init)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Two (N, C, H, W) in [0, 1] -> scalar; no gradient flows to the target."""
        smallest = min(prediction.shape[-2:]) * min(self.pyramid.scales)
        if smallest < 16:
            raise UserError(
                f"images of {min(prediction.shape[-2:])} pixels are too small for a VGG pyramid with scale "
                f"{min(self.pyramid.scales)}: {smallest:g} pixels are left and VGG19 needs 16",
                where="VGGPyramid.scales",
                hint="drop the smallest scales, for example scales: [1, 0.5]",
            )
        with torch.no_grad():
            real = [self._features(level) for level in self.pyramid(target)]
        terms = [
            recompute(self._distance, *pair) if self.checkpointing else self._distance(*pair)
            for pair in zip(self.pyramid(prediction), real, strict=True)
        ]
        return torch.stack(terms).sum()

    def _distance(self, image: Tensor, wanted: list[Tensor]) -> Tensor:
        """Weighted distance of an image's features from these, summed over layers in fp32."""
        terms = [
            weight * F.l1_loss(at_least_fp32(ours), at_least_fp32(theirs))
            for weight, ours, theirs in zip(self.layer_weights, self._features(image), wanted, strict=True)
        ]
        return torch.stack(terms).sum()

    def _features(self, image: Tensor) -> list[Tensor]:
        return self.vgg(image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image)
