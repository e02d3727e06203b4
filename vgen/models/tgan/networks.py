"""TGAN's networks: a generator of frame seeds, one of images, and a critic of clips."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.nn.dcgan import Down, Up, batch_norm, doubling, sixteenth
from vgen.video import ClipSpec

Init = Literal["lecun", "uniform"]
_EPS = 2e-5  # Chainer's default, of all norms here
_SEED_WIDTHS = (512, 256, 128, 128)


class FrameSeedGenerator(nn.Module):
    """Makes a code for each frame out of the clip's code by convolutions over time (section 3.1).

    Args:
        slow: Size of the clip's code z_0.
        fast: Size of a frame's code z_1.
        frames: Frames of a clip, a multiple of 16.
        shift: Whether norms add something; not in the published run.
    """

    def __init__(self, slow: int, fast: int, frames: int, shift: bool) -> None:
        super().__init__()
        inputs = (slow, *_SEED_WIDTHS)
        self.levels = nn.ModuleList(
            Up(inputs[i], width, 1, (frames // 16,) if i == 0 else None, eps=_EPS, shift=shift)
            for i, width in enumerate(_SEED_WIDTHS)
        )
        self.to_code = doubling(_SEED_WIDTHS[-1], fast, 1)

    def forward(self, slow: Tensor) -> Tensor:
        """(n, slow) -> codes of the frames (n, fast, T) in (-1, 1)."""
        x = slow[:, :, None]
        for level in self.levels:
            x = level(x)
        return torch.tanh(self.to_code(x))


class ImageGenerator(nn.Module):
    """Makes a frame out of the clip's code and its own.

    Args:
        slow: Size of z_0.
        fast: Size of z_1.
        base: A 16th of height and width.
        channels: Width of the first map; 512.
        num_channels: Colour channels.
    """

    def __init__(self, slow: int, fast: int, base: tuple[int, ...], channels: int, num_channels: int) -> None:
        super().__init__()
        self.base, half = base, channels // 2 * math.prod(base)
        self.from_slow = nn.Linear(slow, half, bias=False)
        self.from_fast = nn.Linear(fast, half, bias=False)
        self.norm_slow, self.norm_fast = batch_norm(1, half, _EPS), batch_norm(1, half, _EPS)
        widths = [channels // 2**i for i in range(5)]
        self.levels = nn.ModuleList(Up(widths[i], widths[i + 1], 2, bias=False, eps=_EPS) for i in range(4))
        self.to_pixel = nn.ConvTranspose2d(widths[-1], num_channels, 3, padding=1)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Frames (N, C, H, W) in (-1, 1) of codes (N, slow) and (N, fast)."""
        pair = (self.norm_slow(self.from_slow(slow)), self.norm_fast(self.from_fast(fast)))
        x = torch.cat([torch.relu(each).unflatten(1, (-1, *self.base)) for each in pair], dim=1)
        for level in self.levels:
            x = level(x)
        return torch.tanh(self.to_pixel(x))


class VideoGenerator(Configurable, nn.Module):
    """Frame seeds, then frames (section 3.1, table 1).

    `prepare` makes the layers, whose sizes follow from the clips. Official at 16 frames of 64x64: 825,444 and 3,622,691
    parameters.

    Args:
        slow: Size of the clip's code; 100.
        fast: Size of a frame's code; 100.
        channels: Width of the first map of a frame; 512.
        seed_shift: Whether norms of the frame seed generator add something; not in the published run.
        seed_init: `lecun`: normal, with the inverse root of the fan-in (published); `uniform`: U(-0.01, 0.01).
        image_init: The same for frames; published: `uniform`.
    """

    def __init__(
        self,
        slow: int = 100,
        fast: int = 100,
        channels: int = 512,
        seed_shift: bool = False,
        seed_init: Init = "lecun",
        image_init: Init = "uniform",
    ) -> None:
        super().__init__()
        self.slow, self.fast, self.channels, self.seed_shift = slow, fast, channels, seed_shift
        self.inits = (seed_init, image_init)

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames or sides are no multiples of 16.
        """
        sixteenth(clip_spec, time=True)
        self.seeds = FrameSeedGenerator(self.slow, self.fast, clip_spec.frames, self.seed_shift)
        self.images = ImageGenerator(
            self.slow, self.fast, sixteenth(clip_spec), self.channels, clip_spec.channels
        )  # fmt: skip
        for network, init in zip((self.seeds, self.images), self.inits, strict=True):
            initialise(network, init)

    def forward(self, slow: Tensor) -> Tensor:
        """Clips (n, C, T, H, W) in (-1, 1) of codes (n, slow) in [-1, 1]."""
        fast = self.seeds(slow).transpose(1, 2)
        repeated = slow[:, None].expand(-1, fast.shape[1], -1)
        frames = self.images(repeated.flatten(0, 1), fast.flatten(0, 1))
        return frames.unflatten(0, fast.shape[:2]).transpose(1, 2)  # type: ignore[no-any-return]


class Critic(Configurable, nn.Module):
    """Scores clips (table 1).

    `prepare` makes the layers. Official at 16 frames of 64x64: 11,032,449 parameters, of which the scales of the first
    norm, 64, are never used.

    Args:
        channels: Width of the first layer; 64. It doubles.
        shift: Whether norms add something; not in the published run.
        init: See `VideoGenerator`; published: `lecun`.
    """

    def __init__(self, channels: int = 64, shift: bool = False, init: Init = "lecun") -> None:
        super().__init__()
        self.channels, self.shift, self.init = channels, shift, init

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames or sides are no multiples of 16.
        """
        sixteenth(clip_spec, time=True)
        widths = [clip_spec.channels, *(self.channels * 2**i for i in range(4))]
        self.levels = nn.ModuleList(
            Down(widths[i], widths[i + 1], 3, norm=i > 0, eps=_EPS, shift=self.shift) for i in range(4)
        )
        self.unused_norm = batch_norm(3, self.channels, _EPS, self.shift)  # the release has one, and never calls it
        self.to_score = nn.Conv2d(widths[-1], 1, sixteenth(clip_spec))  # type: ignore[arg-type]
        initialise(self, self.init)

    def forward(self, video: Tensor) -> Tensor:
        """Scores (N,) of clips (N, C, T, H, W) in [-1, 1]; of more than 16 frames, the mean over pieces of 16."""
        x = video
        for level in self.levels:
            x = level(x)
        scores = self.to_score(x.transpose(1, 2).flatten(0, 1))
        return scores.view(len(video), -1).mean(dim=1)  # type: ignore[no-any-return]


def initialise(network: nn.Module, how: Init) -> None:
    """Initial weights as Chainer gives them; biases are 0.

    Args:
        network: The network.
        how: `lecun`: N(0, 1/fan-in), where the fan-in of a transposed convolution is that of its outputs. `uniform`:
            U(-0.01, 0.01).
    """
    for module in network.modules():
        if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            continue
        if how == "lecun":
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        else:
            nn.init.uniform_(module.weight, -0.01, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
