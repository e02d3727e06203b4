"""Frame policies and the resumable order."""

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from vgen.data.sampling import (
    ClipRequest,
    ResumableDataLoader,
    ResumableSampler,
    clip_rng,
    clip_windows,
    frame_indices,
    needed_frames,
)


def draw(sampling, total, frames, seed=0, **options):
    return frame_indices(sampling, total, frames, clip_rng(seed, 0, 0), **options).tolist()


def test_uniform_is_a_truncated_linspace():
    assert draw("uniform", 100, 5) == [0, 24, 49, 74, 99]
    assert draw("uniform", 40, 40) == list(range(40))


def test_random_moves_inner_frames_by_less_than_a_step():
    even = np.array(draw("uniform", 60, 7))
    steps = np.diff(even)
    seen = set()
    for seed in range(200):
        chosen = np.array(draw("random", 60, 7, seed))
        assert chosen[0] == 0 and chosen[-1] == 59
        assert (np.diff(chosen) >= 0).all()
        # Sorting can only exchange neighbours, so each stays between the outer bounds of its neighbours' ranges.
        assert (chosen[1:-1] > even[1:-1] - steps[:-1] - 1).all() and (chosen[1:-1] < even[1:-1] + steps[1:] + 1).all()
        seen.update(chosen.tolist())
    assert len(seen) > 50
    assert draw("random", 7, 7) == list(range(7))


def test_very_random_draws_with_replacement_from_frame_zero():
    for seed in range(50):
        chosen = draw("very_random", 10, 16, seed)
        assert chosen[0] == 0 and chosen == sorted(chosen) and max(chosen) <= 9
    assert draw("very_random", 1, 4) == [0, 0, 0, 0]


def test_pairs_are_sorted_and_reach_everything():
    pairs = {tuple(draw("pair", 4, 2, seed)) for seed in range(300)}
    assert pairs == {(a, b) for a in range(4) for b in range(a, 4)}


def test_windows_are_contiguous():
    starts = set()
    for seed in range(100):
        chosen = draw("window", 12, 4, seed, stride=2)
        assert np.diff(chosen).tolist() == [2, 2, 2]
        starts.add(chosen[0])
    assert starts == set(range(6))
    assert draw("first", 12, 4, stride=3) == [0, 3, 6, 9]


@pytest.mark.parametrize("sampling", ["uniform", "random", "window", "first"])
def test_short_clips_repeat_the_last_frame_or_start_again(sampling):
    assert draw(sampling, 3, 5) == [0, 1, 2, 2, 2]
    assert draw(sampling, 3, 5, short="loop") == [0, 1, 2, 0, 1]


def test_floored_indices_are_vidms():
    assert draw("uniform_floor", 10, 4) == [0, 2, 5, 7]


def test_sparse_frames_are_stylegan_vs():
    spans = set()
    for seed in range(300):
        chosen = draw("sparse", 20, 3, seed)
        assert chosen == sorted(set(chosen)) and 0 <= chosen[0] and chosen[-1] < 20
        spans.add(chosen[-1] - chosen[0])
    assert spans == {2, 4, 8, 16}  # 32 does not fit
    assert draw("sparse", 40, 1)[0] < 40 and len(draw("sparse", 40, 2)) == 2
    assert draw("sparse", 2, 3) == [0, 1, 1]


@pytest.mark.parametrize("stride", [1, 2])
def test_all_windows_and_chunks(stride):
    span = 3 * stride + 1
    starts = [
        draw("all_windows", 13, 4, window=w, stride=stride)[0]
        for w in range(clip_windows("all_windows", 13, 4, stride))
    ]
    assert starts == list(range(13 - span + 1))
    count = clip_windows("chunks", 13, 4, stride)
    chunks = [draw("chunks", 13, 4, window=w, stride=stride) for w in range(count)]
    assert [c[0] for c in chunks] == [4 * stride * w for w in range(count)]
    assert max(chunks[-1]) < 13 <= chunks[-1][0] + 4 * stride + span - 1  # and no further one would fit
    assert clip_windows("window", 13, 4, stride) == 1


def test_interleaved_chunks_use_every_frame_once():
    windows = [draw("interleaved", 70, 4, window=w, stride=4) for w in range(clip_windows("interleaved", 70, 4, 4))]
    assert len(windows) == 16 and all(np.diff(w).tolist() == [4, 4, 4] for w in windows)
    assert sorted(i for w in windows for i in w) == list(range(64))


def test_what_becomes_of_short_clips():
    assert draw("first", 3, 6, short="slow") == [0, 0, 1, 1, 2, 2]
    assert draw("window", 8, 6, short="slow")[0] in (0, 1, 2)
    seen = {tuple(draw("window", 4, 6, seed, short="zero_first_half")) for seed in range(50)}
    assert seen == {(-1, -1, -1, 0, 1, 2), (-1, -1, -1, 1, 2, 3)}
    assert draw("all_windows", 3, 4, window=0) == [0, 1, 2, 2]
    needed = {"window": 7, "first": 7, "chunks": 7, "all_windows": 7, "interleaved": 8, "uniform": 4, "sparse": 4}
    assert {s: needed_frames(s, 4, 2) for s in needed} == needed
    assert needed_frames("window", 4, 2, "loop") == 1 and needed_frames("window", 32, 1, "zero_first_half") == 16


class Requests(Dataset):
    """Answers every request with itself."""

    def __init__(self, clips=10):
        self.clips = clips

    def __len__(self):
        return self.clips

    def __getitem__(self, request):
        return {"request": torch.tensor(request), "_unreadable": []}


def loader(clips=10, batch_size=2, workers=0, rank=0, world_size=1, repeats=1, shuffle=True):
    sampler = ResumableSampler(clips, repeats, shuffle, seed=3, rank=rank, world_size=world_size)
    return ResumableDataLoader(Requests(clips), sampler, batch_size, workers, drop_last=shuffle)


def requests(batches):
    return [tuple(r) for batch in batches for r in batch["request"].tolist()]


def test_an_epoch_visits_every_clip_as_often_as_it_repeats():
    order = requests(loader(repeats=3))
    assert sorted(p for _, p in order) == list(range(30))
    assert {e for e, _ in order} == {0}


def test_epochs_differ_and_can_be_had_again():
    one = loader()
    first, second = requests(one), requests(one)
    assert [e for e, _ in second] == [1] * 10
    assert [p for _, p in first] != [p for _, p in second]
    again = loader()
    again.sampler.set_epoch(1)
    assert requests(again) == second


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_in_the_middle_gives_the_remaining_batches(workers):
    whole = loader(workers=workers)
    expected = [requests(whole), requests(whole)]
    broken = loader(workers=workers)
    batches = iter(broken)
    done = [next(batches) for _ in range(2)]
    state = broken.state_dict()
    assert state == {"epoch": 0, "batches": 2}  # what workers hold ready does not count
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    assert len(resumed) == 5
    assert requests(done) + requests(resumed) == expected[0]
    assert requests(resumed) == expected[1]


def test_resuming_in_a_later_epoch_and_at_its_end():
    whole = loader()
    epochs = [requests(whole) for _ in range(3)]
    resumed = loader()
    resumed.load_state_dict({"epoch": 1, "batches": 4})
    resumed.sampler.set_epoch(1)  # as Lightning does
    assert requests(resumed) == epochs[1][8:]
    for announced in (0, 2):  # Lightning may or may not have counted the finished epoch
        at_end = loader()
        at_end.load_state_dict({"epoch": 1, "batches": 5})
        at_end.sampler.set_epoch(announced)
        assert requests(at_end) == epochs[2]


def test_limited_epochs_start_afresh_when_lightning_says_so():
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 3})
    iterator = iter(resumed)  # Lightning creates the iterator first ...
    resumed.sampler.set_epoch(1)  # ... and then says that epoch 0 was over
    reference = loader()
    reference.sampler.set_epoch(1)
    assert requests(iterator) == requests(reference)


def test_ranks_share_an_epoch():
    parts = [requests(loader(rank=rank, world_size=2, batch_size=1)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 5
    assert sorted(p for part in parts for _, p in part) == list(range(10))
    # The global batch does not depend on the number of ranks.
    single = requests(loader(batch_size=2))
    assert [{a, b} for a, b in zip(*parts, strict=True)] == [set(single[i : i + 2]) for i in range(0, 10, 2)]


def test_uneven_ranks_take_the_same_number_of_steps():
    training = [len(list(loader(clips=5, batch_size=1, rank=r, world_size=2))) for r in range(2)]
    assert training == [2, 2]
    parts = [requests(loader(clips=5, batch_size=1, rank=r, world_size=2, shuffle=False)) for r in range(2)]
    assert [len(p) for p in parts] == [3, 3]
    assert {p for part in parts for _, p in part} == set(range(5))


def test_fewer_clips_than_ranks_or_batch_still_train():
    assert len(list(loader(clips=3, batch_size=8))) == 1
    assert len(list(loader(clips=1, batch_size=1, rank=1, world_size=2))) == 1


def test_requests_are_plain_tuples():
    assert ClipRequest(1, 2) == (1, 2)
