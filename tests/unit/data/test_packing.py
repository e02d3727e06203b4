"""Packed sets give the same batches, survive interruption, and notice damage."""

import json

import numpy as np
import pytest
import torch

from vgen.data.datamodules import MHAD, MUG, NATOPS, UCF101
from vgen.data.dataset import FileReader
from vgen.data.packing import PackedClips, is_packed, pack
from vgen.data.sampling import ShardSampler, collate
from vgen.data.transforms import to_tensor
from vgen.errors import UserError

SHARD = 200_000  # bytes: two or three of these clips


def pack_module(module, out, side=None, reader=None, **options):
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
        **{"filter": module.filter, "variant": module.variant, "shard_bytes": SHARD, **options},
    )


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
        stored = sum(len(content) for name, content in files(out).items() if name.endswith(".u8"))
        assert stored < 0.95 * sum(r.frames for r in packed.index.records) * 24 * 24 * 3
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


def test_an_interrupted_run_keeps_its_finished_shards(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    pack_module(module, tmp_path / "whole", side=24, shard_bytes=100_000)
    whole = files(tmp_path / "whole")
    total, shards = len(module.index.records), sum(name.endswith(".u8") for name in whole)
    assert shards > 3 and set(whole) == {"index.json", *(f"shard-{n:05d}.u8" for n in range(shards))}
    with pytest.raises(KeyboardInterrupt):
        pack_module(module, tmp_path / "part", 24, Stops(module.root, 7), shard_bytes=100_000)
    assert not is_packed(tmp_path / "part")
    kept = files(tmp_path / "part")
    finished = {name for name in kept if name.endswith(".u8")}
    assert finished and all(kept[name] == whole[name] for name in finished)  # no half a shard under its name
    assert not [name for name in kept if name.endswith(".tmp.u8")]
    # What a kill in the middle of a write, or a failing disk, would leave.
    victim = sorted(finished)[0]
    (tmp_path / "part" / victim).write_bytes(b"x" + kept[victim][1:])
    (tmp_path / "part" / ".shard-00003.u8.abc.tmp.u8").write_bytes(b"half a clip")
    rest = Stops(module.root, -1)
    pack_module(module, tmp_path / "part", 24, rest, shard_bytes=100_000)
    again = files(tmp_path / "part")
    again.pop(".shard-00003.u8.abc.tmp.u8")
    assert again == whole
    assert total - 7 <= rest.reads < total  # the damaged shard and the unfinished ones
    idle = Stops(module.root, 0)
    assert len(pack_module(module, tmp_path / "part", 24, idle).index.records) == total


def test_any_number_of_processes_makes_the_same_files(mhad_root, tmp_path):
    module, seen = MHAD(str(mhad_root), 24, 6), []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        told = []
        pack_module(
            module, out, 24, processes=processes, progress=lambda done, total, told=told: told.append((done, total))
        )
        assert told == [(n, len(module.index.records)) for n in range(1, len(module.index.records) + 1)]
        seen.append(files(out))
    assert seen[0] == seen[1] and len(seen[0]) > 3


def test_a_batch_is_one_copy_of_the_mapped_file(mhad_root, tmp_path):
    packed = pack_module(MHAD(str(mhad_root), 24, 6), tmp_path / "out", 24)
    record = packed.index.records[1]
    whole = packed.read(record, np.arange(record.frames))
    for indices in (np.arange(3, 9), np.arange(2, 14, 3), np.array([5])):
        clip = packed.read(record, indices)
        assert np.array_equal(clip, whole[indices]) and np.shares_memory(clip, whole)
        assert np.shares_memory(to_tensor(clip).numpy(), whole)  # nothing on the way copies it
    for indices in (np.array([4, 4, 5]), np.array([7, 3])):
        assert np.array_equal(packed.read(record, indices), whole[indices])
    batch = collate([{"video": to_tensor(packed.read(record, np.arange(4)))}] * 2)["video"]
    assert batch.is_contiguous() and not np.shares_memory(batch.numpy(), whole)
    batch.zero_()
    assert packed.verify() == []


def test_another_size_does_not_go_on_with_old_clips(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    with pytest.raises(KeyboardInterrupt):
        pack_module(module, tmp_path / "out", 24, Stops(module.root, 7))
    fresh = Stops(module.root, -1)
    pack_module(module, tmp_path / "out", 16, fresh)
    assert fresh.reads == len(module.index.records)
    with pytest.raises(UserError, match="other data or size"):
        pack_module(module, tmp_path / "out", 24)


def test_what_was_resized_in_another_way_is_refused(tiny_root, tmp_path):
    root = str(tiny_root("UCF101"))
    pack_module(UCF101(root, 24, 4), tmp_path / "out", 24)
    packed = str(tmp_path / "out")
    assert UCF101(root, 24, 4, packed=packed).dataset("train")[0]["video"].shape == (3, 4, 24, 24)
    with pytest.raises(UserError, match=r"packed with resize crop, filter bilinear; asked for are crop_first"):
        UCF101(root, 24, 4, packed=packed, preset="pvdm").train_dataloader()
    with pytest.raises(UserError, match="packed as variant split1, not split2"):
        _ = UCF101(root, 24, 4, packed=packed, variant="split2").clip_spec
    pack_module(UCF101(root, 24, 4), tmp_path / "native")
    plain, native = (
        UCF101(root, 24, 4, preset="pvdm", packed=where).train_dataloader()
        for where in (None, str(tmp_path / "native"))
    )
    same_batches(plain, native)


def requests(module, ranks):
    """(epoch, position) of one epoch, of every rank."""
    dataset = module.dataset("train")
    shards = np.repeat([module._pack.shard_of(r) for r in dataset.records], dataset.windows())
    return shards, [list(ShardSampler(shards, 1, 3, rank, ranks, mix=2)) for rank in range(ranks)]


def test_shards_are_read_one_after_the_other(mug_root, tmp_path):
    pack_module(MUG(str(mug_root), 24, 4), tmp_path / "out", 24)
    module = MUG(str(tmp_path / "out"), 24, 4, read_order="shards", batch_size=4)
    shards, (order,) = requests(module, 1)
    assert len(set(shards)) > 6 and (np.diff(shards) >= 0).all()
    assert sorted(p for _, p in order) == list(range(len(shards)))  # everything once
    read = [int(shards[p]) for _, p in order]
    # Two shards at a time: when a third begins, the first two are done with.
    pairs = [read[i] for i in range(len(read)) if read[i] not in read[:i]]
    for first in range(0, len(pairs), 2):
        together = [i for i, shard in enumerate(read) if shard in pairs[first : first + 2]]
        assert together == list(range(together[0], together[-1] + 1))
    _, parts = requests(module, 2)
    assert [len(part) for part in parts] == [len(shards) // 2] * 2
    assert len({p for part in parts for _, p in part}) == len(shards) // 2 * 2
    shared = set.intersection(*({int(shards[p]) for _, p in part} for part in parts))
    assert len(shared) <= 2  # ranks meet in one group of shards at most


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_by_shards_resumes_exactly(mug_root, tmp_path, workers):
    pack_module(MUG(str(mug_root), 24, 4), tmp_path / "out", 24)

    def loader():
        module = MUG(str(tmp_path / "out"), 24, 4, read_order="shards", batch_size=4, num_workers=workers)
        return module.train_dataloader()

    whole = loader()
    epochs = [list(whole) for _ in range(2)]
    assert [b["path"] for b in epochs[0]] != [b["path"] for b in epochs[1]]
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 5})
    same_batches(epochs[0][5:], list(resumed))
    same_batches(epochs[1], list(resumed))
    with pytest.raises(UserError, match="only a packed set has shards"):
        MUG(str(mug_root), 24, 4, read_order="shards").train_dataloader()


def test_damage_is_noticed(mhad_root, tmp_path):
    module = MHAD(str(mhad_root), 24, 6)
    packed = pack_module(module, tmp_path / "out", 24)
    assert packed.verify() == []
    data = np.fromfile(tmp_path / "out/shard-00000.u8", np.uint8)
    data[5] ^= 255
    data.tofile(tmp_path / "out/shard-00000.u8")
    assert PackedClips(tmp_path / "out").verify() == [module.index.records[0].name]
    data[:-10].tofile(tmp_path / "out/shard-00000.u8")
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
