"""MoCoGAN's networks: a recurrent path of motion codes, an image generator, and discriminators of frames and clips."""

from typing import Literal

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.nn.dcgan import Down, Up, doubling, noisy, sixteenth
from vgen.video import ClipSpec

_WIDTHS = (8, 4, 2, 1)


def count_categories(asked: int | None, clip_spec: ClipSpec, where: str) -> int:
    """Categories: as asked, or as many as the data has classes.

    Raises:
        UserError: It has none.
    """
    if asked is None and not clip_spec.class_names:
        raise UserError("the data has no classes to take for categories", where, "write their number, or 0")
    return len(clip_spec.class_names) if asked is None else asked


class VideoGenerator(Configurable, nn.Module):
    """Makes a clip out of one content code and a path of motion codes (section 3.1).

    Frame t is a picture of [content, category, h_t], where h_t is the state of a GRU that has fresh noise for its
    input. `prepare` makes the layers, whose sizes follow from the clips. Official at 64x64: 3,298,836 parameters with
    six categories, 3,249,684 without.

    Args:
        content: Size of the content code; 50.
        motion: Size of a motion code; 10.
        categories: Categories of motion, a one-hot part of the code; None: as many as the data has classes; 0: none.
        channels: Width in front of the last layer; those before are 8, 4 and 2 times as wide.
    """

    def __init__(self, content: int = 50, motion: int = 10, categories: int | None = 0, channels: int = 64) -> None:
        super().__init__()
        self.content, self.motion, self.categories, self.channels = content, motion, categories or 0, channels
        self._asked = categories
        self.recurrent = nn.GRU(motion, motion, batch_first=True)

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Sides are no multiples of 16, or the data has no classes.
        """
        self.categories = count_categories(self._asked, clip_spec, "generator.categories")
        widths = [factor * self.channels for factor in _WIDTHS]
        inputs = [self.content + self.categories + self.motion, *widths]
        base = sixteenth(clip_spec)
        self.levels = nn.ModuleList(
            Up(inputs[i], width, 2, base if i == 0 else None, bias=False) for i, width in enumerate(widths)
        )
        self.to_pixel = doubling(widths[-1], clip_spec.channels, 2, bias=False)

    def motions(self, start: Tensor, noise: Tensor) -> Tensor:
        """The path of motion codes.

        Args:
            start: State before the first frame, (n, motion); not itself a code.
            noise: (n, T, motion).

        Returns:
            (n, T, motion).
        """
        return self.recurrent(noise, start[None].contiguous())[0]  # type: ignore[no-any-return]

    def codes(self, content: Tensor, start: Tensor, noise: Tensor, category: Tensor | None = None) -> Tensor:
        """Codes of all frames, (n, T, content + categories + motion).

        Args:
            content: (n, content).
            start: See `motions`.
            noise: See `motions`.
            category: (n,) int64, where there are categories.
        """
        parts = [content]
        if category is not None:
            parts.append(nn.functional.one_hot(category, self.categories).to(content.dtype))
        frames = noise.shape[1]
        fixed = torch.cat(parts, dim=1)[:, None].expand(-1, frames, -1)
        return torch.cat((fixed, self.motions(start, noise).to(fixed.dtype)), dim=2)

    def pictures(self, codes: Tensor) -> Tensor:
        """Frames (N, C, H, W) in [-1, 1] of codes (N, D)."""
        x = codes[:, :, None, None]
        for level in self.levels:
            x = level(x)
        return torch.tanh(self.to_pixel(x))

    def forward(self, content: Tensor, start: Tensor, noise: Tensor, category: Tensor | None = None) -> Tensor:
        """Clips (n, C, T, H, W) in [-1, 1]; see `codes`."""
        codes = self.codes(content, start, noise, category)
        return self.pictures(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]).transpose(1, 2)


class Discriminator(Configurable, nn.Module):
    """Judges frames (dims 2) or clips (dims 3), and names the category of what it sees.

    Convolutions of clips do not reduce time but by their kernels, so that 16 frames become 13, 10, 7 and 4. `prepare`
    makes the layers. Official at 64x64, 16 frames: frames 2,765,568, in patches 663,296; clips 11,056,896, with six
    categories 11,253,504, in patches 2,650,880 parameters.

    Args:
        dims: 2 or 3.
        patches: One layer less, and one score for each place; else one for all.
        channels: Width of the first layer; it doubles.
        categories: Categories that it names besides; None: as many as the data has classes; 0: none.
        noise: Standard deviation of what is added to the input of each layer but a last one (of frames in patches: of
            that too), always. 0.1 was used for the paper's.
    """

    def __init__(
        self,
        dims: Literal[2, 3],
        patches: bool = False,
        channels: int = 64,
        categories: int | None = 0,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims, self.patches, self.channels, self.noise = dims, patches, channels, noise
        self.categories, self._asked = categories or 0, categories

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes the layers for such clips; called once, before weights are loaded.

        Raises:
            UserError: Sides are no multiples of 16, the clips too short, or the data has no classes.
        """
        self.categories = count_categories(self._asked, clip_spec, "discriminator.categories")
        count = 3 if self.patches else 4
        step: tuple[int, ...] = (2, 2) if self.dims == 2 else (1, 2, 2)
        padding: tuple[int, ...] = (1, 1) if self.dims == 2 else (0, 1, 1)
        widths = [clip_spec.channels, *(self.channels * 2**i for i in range(count))]
        self.levels = nn.ModuleList(
            Down(
                widths[i], widths[i + 1], self.dims, step, padding, norm=i > 0, bias=False, noise=self.noise
            )
            for i in range(count)
        )  # fmt: skip
        conv: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv2d if self.dims == 2 else nn.Conv3d
        outputs, sides = 1 + self.categories, sixteenth(clip_spec)
        left = clip_spec.frames - 3 * 4  # frames behind four convolutions, whether the fourth is the last or not
        if self.dims == 3 and left < 1:
            raise UserError(f"a clip of {clip_spec.frames} frames is too short", "data.init_args.frames", "use 13")
        if self.patches:
            self.to_score = conv(widths[-1], outputs, 4, stride=step, padding=padding, bias=False)  # type: ignore[arg-type]
        else:
            kernel = sides if self.dims == 2 else (left, *sides)
            self.to_score = conv(widths[-1], outputs, kernel, bias=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Judges frames (N, C, H, W) or clips (N, C, T, H, W) in [-1, 1].

        Returns:
            Scores (N, ...), one for each patch, and logits of the categories (N, categories, ...).
        """
        for level in self.levels:
            x = level(x)
        if self.patches and self.dims == 2:
            x = noisy(x, self.noise)
        x = self.to_score(x)
        if not self.patches:
            x = x.flatten(1)
        return x[:, 0], x[:, 1:]
