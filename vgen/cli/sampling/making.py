"""A rank's share of the clips: generated piece by piece, stored, and written as video while they grow."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from vgen.cli.sampling.clips import Clip
from vgen.cli.sampling.pieces import PieceStore
from vgen.errors import UserError
from vgen.files import write_json
from vgen.metrics.ranks import rank_and_size
from vgen.video import Streams, to_uint8
from vgen.video.io import video_writer


class Maker:
    """Generates clips in batches; the result of a clip depends on its own conditions and seed alone.

    Videos that are longer than the clips of the training are streamed where the model can: memory does not grow with
    their length.

    Args:
        model: A model that samples.
        frames: Frames of each clip.
        options: Sampler settings that differ from the model's.
        by_text: Words are free texts instead of classes.
        store: Where pieces are kept until all clips are done.
    """

    def __init__(self, model: Any, frames: int, options: dict[str, Any], by_text: bool, store: PieceStore) -> None:
        self.model, self.frames, self.options, self.by_text, self.store = model, frames, options, by_text, store
        self.fps = float(model.clip_spec.fps)
        self.streams = frames > model.clip_spec.frames and isinstance(model, Streams)

    def run(self, clips: Sequence[Clip], batch: int, out: Path) -> None:
        """Makes this rank's batches and writes each clip as mp4 and JSON.

        Args:
            clips: The clips of all ranks.
            batch: Clips at once. Ranks take whole batches of the same list: a clip has the same neighbours on any
                number of ranks.
            out: Folder of the videos.

        Raises:
            UserError: An option has a value that the sampler does not take.
        """
        rank, size = rank_and_size()
        batches = [clips[first : first + batch] for first in range(0, len(clips), batch)][rank::size]
        share, done, start = sum(map(len, batches)), 0, time.monotonic()
        for part in batches:
            try:
                self._make(part, out)
            except ValueError as error:
                if self.options:  # samplers say by it which value of an option they do not take
                    raise UserError(str(error), "--option") from error
                raise
            done += len(part)
            if rank == 0:
                seconds = (time.monotonic() - start) / done
                print(f"[sample] {done}/{share} clips  {seconds:.2f} s each", flush=True)

    def _make(self, clips: Sequence[Clip], out: Path) -> None:
        paths = [out / f"{clip.name}.mp4" for clip in clips]
        name = clips[0].name
        pieces, frames, state = self.store.noted(name)
        if frames >= self.frames and all(path.is_file() for path in paths):
            return
        with ExitStack() as stack:
            appends = [stack.enter_context(video_writer(path, self.fps)) for path in paths]
            for number in range(pieces):  # the encoder begins anew: it sees what it had seen
                for clip, append in zip(clips, appends, strict=True):
                    append(self.store.read(clip.name, number))
            for made in self._pieces(clips, state) if frames < self.frames else ():
                for clip, piece, append in zip(clips, made, appends, strict=True):
                    self.store.write(clip.name, pieces, piece)
                    append(piece)
                pieces, frames = pieces + 1, frames + made.shape[2]
                self.store.note(name, pieces, frames, state)
                if self.streams and rank_and_size()[0] == 0:
                    print(f"[sample] {name}: {frames}/{self.frames} frames", flush=True)
        for clip, path in zip(clips, paths, strict=True):
            write_json(path.with_suffix(".json"), clip.facts(self.fps))

    def _pieces(self, clips: Sequence[Clip], state: dict[str, Tensor]) -> Iterator[Tensor]:
        """Pieces (n, C, t, H, W) uint8 behind those that the state knows of."""
        given: dict[str, Any] = {}
        if clips[0].picture is not None:
            key = "video" if clips[0].picture.pixels.ndim == 4 else "image"
            given[key] = [clip.picture.pixels for clip in clips if clip.picture is not None]
        if clips[0].word is not None:
            given["text" if self.by_text else "label"] = [clip.word for clip in clips]
        seeds, n = [clip.seed for clip in clips], len(clips)
        if self.streams:
            conditions = self.model.batch_conditions(n, **given)
            made: Iterator[Tensor] = self.model.stream(conditions, n, self.frames, seeds, self.options, state)
        else:
            made = iter([self.model.sample(n=n, frames=self.frames, seeds=seeds, options=self.options, **given)])
        for piece in made:
            yield to_uint8(piece).cpu()
