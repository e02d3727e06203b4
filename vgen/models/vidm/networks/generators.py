"""VIDM's two generators: the content generator makes the first frame, the motion generator every other one."""

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.models.vidm.networks.unet import Encoder2d, Layout, UNet2d
from vgen.nn.flow import SpyNet


class ContentGenerator(Configurable, nn.Module):
    """Denoises a single frame with a learned constant beside it (sampling space truncation; section 3.1).

    Not released by the authors: its U-Net is taken to be that of the motion generator at frame 0.

    Args:
        layout: The U-Net.
        channels: Image channels.
        size: Height and width of the frames, which the constant has as well.
        truncation: Concatenate the constant; without it this is a plain image denoiser.
        learned_variance: As many output channels again, for the variance.
    """

    def __init__(
        self,
        layout: Layout = Layout(),  # noqa: B008  (frozen)
        channels: int = 3,
        size: tuple[int, int] = (128, 128),
        truncation: bool = True,
        learned_variance: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.constant = nn.Parameter(torch.randn(1, channels, *size)) if truncation else None
        self.unet = UNet2d(channels * (1 + truncation), channels * (1 + learned_variance), layout)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Noisy frames (B, C, H, W) at steps t (B,) or (1,) -> eps and, where learned, the variance's channels."""
        if self.constant is not None:
            x = torch.cat((x, self.constant.expand(len(x), -1, -1, -1).to(x.dtype)), dim=1)
        return self.unet(x, t, torch.zeros_like(t))


class MotionGenerator(Configurable, nn.Module):
    """Denoises frame n, given the first frame and the one before (section 3.2; class ComplexUModel of the release).

    The implicit motion condition z is the flow from the first to the previous frame, concatenated to the noisy frame.
    The adaptive feature residual r is the first frame's feature maps, to which a fifth of the denoiser's are added.

    Args:
        layout: The U-Net; the encoder of the first frame has its down path.
        channels: Image channels.
        flow: Network of the motion condition; None leaves the condition out. The release trains it along.
        learned_variance: As many output channels again, for the variance.
        rescale_flow_input: Bring frames to [0, 1], on which flow networks are trained. The release feeds [-1, 1].
        feature_scale: Factor of the denoiser's own features.
    """

    def __init__(
        self,
        layout: Layout = Layout(),  # noqa: B008  (frozen)
        channels: int = 3,
        flow: SpyNet | None = None,
        learned_variance: bool = True,
        rescale_flow_input: bool = False,
        feature_scale: float = 0.2,
    ) -> None:
        super().__init__()
        self.channels, self.rescale_flow_input, self.feature_scale = channels, rescale_flow_input, feature_scale
        self.video_timesteps = layout.video_timesteps
        self.encoder = Encoder2d(channels, layout)
        self.unet = UNet2d(channels + 2 * (flow is not None), channels * (1 + learned_variance), layout)
        self.flow = flow

    def motion(self, first: Tensor, previous: Tensor) -> Tensor | None:
        """The motion condition (B, 2, H, W) in pixels, the same for all diffusion steps of a frame.

        Args:
            first: First frame (B, C, H, W) in [-1, 1].
            previous: The frame before the one to generate.
        """
        if self.flow is None:
            return None
        if self.rescale_flow_input:
            first, previous = (first + 1) / 2, (previous + 1) / 2
        return self.flow(first, previous)

    def forward(self, x: Tensor, t: Tensor, n: Tensor, first: Tensor, motion: Tensor | None) -> Tensor:
        """Denoises frames.

        Args:
            x: Noisy frames (B, C, H, W).
            t: Diffusion steps, (B,), or (1,) for the whole batch, which costs less.
            n: Frame numbers, (B,) or (1,).
            first: First frames (B, C, H, W) in [-1, 1].
            motion: What `motion` returned.

        Returns:
            (B, C or 2C, H, W): eps and, where learned, the variance's channels.
        """
        features = self.encoder(first, t, n)
        if motion is not None:
            x = torch.cat((x, motion.to(x.dtype)), dim=1)
        return self.unet(x, t, n, residuals=features, scale=self.feature_scale)
