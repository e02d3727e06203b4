"""The clips of a set in their whole lengths: what an evaluation chooses its windows from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vgen.data.clips import ClipRecord
from vgen.data.dataset import ClipTransform, Reader
from vgen.data.sampling import Indices
from vgen.data.transforms import Pixels, to_tensor


@dataclass(frozen=True)
class WholeClips:
    """Whole clips, read as a model sees them, without augmentation; `vgen.metrics.sources.RecordClips` takes them.

    Args:
        records: The clips.
        reader: Where frames come from.
        transform: What is done to them.
        channels: 3, or 1 for brightness alone.
        fingerprint: Of the whole data set.
        data: Name of the data set.
        split: Which set of it, or several: `train+test`.
        fps: Rate at which clips are to be shown.
    """

    records: Sequence[ClipRecord]
    reader: Reader
    transform: ClipTransform
    channels: int
    fingerprint: str
    data: str
    split: str
    fps: float

    @property
    def settings(self) -> dict[str, Any]:
        """What is done to stored frames: a number about the clips depends on it."""
        done = self.transform
        return {
            "resize": f"{done.resize}, {done.filter}",
            "size": list(done.size),
            "crop": None if done.crop is None else asdict(done.crop),
            "jpeg": done.jpeg,
            "channels": self.channels,
            "fps": self.fps,
        }

    def read(self, record: ClipRecord, frames: Indices) -> Pixels:
        """Frames (T, height, width, channels) of a clip.

        Args:
            record: One of `records`.
            frames: Numbers of the frames within the clip.
        """
        stored = self.reader.read(record, frames)
        return to_tensor(self.transform(stored, (0, 0, 0)), self.channels).permute(1, 2, 3, 0).numpy()


def set_name(data: object) -> str:
    """What the command line and the protocols call a data set; of one that vgen does not ship, its class's name."""
    from vgen.data.datamodules import DATA_SETS

    return next((name for name, cls in DATA_SETS.items() if cls is type(data)), type(data).__name__)
