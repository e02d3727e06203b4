"""A detector of a few hundred parameters and moving clips, for tests of everything around networks."""

import torch
from torch import Tensor, nn

from vgen.metrics.detectors import Detector, Identity, SmallDetector
from vgen.metrics.detectors.compact import TrainingSettings, kept_classifier


class TinyNet(nn.Module):
    """Some features of a clip: (B, 3, T, H, W) in [-1, 1] -> (B, width)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        chance = torch.Generator().manual_seed(0)
        self.conv = nn.Conv3d(3, width, (2, 3, 3), stride=(1, 2, 2))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=chance) * 0.3

    def forward(self, video: Tensor) -> Tensor:
        return self.conv(video).relu().mean((2, 3, 4))


def tiny_detector(batch: int = 4) -> SmallDetector:
    return SmallDetector(TinyNet(), "tiny", batch=batch)


class Counting(Detector):
    """Counts what passes it, and pretends to be whatever it is told."""

    def __init__(self, kind: str = "published", batch: int = 4, least_frames: int = 1) -> None:
        super().__init__(Identity("counting", kind, "0" * 64), batch, least_frames)
        self.network = TinyNet().requires_grad_(False)
        self.batches: list[int] = []
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        self.batches.append(len(pixels))
        return self.network(pixels / 127.5 - 1)


def write_classifier(folder, side: int = 32, frames: int = 5) -> str:
    """A compact classifier that has learned nothing, as a file for `--detector`."""
    clips = moving_clips(4, frames, side)
    settings = TrainingSettings(steps=1, batch=2, width=8)
    return str(kept_classifier(clips, torch.arange(4) % 2, ("a", "b"), folder, settings))


def moving_clips(n: int, frames: int = 6, side: int = 12, seed: int = 0, noise: float = 0.1) -> Tensor:
    """(n, 3, frames, side, side) uint8: coloured noise that drifts."""
    chance = torch.Generator().manual_seed(seed)
    picture = torch.rand(n, 3, 1, side, side, generator=chance)
    drift = torch.stack([picture[:, :, 0].roll(t, -1) for t in range(frames)], 2)
    grain = noise * torch.rand(n, 3, frames, side, side, generator=chance)
    return ((drift + grain) / (1 + noise) * 255).to(torch.uint8)
