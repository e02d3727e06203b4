"""vgen: video generative models on PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

from vgen import _torchvision

_torchvision.install()

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from vgen.loading import load as load


def __getattr__(name: str) -> Any:
    # `load` needs torch and lightning (seconds); `vgen --help` must not pay for them.
    if name == "load":
        from vgen.loading import load

        return load
    raise AttributeError(f"module 'vgen' has no attribute {name!r}")
