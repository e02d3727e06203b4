"""Lets torchvision be imported beside a CPU-only torch.

The published torchvision wheels are CUDA builds. Their compiled operators do not load beside a CPU-only torch, and
`import torchvision` (which `import lightning` does through torchmetrics) then fails with "operator torchvision::nms
does not exist", because its Python side registers shape rules for two operators that were never declared.
Declaring those two schemas is enough for everything that vgen uses of it (lpips, VGG, RAFT, image models).

The check costs nothing until torchvision is really imported: a finder that stands first in `sys.meta_path` runs it
once, just before, and takes itself away. Where the operators are there, nothing is declared.
"""

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: Any = None  # torch.library.Library: the declarations live as long as this object


def operators_declared() -> bool:
    """True where this module had to declare torchvision's operators (shown by `vgen doctor`)."""
    return _library is not None


def _compiled_operators_load() -> bool:
    import torch

    spec = importlib.util.find_spec("torchvision")
    folder = os.path.dirname(spec.origin) if spec and spec.origin else ""
    binary = next((name for name in sorted(os.listdir(folder)) if name.startswith("_C")), None) if folder else None
    if binary is None:
        return False
    try:
        torch.ops.load_library(os.path.join(folder, binary))
    except OSError:
        return False
    return True


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        global _library
        if fullname == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            if importlib.util.find_spec("torchvision") is not None and not _compiled_operators_load():
                import torch

                _library = torch.library.Library("torchvision", "DEF")
                for schema in _SCHEMAS:
                    _library.define(schema)
        return None


def install() -> None:
    """Puts the check in front of the first import of torchvision; does nothing where that has happened already."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _BeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())
