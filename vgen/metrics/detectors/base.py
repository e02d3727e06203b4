"""What every detector is: a frozen network that maps clips of pixels to features, and says which one it is."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vgen.errors import UserError

Kind = Literal["published", "small", "random"]


@dataclass(frozen=True)
class Identity:
    """Which network a number rests on.

    Args:
        name: Name of the network.
        kind: `published`: a released file. `small`: a network of one's own. `random`: no training at all. Only the
            first gives numbers the names that papers use.
        sha256: Hash of the file, or of the parameters where there is no single file.
        settings: What else changes its features (epsilon, resizing, layer).
    """

    name: str
    kind: Kind
    sha256: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return asdict(self)


#: What numbers rest on that need no network.
PIXELS = Identity("pixels", "published", "")


class Detector(nn.Module, ABC):
    """A frozen network behind its preprocessing.

    Clips always pass in batches of the same size (the last one filled up with copies of its last clip), because the
    kernels that a library picks depend on the batch size and round differently.

    Args:
        identity: Which network it is.
        batch: Clips in each pass.
        least_frames: Fewest frames T that the network can take.
        most_frames: Most frames; None: no bound.
    """

    def __init__(
        self, identity: Identity, batch: int = 16, least_frames: int = 1, most_frames: int | None = None
    ) -> None:
        super().__init__()
        self.training = False
        if batch < 1:
            raise UserError(f"a detector batch holds at least one clip, not {batch}", where=identity.name)
        self.identity, self.batch = identity, batch
        self.least_frames, self.most_frames = least_frames, most_frames

    @abstractmethod
    def features(self, pixels: Tensor) -> Tensor:
        """Maps clips (B, 3, T, H, W), float 0..255, to (B, D), or to (B, T, D) for a network of frames."""

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Maps clips to features, in fixed batches and full float32.

        Args:
            pixels: (N, C, T, H, W) with C 1 (grey) or 3, uint8 or float in 0..255.

        Returns:
            (N, D) or (N, T, D) float32.

        Raises:
            UserError: Clips too short or too long for the network.
        """
        self.check_frames(pixels.shape[2])
        if len(pixels) == 0:
            raise ValueError(f"{self.identity.name} was given no clips")
        found = []
        with full_precision(pixels.device):
            for part in pixels.split(self.batch):
                n = len(part)
                if n < self.batch:
                    part = torch.cat([part, part[-1:].expand(self.batch - n, *part.shape[1:])])
                colour = part if part.shape[1] == 3 else part.expand(-1, 3, -1, -1, -1)
                found.append(self.features(colour.float())[:n].float())
        return torch.cat(found)

    def train(self, mode: bool = True) -> "Detector":
        """Stays in evaluation mode, whatever the module around it does."""
        return super().train(False)

    def check_frames(self, frames: int) -> None:
        """Refuses clips that the network cannot take.

        Raises:
            UserError: Says how many frames it needs.
        """
        if frames < self.least_frames:
            raise UserError(
                f"clips of {frames} frames are too short: {self.identity.name} needs at least {self.least_frames}",
                where="n_frames of the protocol, or the clips' length",
            )
        if self.most_frames is not None and frames > self.most_frames:
            raise UserError(
                f"clips of {frames} frames are too long: {self.identity.name} takes at most {self.most_frames}",
                where="n_frames of the protocol, or the clips' length",
            )


class SmallDetector(Detector):
    """A network of one's own, such as the compact classifier. Its numbers are called `frechet_small`, never FVD.

    Args:
        network: Maps clips (B, C, T, H, W) in [-1, 1] to (B, D). Where it has a method `features`, that is used.
        name: Name of the network in the record.
        channels: Colour channels that the network takes.
        batch: Clips in each pass.
        settings: What else belongs to the record of every number: what it was trained on, how well it reads that.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str = "compact",
        channels: int = 3,
        batch: int = 16,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        facts = {"class": type(network).__name__, **(settings or {})}
        super().__init__(Identity(name, "small", state_hash(network), facts), batch)
        self.network, self.channels = network, channels
        self.eval().requires_grad_(False)

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        video = pixels[:, : self.channels] / 127.5 - 1
        read = getattr(self.network, "features", self.network)
        found: Tensor = read(video)
        return found


def state_hash(network: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{tensor_hash(value)}".encode())
    return digest.hexdigest()


def tensor_hash(value: Tensor) -> str:
    """SHA-256 over shape, kind and bytes of a tensor."""
    digest = hashlib.sha256(f"{tuple(value.shape)}{value.dtype}".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Turns TF32 and autocast off: published numbers were made in float32, and TF32 moves them."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
