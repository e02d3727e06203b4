"""Which frames of which clip: frame policies, and a loader whose order can be resumed exactly.

Everything random about a training clip is a pure function of (seed, epoch, position in the epoch). Number of workers,
number of ranks and interruptions therefore change nothing.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

FrameSampling = Literal[
    "uniform", "uniform_floor", "random", "very_random", "pair", "window", "first", "sparse",
    "all_windows", "chunks", "interleaved",
]  # fmt: skip
ShortClips = Literal["repeat_last", "loop", "slow", "zero_first_half", "drop"]
Indices = NDArray[np.int64]
CONTIGUOUS = ("window", "first", "all_windows", "chunks", "interleaved")  # samplings that `stride` acts on
EXPANDING = ("all_windows", "chunks", "interleaved")  # samplings under which one clip of the set becomes several
_SPARSE_SPANS = (2, 4, 8, 16, 32)


def frame_indices(
    sampling: FrameSampling,
    total: int,
    frames: int,
    rng: np.random.Generator,
    stride: int = 1,
    short: ShortClips = "repeat_last",
    window: int = 0,
) -> Indices:
    """Chooses the frames of one clip.

    Args:
        sampling: `uniform`: evenly spaced from first to last frame. `uniform_floor`: frame int(i N / T) (VIDM).
            `random`: as `uniform`, inner frames moved by less than one step either way, then sorted. `very_random`:
            drawn with replacement, sorted, the first forced to frame 0. `uniform`, `random` and `very_random` are
            LFDM's rules for 40-frame clips. `pair`: drawn with replacement and sorted, as LFAE takes source and
            driving frame (source not later). `window`: contiguous (every `stride`-th frame) from a random start.
            `first`: contiguous from frame 0. `sparse`: first and last frame 2, 4, 8, 16 or 32 frames apart, at a
            random place, the others anywhere between them (StyleGAN-V). The rest make several clips of one, which
            `window` counts: `all_windows`: one from every start. `chunks`: one after the other without overlap, the
            rest is left out. `interleaved`: chunks of `stride` times T frames, each dealt out to `stride` clips of
            every `stride`-th frame (DIGAN on TaiChi-HD).
        total: Frames N that the clip has.
        frames: Frames T wanted.
        rng: Random numbers of this clip.
        stride: Step between frames of contiguous samplings.
        short: What fills up a clip with too few frames: the last frame again and again, the clip from its start, the
            clip slowed down, or black before it (only for at least half the frames; PVDM's long clips). `drop` leaves
            such clips out of the set (`needed_frames` says which); here it acts like `repeat_last`.
        window: Which of the clips that `clip_windows` counts.

    Returns:
        (T,) frame numbers in [0, N-1]; -1 stands for a black frame.

    Source: LFDM (Ni et al. 2023), DIGAN (Yu et al. 2022), PVDM (Yu et al. 2023), StyleGAN-V (Skorokhodov et al. 2022),
        VIDM (Mei and Patel 2023): released data loaders.
    """
    if total < 1 or frames < 1:
        raise ValueError(f"need at least one frame, got total={total}, frames={frames}")
    if sampling == "pair":
        return np.sort(rng.integers(0, total, frames))
    if sampling == "very_random":
        chosen = np.sort(rng.integers(0, total, frames))
        chosen[0] = 0
        return chosen
    if sampling == "sparse":
        return _sparse(total, frames, rng)
    if sampling in CONTIGUOUS:
        span = (frames - 1) * stride + 1
        start = 0
        if total < span and short == "zero_first_half":
            return _second_half(total, frames, stride, rng)
        if sampling == "window" and total > span:
            start = int(rng.integers(0, total - span + 1))
        elif sampling == "all_windows":
            start = window
        elif sampling == "chunks":
            start = window * frames * stride
        elif sampling == "interleaved":
            start = (window // stride) * frames * stride + window % stride
        return _fill(start + stride * np.arange(frames), total, short)
    if sampling == "uniform_floor" and total >= frames:
        return np.arange(frames) * total // frames
    if total < frames:
        return _fill(np.arange(frames), total, short)
    chosen = np.linspace(0, total - 1, frames).astype(np.int64)
    if sampling == "random":
        steps = np.diff(chosen)
        # Inner frame i moves within (-step before, +step after), both ends excluded.
        chosen[1:-1] += rng.integers(1 - steps[:-1], steps[1:])
        chosen = np.sort(chosen)
    return chosen


def clip_windows(sampling: FrameSampling, total: int, frames: int, stride: int = 1) -> int:
    """How many clips of T frames one clip of N frames makes; at least one, which may have to be filled up."""
    if sampling == "all_windows":
        return max(1, total - (frames - 1) * stride)
    if sampling == "chunks":
        return max(1, (total + stride - 1) // (frames * stride))
    if sampling == "interleaved":
        return max(1, total // (frames * stride) * stride)
    return 1


def needed_frames(sampling: FrameSampling, frames: int, stride: int = 1, short: ShortClips = "drop") -> int:
    """Frames that a clip must have for being used; 1 where whatever there is gets filled up."""
    if short == "zero_first_half":
        frames = (frames + 1) // 2
    elif short != "drop":
        return 1
    if sampling == "interleaved":
        return frames * stride
    if sampling == "sparse":
        return max(frames, _SPARSE_SPANS[0] + 1)
    return (frames - 1) * stride + 1 if sampling in CONTIGUOUS else frames


def _sparse(total: int, frames: int, rng: np.random.Generator) -> Indices:
    if total < frames:
        return _fill(np.arange(frames), total, "repeat_last")
    if frames == 1:
        return rng.integers(0, total, 1)
    span = int(rng.choice([s for s in _SPARSE_SPANS if frames - 1 <= s < total] or [frames - 1]))
    inner = rng.choice(np.arange(1, span), frames - 2, replace=False)
    return int(rng.integers(0, total - span)) + np.sort([0, *(int(i) for i in inner), span])


def _second_half(total: int, frames: int, stride: int, rng: np.random.Generator) -> Indices:
    """Black frames, then a window of half the length from a random start."""
    seen = frames - frames // 2
    start = int(rng.integers(0, max(1, total - (seen - 1) * stride)))
    later = np.minimum(start + stride * np.arange(seen), total - 1)
    return np.concatenate([np.full(frames - seen, -1, np.int64), later])


def _fill(indices: Indices, total: int, short: ShortClips) -> Indices:
    if short == "loop":
        return indices % total
    if short == "slow" and indices[-1] >= total:
        return np.arange(len(indices)) * total // len(indices)
    return np.minimum(indices, total - 1)


def clip_rng(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The random numbers of one clip of one epoch."""
    return np.random.default_rng((seed, epoch, position))


class ClipRequest(NamedTuple):
    """What the sampler asks the data set for: position in [0, clips * repeats) of an epoch."""

    epoch: int
    position: int


class ResumableSampler(Sampler[ClipRequest]):
    """Order of the clips in every epoch, as a function of (seed, epoch), sharded over ranks.

    Args:
        clips: Clips in the data set.
        repeats: Passes over the data set that make one epoch.
        shuffle: Whether epochs are permuted (across passes, as in LFDM).
        seed: Decides the permutations.
        rank: Which share to take.
        world_size: Number of shares. Uneven rests are left out when shuffling; otherwise the first clips fill them up,
            so that all ranks take the same number of steps.
    """

    def __init__(
        self, clips: int, repeats: int = 1, shuffle: bool = True, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.clips, self.repeats, self.shuffle, self.seed = clips, repeats, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0  # positions of this rank that are already done in the coming epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning announces every epoch here; the loader's own count wins where it is ahead."""
        self.epoch = max(self.epoch, epoch)

    def __len__(self) -> int:
        total = self.clips * self.repeats
        whole = total // self.world_size
        return whole if self.shuffle and whole else -(-total // self.world_size)

    def __iter__(self) -> Iterator[ClipRequest]:
        order = np.resize(self.order(), len(self) * self.world_size)
        for position in self.share(order)[self.skip :]:
            yield ClipRequest(self.epoch, int(position))

    def order(self) -> Indices:
        """All positions of the epoch, in the order of all ranks together."""
        total = self.clips * self.repeats
        return self.rng().permutation(total) if self.shuffle else np.arange(total)

    def share(self, order: Indices) -> Indices:
        """The positions of this rank: every so many, so that the global batch does not depend on the ranks."""
        return order[self.rank :: self.world_size]

    def rng(self) -> np.random.Generator:
        """The random numbers of the epoch's order: a position that no clip has keeps them apart from the clips' own."""
        return np.random.default_rng((self.seed, self.epoch, 1 << 40))


class ShardSampler(ResumableSampler):
    """An order that reads shards one after the other: for disks and networks that are slow at jumping about.

    In every epoch the shards are shuffled, and the clips of `mix` neighbours in that order are shuffled among each
    other. Each rank takes one contiguous part of the result, so that it reads few shards that others read, too (batches
    do depend on the number of ranks, other than with `ResumableSampler`). Every position comes up once in an epoch.

    Args:
        shards: (N,) the shard of every clip, in ascending order.
        repeats: Passes over the data set that make one epoch.
        seed: Decides the permutations.
        rank: Which part to take.
        world_size: Number of parts; an uneven rest is left out.
        mix: How many shards are shuffled together.
    """

    def __init__(
        self, shards: Indices, repeats: int = 1, seed: int = 0, rank: int = 0, world_size: int = 1, mix: int = 4
    ) -> None:
        super().__init__(len(shards), repeats, True, seed, rank, world_size)
        self.shards, self.mix = shards, mix

    def order(self) -> Indices:
        """See `ResumableSampler`."""
        rng, parts = self.rng(), []
        by_shard = [np.flatnonzero(self.shards == shard) for shard in np.unique(self.shards)]
        for repeat in range(self.repeats):
            turn = rng.permutation(len(by_shard))
            for first in range(0, len(turn), self.mix):
                together = np.concatenate([by_shard[shard] for shard in turn[first : first + self.mix]])
                parts.append(rng.permutation(together) + repeat * self.clips)
        return np.concatenate(parts)

    def share(self, order: Indices) -> Indices:
        """One contiguous part."""
        return order[self.rank * len(self) : (self.rank + 1) * len(self)]


class ResumableDataLoader(DataLoader[Any]):
    """A DataLoader that remembers how many batches it has handed out and goes on after them.

    Lightning stores `state_dict()` in its checkpoints. Only batches that left the loader count, not those that workers
    have prepared in advance. The state is the same on all ranks.

    Args:
        dataset: Answers `ClipRequest`s. Where it has a method `report(names)`, that is told about unreadable files.
        sampler: The order.
        batch_size: Clips per batch (per rank).
        num_workers: Processes; 0 reads in this one.
        drop_last: Whether an incomplete last batch is left out.
        pin_memory: Page-locked memory for faster copies to a GPU.
        prefetch_factor: Batches that every worker prepares in advance.
    """

    sampler: ResumableSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: ResumableSampler,
        batch_size: int,
        num_workers: int = 0,
        drop_last: bool = False,
        pin_memory: bool = False,
        prefetch_factor: int = 2,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            drop_last=drop_last and len(sampler) >= batch_size,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            prefetch_factor=prefetch_factor if num_workers > 0 else None,
            worker_init_fn=_init_worker,
        )
        self._done = 0  # batches handed out in the current epoch
        self._epoch = sampler.epoch  # the epoch that `_done` counts in
        self._resumed = False
        self._report: Callable[[list[str]], None] = getattr(dataset, "report", lambda names: None)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that nothing starts before the first batch is asked for: Lightning creates the iterator
        # before it has said which epoch it is in.
        # An epoch is over when it was iterated here, when all its batches were done before a resume, or when Lightning
        # has announced a later one (under `limit_train_batches`). The same epoch follows in all three cases.
        if self._done and (not self._resumed or self._done >= len(self) or self.sampler.epoch > self._epoch):
            self.sampler.epoch = max(self.sampler.epoch, self._epoch + 1)
            self._done = 0
        self._resumed, self._epoch = False, self.sampler.epoch
        assert self.batch_size is not None
        self.sampler.skip = self._done * self.batch_size
        batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            unreadable = batch.pop("_unreadable", None)
            if unreadable:
                self._report(unreadable)
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches of it that have been handed out."""
        return {"epoch": self._epoch, "batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration go on after the batches that `state` counts."""
        self.sampler.epoch = self._epoch = int(state["epoch"])
        self._done, self._resumed = int(state["batches"]), True


def collate(items: list[Any]) -> Any:
    """Stacks tensors and numbers, lists strings; an exception among the items comes out in place of the batch."""
    for item in items:
        if isinstance(item, Exception):
            return item
    batch: dict[str, Any] = {}
    for key in items[0]:
        values = [item[key] for item in items]
        if key == "_unreadable":
            batch[key] = [name for names in values for name in names]
        elif isinstance(values[0], torch.Tensor):
            # In a worker this stacks straight into shared memory; of packed clips it is the only copy that is made.
            batch[key] = default_collate(values)
        elif isinstance(values[0], int):
            batch[key] = torch.tensor(values, dtype=torch.int64)
        elif isinstance(values[0], float):
            batch[key] = torch.tensor(values, dtype=torch.float32)
        else:
            batch[key] = values
    return batch


def _init_worker(worker: int) -> None:
    # Several workers with several threads each would fight for the same cores.
    torch.set_num_threads(1)
    _outlive_signals()


def _outlive_signals() -> None:
    """Leaves it to the training process what SIGTERM and SIGUSR1 mean.

    Schedulers send them to every process of a job, and a training whose loader dies cannot save its step any more.
    Only the training process itself ends a worker by SIGTERM.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = os.getppid()

    def obey_the_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=obey_the_parent, daemon=True).start()
