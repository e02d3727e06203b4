"""Motion of the background between two frames (MRAA section 3.4)."""

from typing import Literal

import torch
from torch import Tensor, nn

from vgen.models.lfdm.networks.blocks import Encoder, fast_layout
from vgen.nn.precision import at_least_fp32


class BGMotionPredictor(nn.Module):
    """Predicts the homography that maps driving coordinates to source coordinates of the background.

    Args:
        block_expansion: Base width of the encoder.
        num_channels: Image channels.
        max_features: Upper limit of any width.
        num_blocks: Depth of the encoder.
        bg_type: zero (identity, no network), shift (2 numbers), affine (6) or perspective (8).
    """

    def __init__(
        self,
        block_expansion: int,
        num_channels: int,
        max_features: int,
        num_blocks: int,
        bg_type: Literal["zero", "shift", "affine", "perspective"] = "zero",
    ) -> None:
        super().__init__()
        self.bg_type = bg_type
        if bg_type == "zero":
            return
        identity = {"shift": [0.0, 0.0], "affine": [1.0, 0, 0, 0, 1, 0], "perspective": [1.0, 0, 0, 0, 1, 0, 0, 0]}
        start = torch.tensor(identity[bg_type])
        self.encoder = Encoder(block_expansion, num_channels * 2, num_blocks, max_features)
        self.fc = nn.Linear(min(max_features, block_expansion * 2**num_blocks), len(start))
        nn.init.zeros_(self.fc.weight)
        with torch.no_grad():
            self.fc.bias.copy_(start)

    def forward(self, source_image: Tensor, driving_image: Tensor) -> Tensor:
        """Two batches of images (B, C, H, W) in [0, 1] -> (B, 3, 3), fp32."""
        batch = len(source_image)
        motion = torch.eye(3, device=source_image.device, dtype=torch.float32).repeat(batch, 1, 1)
        if self.bg_type == "zero":
            return motion
        pair = fast_layout(torch.cat((source_image, driving_image), dim=1), self.training)
        features = self.encoder(pair)[-1].mean(dim=(2, 3))
        with torch.autocast(features.device.type, enabled=False):
            numbers = at_least_fp32(self.fc(features.to(self.fc.weight.dtype)))
        motion = motion.to(numbers.dtype)
        if self.bg_type == "shift":
            motion[:, :2, 2] = numbers
            return motion
        motion[:, :2] = numbers[:, :6].view(batch, 2, 3)
        if self.bg_type == "perspective":
            motion[:, 2, :2] = numbers[:, 6:]
        return motion
