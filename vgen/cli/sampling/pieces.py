"""Pieces of videos on disk while they are generated, so that a call that was killed goes on where it stood."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vgen.errors import UserError
from vgen.files import write_atomic, write_json

_FORMAT = 1
_PREFIX = ".sampling-"
_SUFFIXES = (".mp4", ".json", ".gif")


class PieceStore:
    """A folder in the one that is written, under a key of everything that decides the clips.

    Args:
        out: Folder of the finished clips.
        settings: What decides the clips, as plain data.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.settings = out, {"format": _FORMAT, **settings}
        text = json.dumps(self.settings, sort_keys=True)
        self.folder = out / f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def claim(self, names: Sequence[str]) -> bool:
        """Takes the folder for these clips; True where a call like this one was interrupted.

        What other calls have left there is deleted: clips of two calls must not be taken for one set.
        """
        begun = (self.folder / "files.json").is_file()
        others = [path for path in self.out.glob(f"{_PREFIX}*") if path != self.folder]
        for place in (*others, *(() if begun else (self.out,))):
            record = place / ("grid.json" if place == self.out else "files.json")
            _remove(self.out, _listed(record))
        for place in others:
            shutil.rmtree(place, ignore_errors=True)
        if not begun:
            write_json(self.folder / "files.json", {"files": list(names), "settings": self.settings})
        return begun

    def write(self, name: str, number: int, piece: Tensor) -> None:
        """Stores a piece (C, t, H, W) uint8 of a clip."""
        stored = {"video": piece.contiguous()}
        write_atomic(self._piece(name, number), lambda path: save_file(stored, path))

    def read(self, name: str, number: int) -> Tensor:
        """A stored piece.

        Raises:
            UserError: It is damaged.
        """
        with _opened(self._piece(name, number)) as file:
            piece: Tensor = file.get_tensor("video")
        return piece

    def note(self, batch: str, pieces: int, frames: int, state: Mapping[str, Tensor]) -> None:
        """Notes how far a batch is, once the pieces of all its clips are stored.

        Args:
            batch: Name of the batch.
            pieces: Pieces so far.
            frames: Frames so far.
            state: What the model needs to go on.
        """
        tensors = {name: value.contiguous() for name, value in state.items()}
        facts = {"pieces": str(pieces), "frames": str(frames)}
        write_atomic(self.folder / f"{batch}.state", lambda path: save_file(tensors, path, facts))

    def noted(self, batch: str) -> tuple[int, int, dict[str, Tensor]]:
        """Pieces, frames and state of a batch as they were noted; zeros and an empty state where nothing was.

        Raises:
            UserError: The note is damaged.
        """
        path = self.folder / f"{batch}.state"
        if not path.is_file():
            return 0, 0, {}
        with _opened(path) as file:
            facts = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}
        return int(facts["pieces"]), int(facts["frames"]), state

    def delete(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _piece(self, name: str, number: int) -> Path:
        return self.folder / name / f"{number:06d}.safetensors"


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        hint = f"delete {path.parent}: the same command then begins anew"
        raise UserError(f"a stored piece cannot be read: {error}", str(path), hint) from error


def _listed(record: Path) -> list[str]:
    """Names of the clips that an earlier call has listed."""
    try:
        return [str(name) for name in json.loads(record.read_text(encoding="utf-8"))["files"]] + ["grid"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _remove(out: Path, names: Iterable[str]) -> None:
    for name in names:
        for suffix in _SUFFIXES:
            (out / f"{Path(name).name}{suffix}").unlink(missing_ok=True)
