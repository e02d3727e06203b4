"""The contract between data and model: what one clip looks like."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ClipSpec:
    """Shape, rate and labels of the clips that a DataModule delivers.

    A recipe writes size, frames and classes once, in its data block; the model receives them as a ClipSpec and the
    checkpoint stores them, so that sampling needs no data set.

    Args:
        frames: Frames T of one clip.
        height: Height H in pixels.
        width: Width W in pixels.
        channels: Colour channels C.
        fps: Frames per second at which the clip is to be shown.
        class_names: Text of each label index; empty where the data has no labels.
        condition_keys: Which batch keys can condition a model (`label`, `text`, `subject`).
    """

    frames: int
    height: int
    width: int
    channels: int = 3
    fps: float = 25.0
    class_names: tuple[str, ...] = ()
    condition_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Makes lists (from YAML or JSON) tuples, and refuses sizes below one."""
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "condition_keys", tuple(self.condition_keys))
        for name in ("frames", "height", "width", "channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"ClipSpec.{name} must be at least 1, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data (lists, numbers, strings) for a checkpoint or a JSON file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ClipSpec":
        """The inverse of `to_dict`; ignores keys of later versions."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})
