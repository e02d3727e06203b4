"""The first stage of a latent model, seen from the second: what it encodes to, and that it stays as it is."""

import hashlib
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vgen.errors import UserError
from vgen.video import ClipSpec
from vgen.weights import Handoff

Latent = dict[str, Tensor]
"""A small named set of tensors: `z`; or `flow`, `occlusion`, `reference`; or `xy`, `yt`, `xt`; or `codes`."""


@runtime_checkable
class LatentCodec(Protocol):
    """What a second stage asks of the first."""

    def encode(self, video: Tensor, reference: Tensor | None = None) -> Latent:
        """Encodes (B, C, T, H, W) in [-1, 1], relative to a reference frame (B, C, H, W) where the codec has one."""

    def decode(self, latent: Latent) -> Tensor:
        """Decodes to (B, C, T, H, W) in [-1, 1]."""

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of the latent of one clip, without the batch dimension."""


class Frozen(nn.Module):
    """Holds a network that the stage uses but does not train: it stays in eval mode and takes no gradient.

    Args:
        network: The network.
        stored: Whether the state dict of the module that holds it has its weights. False: it has no entry there, and
            the stage's checkpoint names the network's file instead of repeating it.
    """

    def __init__(self, network: nn.Module, stored: bool = False) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.stored = stored
        self._prefix = ""
        self.register_load_state_dict_post_hook(self._forget_missing)

    def train(self, mode: bool = True) -> "Frozen":
        """Stays in eval mode."""
        return super().train(False)

    def fingerprint(self) -> str | None:
        """Hash of the weights where they are stored; None where the description names a file, which has its own."""
        if not self.stored:
            return None
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Adds the network's weights only where they are to be stored."""
        if self.stored:
            return super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        return {} if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._prefix = prefix

    @staticmethod
    def _forget_missing(module: nn.Module, incompatible: Any) -> None:
        if not module.stored:
            prefix = module._prefix
            incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.startswith(prefix)]


class Companion:
    """A trained network that only sampling needs, opened when it is first asked for (a super-resolution stage, say).

    It is no submodule: training neither loads nor moves it, and checkpoints name its file alone.

    Args:
        source: The handoff.
    """

    def __init__(self, source: Handoff) -> None:
        self.source = source
        self._network: nn.Module | None = None

    def open(self, device: torch.device | str = "cpu") -> nn.Module:
        """The network, frozen, on the device; read from its file the first time.

        Raises:
            UserError: When the file is missing or has changed since the model was trained.
        """
        from vgen.weights.checkpoint import open_handoff

        if self._network is None:
            self._network = open_handoff(self.source).eval().requires_grad_(False)
        return self._network.to(device)


def open_codec(source: Handoff | nn.Module | None, where: str) -> Frozen:
    """Opens the frozen first stage.

    Args:
        source: A handoff, or a module that has the `LatentCodec` protocol (built in Python): no file could be named
            for it, so that the checkpoints of the stage hold its weights as well.
        where: Name of the argument, for the error message.

    Raises:
        UserError: When nothing is given, or what the file holds is no codec.
    """
    from vgen.weights.checkpoint import open_handoff

    if source is None:
        raise UserError(
            "this stage needs a trained first stage", where, "for instance {path: stage://autoencoder/last}"
        )
    network = open_handoff(source) if isinstance(source, Handoff) else source
    if not isinstance(network, LatentCodec):
        raise UserError(f"{type(network).__name__} is no codec: it lacks encode/decode/latent_spec", where)
    return Frozen(network, stored=not isinstance(source, Handoff))
