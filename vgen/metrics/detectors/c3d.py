"""C3D of UCF-101 (Tran et al. 2015; Sports-1M, then fine-tuned), the classifier of the video inception score.

The network and preprocessing of TGANv2's release (Saito et al. 2020): pools in ceil mode, which other ports replace by
padding, with other scores.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.metrics.detectors.base import Detector, Identity

FRAMES, SIDE, BORDER = 16, 112, 8
_CONVOLUTIONS = {
    "conv1a": (None, 64),
    "conv2a": (64, 128),
    "conv3a": (128, 256),
    "conv3b": (256, 256),
    "conv4a": (256, 512),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}


class C3D(nn.Module):
    """The network, 78,409,573 parameters at 101 classes.

    Args:
        num_classes: Width of the logits.
        channels: Colour channels.
    """

    mean: Tensor

    def __init__(self, num_classes: int = 101, channels: int = 3) -> None:
        super().__init__()
        for name, (inner, outer) in _CONVOLUTIONS.items():
            self.add_module(name, nn.Conv3d(inner or channels, outer, 3, padding=1))
        self.pool1 = nn.MaxPool3d((1, 2, 2), ceil_mode=True)
        self.pool2, self.pool3, self.pool4, self.pool5 = (nn.MaxPool3d(2, ceil_mode=True) for _ in range(4))
        self.fc6 = nn.Linear(512 * 1 * 4 * 4, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.register_buffer("mean", torch.zeros(channels, FRAMES, SIDE, SIDE))

    def prepare(self, video: Tensor) -> Tensor:
        """(B, 3, 16, H, W) RGB in [-1, 1] -> (B, 3, 16, 112, 112) BGR in 0..256 minus the mean clip."""
        batch = len(video)
        frames = (video.flip(1) * 128).transpose(1, 2).flatten(0, 1)
        # Chainer's resize_images samples corner to corner.
        frames = F.interpolate(frames, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
        return frames.unflatten(0, (batch, -1)).transpose(1, 2) + (128 - self.mean)

    def hidden(self, prepared: Tensor) -> Tensor:
        """(B, 3, 16, 112, 112) -> (B, 4096) after fc7's ReLU."""
        x = prepared
        for name in _CONVOLUTIONS:
            x = F.relu(self.get_submodule(name)(x))
            stage = name[4]
            if name in ("conv1a", "conv2a") or name.endswith("b"):
                x = self.get_submodule(f"pool{stage}")(x)
        x = F.relu(self.fc6(x.flatten(1)))
        return F.relu(self.fc7(x))

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, 16, H, W) in [-1, 1] -> (B, num_classes) logits."""
        logits: Tensor = self.fc8(self.hidden(self.prepare(video)))
        return logits


def load_state(network: C3D, arrays: Mapping[str, Tensor], mean: Tensor) -> None:
    """Loads the release's arrays (`conv1a/W`, `conv1a/b`, ... `fc8/b`).

    Args:
        network: Takes them; may be on the meta device, without values of its own.
        arrays: By their Chainer names.
        mean: (3, 16, H, W) BGR mean clip in 0..255 with H, W >= 120, of which the middle of 128x128 is used.

    Raises:
        RuntimeError: Names or shapes do not fit.
    """
    renamed = {key.replace("/W", ".weight").replace("/b", ".bias"): value.float() for key, value in arrays.items()}
    end = BORDER + SIDE
    renamed["mean"] = mean.float()[:, :FRAMES, BORDER:end, BORDER:end]
    network.load_state_dict(renamed, assign=True)


def release_shapes(network: C3D) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays that `load_state` wants."""
    return {
        key.replace(".weight", "/W").replace(".bias", "/b"): tuple(value.shape)
        for key, value in network.named_parameters()
    }


def read_npz(path: Path) -> dict[str, Tensor]:
    """Arrays of an .npz file; nothing in it is unpickled.

    Raises:
        UserError: Not such a file, or it holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            return {key: torch.from_numpy(np.ascontiguousarray(content[key])) for key in content.files}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot be read as an .npz of arrays: {what}", where=str(path)) from error


def read_mean(path: Path) -> Tensor:
    """The mean clip (3, 16, H, W): the file's array `mean`, or its only one.

    Raises:
        UserError: No such array.
    """
    arrays = read_npz(path)
    found = arrays.get("mean", next(iter(arrays.values())) if len(arrays) == 1 else None)
    found = None if found is None else found.squeeze()
    least = 2 * BORDER + SIDE - BORDER
    if found is None or found.dim() != 4 or found.shape[:2] != (3, FRAMES) or min(found.shape[2:]) < least:
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items())
        raise UserError(f"no mean clip (3, {FRAMES}, >={least}, >={least}) in it, but {shapes}", where=str(path))
    return found


class C3DDetector(Detector):
    """C3D behind its preprocessing; features are the 101 logits.

    Args:
        network: With weights and mean clip.
        identity: Which weights.
        batch: Clips in each pass.
    """

    def __init__(self, network: C3D, identity: Identity, batch: int = 16) -> None:
        super().__init__(identity, batch, least_frames=FRAMES, most_frames=FRAMES)
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        found: Tensor = self.network(pixels / 127.5 - 1)
        return found
