"""Two processes give the digits that one gives."""

import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.tiny_detector import moving_clips, tiny_detector
from vgen.errors import UserError
from vgen.metrics import FVD, KVD, ConditionalFVD, Protocol, VideoFeatureBank
from vgen.metrics.evaluation import compare
from vgen.metrics.pairs import compare_pairs
from vgen.metrics.sources import TensorClips

PROTOCOL = Protocol("tiny", 4, n_real=9, n_fake=9, stride=2, metrics=("fvd", "kvd", "cfvd", "vb_temporal_flickering"))


def distances():
    return {"fvd": FVD(), "kvd": KVD(), "cfvd": ConditionalFVD()}


def sources():
    labels, subjects = [i % 2 for i in range(20)], [f"s{i % 5}" for i in range(20)]
    real = TensorClips(moving_clips(20, frames=12), labels, subjects)
    return real, TensorClips(moving_clips(9, seed=1, noise=0.7), labels[:9], subjects[:9])


def evaluated(cache, workers=0):
    return compare(*sources(), PROTOCOL, detectors={"i3d": tiny_detector()}, batch=2, workers=workers, cache=cache)


def paired():
    real, _ = sources()
    made = TensorClips((real.videos * 0.9).to(torch.uint8))
    return compare_pairs(real, made, ("psnr/frame", "ssim/uniform_range1"), batch=3)


class Torn:
    """A source that cannot read its last video."""

    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def clip(self, number, frames):
        if number == len(self) - 1:
            raise UserError("cannot be read", where="the last video")
        return self.source.clip(number, frames)


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    bank = VideoFeatureBank(tiny_detector(), distances())
    real, fake = moving_clips(11), moving_clips(11, seed=1, noise=0.8)
    for side, clips in (("real", real), ("fake", fake)):
        # as DistributedSampler shares eleven clips out: the first comes twice
        mine = torch.tensor([*range(11), 0][rank::2])
        for part in mine.split(3):
            bank.update(clips[part], side == "real", part, part % 2, [f"s{i}" for i in part.tolist()])
    lonely = FVD()  # one rank has nothing at all
    if rank == 1:
        lonely.update(tiny_detector()(real), True)
        lonely.update(tiny_detector()(fake), False)
    numbered = FVD()  # without numbers every clip is given once
    detector = tiny_detector()
    for side, clips in ((True, real), (False, fake)):
        numbered.update(detector(clips[rank::2]), side)
    found = {"bank": bank.compute(), "lonely": lonely.compute(), "numbered": numbered.compute()}
    found["again"] = bank.compute()["fvd"]
    found["record"] = [
        json.dumps(evaluated(f"{folder}/cache").to_dict()) for _ in range(2)
    ]  # read, then from the cache
    found["pairs"] = json.dumps(paired().to_dict())
    with pytest.raises(UserError) as raised:
        compare(sources()[0], Torn(sources()[1]), PROTOCOL, ["fvd"], {"i3d": tiny_detector()}, batch=2)
    found["error"] = raised.value.what
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_same_digits(tmp_path: Path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    bank = VideoFeatureBank(tiny_detector(), distances())
    bank.update(moving_clips(11), True, label=torch.arange(11) % 2)
    bank.update(moving_clips(11, seed=1, noise=0.8), False, label=torch.arange(11) % 2)
    expected, record, pairs = bank.compute(), json.dumps(evaluated(None, 3).to_dict()), json.dumps(paired().to_dict())
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2  # real clips, and those of the floor
    errors = set()
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        for name, value in expected.items():
            assert torch.equal(found["bank"][name], value), name
        for name in ("lonely", "numbered", "again"):
            assert torch.equal(found[name], expected["fvd"]), name
        assert found["record"] == [record, record] and found["pairs"] == pairs
        errors.add(found["error"])
    assert "cannot be read" in errors and any("failed: UserError: cannot be read" in error for error in errors)
