"""Clips that a model generates for an evaluation: made once, by whichever rank, and found again after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vgen.errors import UserError
from vgen.files import write_atomic, write_json
from vgen.metrics.image_to_video import clip_seed
from vgen.metrics.protocols.protocol import Quantise
from vgen.metrics.ranks import raise_together, rank_and_size
from vgen.metrics.reading import check_values, to_pixels

_FORMAT = 1


@dataclass(frozen=True)
class Sample:
    """A generated clip.

    Args:
        video: (C, T, H, W) in [-1, 1].
        facts: What it was asked to show: `label` (class number), `subject`, `text`, as far as the model takes them.
    """

    video: Tensor
    facts: Mapping[str, str]


class ClipMaker:
    """Makes clip number i of an evaluation: a function of the seed, i and the model.

    Conditions (first frames, classes, captions, maps) are those of real clips, in a seeded order without repetition as
    long as there are enough; a clip that is asked for again gets other noise.

    Args:
        model: A `VideoModule` that samples.
        frames: Frames of each clip.
        seed: Decides conditions and noise.
        options: Sampler settings that differ from the model's.
        data: A `VideoDataModule` whose clips give the conditions; None: for a model that takes none.
        split: Which set they come from, or several: `train+test`.
    """

    def __init__(
        self,
        model: Any,
        frames: int,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        data: Any = None,
        split: str = "test",
    ) -> None:
        self.model, self.frames, self.seed, self.options = model, frames, seed, dict(options or {})
        self.data, self.split = data, split
        self.places: list[tuple[str, int]] = []
        if data is not None:
            places = [(name, position) for name in split.split("+") for position in range(len(data.dataset(name)))]
            chance = torch.Generator().manual_seed(seed)
            self.places = [places[place] for place in torch.randperm(len(places), generator=chance).tolist()]

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the clips, beside the model and the options."""
        conditions = None
        if self.data is not None:
            clips = self.data.whole_clips(self.split)
            chosen = {"frames": self.data.eval_frames, "sampling": self.data.eval_sampling}
            known = {"data": clips.data, "split": self.split, "fingerprint": clips.fingerprint}
            conditions = {**known, **clips.settings, **chosen}
        return {"frames": self.frames, "seed": self.seed, "conditions": conditions}

    @torch.no_grad()
    def __call__(self, numbers: Sequence[int]) -> list[Sample]:
        """Makes the clips of these numbers, as one batch."""
        conditions: dict[str, Any] = {}
        facts: list[dict[str, str]] = [{} for _ in numbers]
        if self.data is not None:
            batch = self.data.clips_at([self.places[number % len(self.places)] for number in numbers])
            moved = self.model.transfer_batch_to_device(batch, self.model.device, 0)
            conditions = self.model.conditions(self.model.on_after_batch_transfer(moved, 0))
            taken: list[str] = [key for key in ("label", "text") if key in conditions and key in batch]
            taken += ["subject"] if {"subject", "image"} & conditions.keys() and "subject" in batch else []
            for row, fact in enumerate(facts):
                fact.update({key: str(_plain(batch[key][row])) for key in taken})
        seeds = [clip_seed(self.seed, number) for number in numbers]
        made = self.model.sample(conditions, len(numbers), frames=self.frames, seeds=seeds, options=self.options)
        return [Sample(video, fact) for video, fact in zip(made.float().cpu(), facts, strict=True)]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


class SampleStore:
    """A folder of generated clips that belong to one model and one set of options.

    Args:
        root: Where the folder is; its name is a hash of the settings, so that clips of other weights or options are
            never taken for these.
        settings: Everything that decides the clips.
        quantise: How floats become bytes; with `none` they stay floats.
    """

    def __init__(self, root: str | Path, settings: Mapping[str, Any], quantise: Quantise = "round") -> None:
        self.settings = {"format": _FORMAT, **settings, "quantise": quantise}
        text = json.dumps(self.settings, sort_keys=True)
        self.key, self.quantise = hashlib.sha256(text.encode()).hexdigest()[:16], quantise
        self.folder = Path(root) / f"samples-{self.key}"

    def path(self, number: int) -> Path:
        """File of a clip."""
        return self.folder / f"{number:06d}.safetensors"

    def has(self, numbers: Sequence[int]) -> bool:
        """Whether all of these clips are there."""
        return all(self.path(number).is_file() for number in numbers)

    def write(self, number: int, sample: Sample) -> None:
        """Stores a clip in one step.

        Raises:
            UserError: It is not finite, or not in [-1, 1].
        """
        check_values(sample.video, f"generated clip {number}")
        video = sample.video if self.quantise == "none" else to_pixels(sample.video, self.quantise)
        stored = {"video": video.contiguous()}
        write_atomic(self.path(number), lambda path: save_file(stored, path, {"facts": json.dumps(dict(sample.facts))}))

    def open(self, number: int) -> Any:
        """Opens the file of a clip, for a `with` block.

        Raises:
            UserError: It is damaged, or not there.
        """
        path = self.path(number)
        try:
            return safe_open(path, "pt")
        except Exception as error:  # safetensors raises its own and those of the disk
            hint = "delete it: the same command makes it again"
            raise UserError(f"the generated clip cannot be read: {error}", str(path), hint) from error

    def read(self, number: int) -> Tensor:
        """A clip (C, T, H, W), as it is stored.

        Raises:
            UserError: Its file is damaged, or not there.
        """
        with self.open(number) as file:
            video: Tensor = file.get_tensor("video")
        return video

    def describe(self) -> None:
        """Writes what the clips are, for people."""
        write_json(self.folder / "settings.json", self.settings)

    def delete(self) -> None:
        """Removes the clips."""
        shutil.rmtree(self.folder, ignore_errors=True)


def generate(
    store: SampleStore,
    n: int,
    batch: int,
    make: Callable[[Sequence[int]], list[Sample]],
    in_step: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes clips 0 to n - 1 as far as they are not there yet; returns when all ranks have theirs.

    Ranks take whole batches of the same list: a clip has the same neighbours in its batch on any number of ranks, so
    that kernels round alike.

    Args:
        store: Where they go.
        n: Number of clips.
        batch: Clips that are made at once.
        make: Makes the clips of some numbers.
        in_step: Every rank makes as many batches, and none is left out: for networks that are spread over ranks.
        progress: Told how many clips of how many are there, of this rank's share.

    Raises:
        UserError: On all ranks where one of them failed.
    """
    rank, size = rank_and_size()
    batches = [range(start, min(start + batch, n)) for start in range(0, n, batch)]
    mine = [numbers for numbers in batches[rank::size] if in_step or not store.has(numbers)]
    share = sum(len(numbers) for numbers in batches[rank::size])
    done = share - sum(len(numbers) for numbers in mine)
    extra = -(-len(batches) // size) - len(mine) if in_step else 0
    error: Exception | None = None
    try:
        if rank == 0:
            store.describe()
        if progress is not None and done:
            progress(done, share)
        for numbers in mine:
            samples = make(numbers)
            try:
                for number, sample in zip(numbers, samples, strict=True):
                    store.write(number, sample)
            except Exception as raised:
                if not in_step:
                    raise
                error = error or raised  # the others wait for this rank's share of their networks
            done += len(numbers)
            if progress is not None:
                progress(done, share)
        for _ in range(extra):
            make(batches[-1])
    except Exception as raised:  # raised again below, on all ranks: the others would wait for this one
        error = raised
    raise_together(error)


class StoredClips:
    """The first n clips of a store; see `vgen.metrics.sources.ClipSource`.

    Args:
        store: Where they are.
        n: Number of clips.
        settings: What else a record says about them, such as the model.

    Raises:
        UserError: A file is damaged.
    """

    data = split = ""

    def __init__(self, store: SampleStore, n: int, settings: Mapping[str, Any] | None = None) -> None:
        self.store = store
        self.settings = {**store.settings, **(settings or {})}
        self.ids = [f"{number:06d}" for number in range(n)]
        self.lengths: list[int] = []
        facts = []
        for number in range(n):
            with store.open(number) as file:
                self.lengths.append(file.get_slice("video").get_shape()[1])
                facts.append(json.loads(file.metadata()["facts"]))
        self.labels = [int(fact["label"]) for fact in facts] if all("label" in fact for fact in facts) else None
        self.subjects = [fact["subject"] for fact in facts] if all(fact.get("subject") for fact in facts) else None
        self.texts = [fact["text"] for fact in facts] if all(fact.get("text") for fact in facts) else None
        self.fingerprint = store.key

    def __len__(self) -> int:
        return len(self.ids)

    def clip(self, number: int, frames: Sequence[int]) -> Tensor:
        """See `ClipSource`."""
        return self.store.read(number)[:, list(frames)]
