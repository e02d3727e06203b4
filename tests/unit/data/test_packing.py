"""Packed sets give the same batches, survive interruption, and notice damage."""

import json

import numpy as np
import pytest
import torch

from vgen.data.datamodules import MHAD, MUG, NATOPS
from vgen.data.dataset import FileReader
from vgen.data.packing import PackedClips, is_packed, pack
from vgen.errors import UserError


def pack_module(module, out, side=None, reader=None):
    spec = module.clip_spec
    return pack(
        module.index,
        reader or FileReader(module.root),
        out,
        spec.class_names,
        spec.fps,
        side,
        module.resize,
        module.crop,
    )


def same_batches(a, b):
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]) if isinstance(value, torch.Tensor) else value == right[key], key


def test_native_packing_gives_identical_batches(mug_root, tmp_path):
    options = {"size": 24, "frames": 6, "sampling": "random", "batch_size": 16, "augmentation": "lfdm_clip"}
    plain = MUG(str(mug_root), **options)
    pack_module(plain, tmp_path / "packed")
    for packed in (
        MUG(str(mug_root), packed=str(tmp_path / "packed"), **options),
        MUG(str(tmp_path / "packed"), **options),
    ):
        assert packed.clip_spec == plain.clip_spec and packed.fingerprint == plain.fingerprint
        same_batches(plain.train_dataloader(), packed.train_dataloader())
        same_batches(plain.test_dataloader(), packed.test_dataloader())


def test_packing_with_crop_and_size_gives_identical_batches(mhad_root, natops_root, tmp_path):
    for cls, root in ((MHAD, mhad_root), (NATOPS, natops_root)):
        options = {"size": 24, "frames": 6, "sampling": "random", "batch_size": 4, "augmentation": "lfae_pair"}
        plain, out = cls(str(root), **options), tmp_path / cls.__name__
        packed = pack_module(plain, out, side=24)
        assert packed.cropped and not packed.lossless
        # Stored without padding: 17 of 24 columns (MHAD), 21 of 24 rows (NATOPS).
        assert (out / "frames.u8").stat().st_size < 0.95 * sum(r.frames for r in packed.index.records) * 24 * 24 * 3
        same_batches(plain.train_dataloader(), cls(str(root), packed=str(out), **options).train_dataloader())
        with pytest.raises(UserError, match="before resizing"):
            cls(str(root), size=24, frames=6, packed=str(out), augmentation="lfdm_clip").train_dataloader()
        later = {**options, "augmentation": "lfdm_clip", "augment_at": "resized"}
        same_batches(
            cls(str(root), **later).train_dataloader(), cls(str(root), packed=str(out), **later).train_dataloader()
        )


def test_workers_map_the_file_themselves(mug_root, tmp_path):
    pack_module(MUG(str(mug_root), 32, 6), tmp_path / "packed")
    loaders = [
        MUG(str(tmp_path / "packed"), 32, 6, "random", batch_size=16, num_workers=workers).train_dataloader()
        for workers in (0, 2)
    ]
    same_batches(*loaders)


class Stops:
    """A reader that is killed after some clips."""

    def __init__(self, root, after):
        self.inner, self.left, self.reads = FileReader(root), after, 0

    def read(self, record, indices):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left, self.reads = self.left - 1, self.reads + 1
        return self.inner.read(record, indices)


def test_an_interrupted_run_goes_on(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    whole = pack_module(module, tmp_path / "whole", side=24)
    total = len(module.index.records)
    with pytest.raises(KeyboardInterrupt):
        pack_module(module, tmp_path / "part", 24, Stops(module.root, 7))
    assert not is_packed(tmp_path / "part")
    with open(tmp_path / "part/frames.u8.part", "ab") as file:
        file.write(b"half a clip")
    with open(tmp_path / "part/progress.jsonl", "a") as file:
        file.write('{"name": "cut o')
    rest = Stops(module.root, -1)
    pack_module(module, tmp_path / "part", 24, rest)
    assert rest.reads == total - 7
    assert (tmp_path / "part/frames.u8").read_bytes() == (tmp_path / "whole/frames.u8").read_bytes()
    assert (tmp_path / "part/index.json").read_text() == (tmp_path / "whole/index.json").read_text()
    assert sorted(p.name for p in (tmp_path / "part").iterdir()) == ["frames.u8", "index.json"]
    again = Stops(module.root, 0)
    assert len(pack_module(module, tmp_path / "part", 24, again).index.records) == len(whole.index.records)


def test_another_size_does_not_go_on_with_old_clips(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    with pytest.raises(KeyboardInterrupt):
        pack_module(module, tmp_path / "out", 24, Stops(module.root, 3))
    fresh = Stops(module.root, -1)
    pack_module(module, tmp_path / "out", 16, fresh)
    assert fresh.reads == len(module.index.records)
    with pytest.raises(UserError, match="other data or size"):
        pack_module(module, tmp_path / "out", 24)


def test_damage_is_noticed(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    packed = pack_module(module, tmp_path / "out", 24)
    assert packed.verify() == []
    data = np.fromfile(tmp_path / "out/frames.u8", np.uint8)
    data[5] ^= 255
    data.tofile(tmp_path / "out/frames.u8")
    assert PackedClips(tmp_path / "out").verify() == [module.index.records[0].name]
    data[:-10].tofile(tmp_path / "out/frames.u8")
    with pytest.raises(UserError, match="bytes instead of"):
        PackedClips(tmp_path / "out")
    meta = json.loads((tmp_path / "out/index.json").read_text())
    (tmp_path / "out/index.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        PackedClips(tmp_path / "out")
    with pytest.raises(UserError, match="not a packed"):
        _ = MHAD(str(mhad_root), 24, 6, packed=str(tmp_path)).clip_spec


def test_unreadable_clips_are_left_out(own_mug, tmp_path):
    for picture in sorted((own_mug / "008/anger/take000").iterdir())[1:]:
        picture.write_bytes(b"broken")
    packed = pack_module(MUG(str(own_mug), 32, 6), tmp_path / "out")
    assert len(packed.index.records) == 97
    assert packed.index.bad[0][0] == "008/anger/take000"
