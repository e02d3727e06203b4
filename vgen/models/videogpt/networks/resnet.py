"""The 3D ResNet-34 that reads the frames a prior is given (Yan et al. 2021, appendix; released code)."""

from torch import Tensor, nn

_BLOCKS = (3, 4, 6, 3)
_STRIDES = (1, 2, 2, 1)  # of height and width; time keeps its length


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every pixel.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        out: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return out


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Two convolutions with a shortcut, which the first block of a group projects, whether or not widths differ.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of height and width.
        project: Whether the shortcut is projected.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), ChannelNorm(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3, 1), ChannelNorm(outputs)
        shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), ChannelNorm(outputs)) if project else None
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H / stride, W / stride)."""
        inner = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu())).relu()
        return (inner + (x if self.shortcut is None else self.shortcut(x))).relu()  # type: ignore[no-any-return]


class FrameResNet(nn.Module):
    """Frames to features at a quarter of their sides. Official: 33,890,144 parameters.

    Args:
        channels: Colour channels.
        widths: Channels of the four groups; the last are the features'.
    """

    def __init__(self, channels: int = 3, widths: tuple[int, int, int, int] = (64, 128, 256, 240)) -> None:
        super().__init__()
        self.stem, self.stem_norm = _conv(channels, widths[0], 3, 1), ChannelNorm(widths[0])
        groups = []
        before = widths[0]
        for width, blocks, stride in zip(widths, _BLOCKS, _STRIDES, strict=True):
            rest = [Block(width, width, 1, False) for _ in range(blocks - 1)]
            groups.append(nn.Sequential(Block(before, width, stride, True), *rest))
            before = width
        self.groups = nn.Sequential(*groups)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, n, H, W) in [-0.5, 0.5] -> (B, n, H/4, W/4, C')."""
        out: Tensor = self.groups(self.stem_norm(self.stem(frames)).relu())
        return out.movedim(1, -1)
