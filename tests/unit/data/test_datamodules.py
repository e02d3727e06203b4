"""Layouts, splits and batches of the DataModules."""

import csv
import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vgen.data.clips import CACHE_NAME
from vgen.data.datamodules import MHAD, MUG, NATOPS, Folder
from vgen.data.datamodules.natops import read_segmentation
from vgen.data.splits import MHAD_CLASSES, MUG_TEST, MUG_TRAIN, NATOPS_CLASSES
from vgen.errors import UserError
from vgen.video.io import encode


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items()
    )


def test_published_lists():
    assert len(MUG_TRAIN) == len(MUG_TEST) == 26 and not set(MUG_TRAIN) & set(MUG_TEST)
    assert (len(MHAD_CLASSES), len(NATOPS_CLASSES)) == (27, 24)


def test_mug_batches(mug_root):
    module = MUG(str(mug_root), size=32, frames=8, sampling="very_random", batch_size=5, augmentation="lfdm_clip")
    spec = module.clip_spec
    assert (spec.frames, spec.height, spec.width, spec.fps) == (8, 32, 32, 19.0)
    assert spec.class_names[3] == "happiness" and spec.condition_keys == ("label", "text", "subject")
    batch = next(iter(module.train_dataloader()))
    assert batch["video"].shape == (5, 3, 8, 32, 32) and batch["video"].dtype == torch.uint8
    assert batch["frame_index"].shape == (5, 8) and (batch["frame_index"][:, 0] == 0).all()
    assert batch["text"] == [spec.class_names[i] for i in batch["label"]]
    assert all(p.split("/")[0] == s for p, s in zip(batch["path"], batch["subject"], strict=True))
    assert set(batch["subject"]) <= set(MUG_TRAIN)
    assert set(batch) == {"video", "frame_index", "fps", "path", "subject", "label", "text"}
    assert {r.subject for r in module.index.of("test")} <= set(MUG_TEST)


def test_pairs_for_the_autoencoder(mug_root):
    module = MUG(
        str(mug_root), 32, 2, sampling="pair", batch_size=4, repeats=3, augmentation="lfae_pair", eval_frames=8
    )
    assert len(module.train_dataloader()) == 3 * 56 // 4
    assert next(iter(module.train_dataloader()))["video"].shape == (4, 3, 2, 32, 32)
    assert next(iter(module.val_dataloader()))["video"].shape == (4, 3, 8, 32, 32)


def test_sessions(mug_root):
    """049 was recorded twice: both sessions by default, the first one twice as in the release."""
    right = [r.path for r in MUG(str(mug_root), 32, 8).index.records if r.subject == "049"]
    official = [r.path for r in MUG(str(mug_root), 32, 8, official_sessions=True).index.records if r.subject == "049"]
    assert len(right) == len(set(right)) == 14
    assert len(official) == 14 and len(set(official)) == 7
    assert all("session0" in p for p in official) and any("session1" in p for p in right)


def test_clips_do_not_depend_on_workers(mug_root):
    batches = []
    for workers in (0, 2):
        module = MUG(str(mug_root), 32, 6, "random", batch_size=16, num_workers=workers, augmentation="lfdm_clip")
        loader = module.train_dataloader()
        batches.append([*loader, next(iter(loader))])  # one epoch, and the start of the next
    assert len(batches[0]) == 4
    assert all(same(a, b) for a, b in zip(*batches, strict=True))
    assert not same(batches[0][0], batches[0][-1])


def test_resumed_batches_are_the_same(mug_root):
    whole = list(MUG(str(mug_root), 32, 6, "random", batch_size=16, augmentation="lfdm_clip").train_dataloader())
    loader = MUG(str(mug_root), 32, 6, "random", batch_size=16, augmentation="lfdm_clip").train_dataloader()
    loader.load_state_dict({"epoch": 0, "batches": 2})
    assert all(same(a, b) for a, b in zip(whole[2:], loader, strict=True))


def test_the_seed_changes_training_but_not_evaluation(mug_root):
    modules = [MUG(str(mug_root), 32, 6, "random", seed=seed, augmentation="lfdm_clip") for seed in (0, 1)]
    train = [next(iter(m.train_dataloader())) for m in modules]
    assert not torch.equal(train[0]["video"], train[1]["video"])
    loaders = [m.val_dataloader() for m in modules]
    first = [next(iter(loader)) for loader in loaders]
    assert same(first[0], first[1]) and same(first[0], next(iter(loaders[0])))


def test_val_clips_are_spread_over_the_test_set(mug_root):
    module = MUG(str(mug_root), 32, 6, val_clips=6)
    assert len(module.dataset("val")) == 6
    assert len({r.subject for r in module.dataset("val").records}) == 3


def test_mhad(mhad_root):
    module = MHAD(str(mhad_root), size=32, frames=8)
    assert {r.subject for r in module.index.of("train")} == {"1", "2"}
    assert {r.subject for r in module.index.of("test")} == {"4", "6"}
    item = module.dataset("train")[0]
    assert item["text"] == "right arm swipe to the left" and item["fps"] == 15.0
    assert not item["video"][..., :4].any() and not item["video"][..., -5:].any()  # 22 of 32 columns, 5 + 5 padding
    assert {r.label for r in module.index.records} == {0, 8, 26}


def test_natops(natops_root):
    module = NATOPS(str(natops_root), size=32, frames=8)
    assert len(module.index.records) == 2 * 3 * 2
    second = next(r for r in module.index.records if r.start)
    assert 40 <= second.frames <= 48
    table = read_segmentation(natops_root / "segmentation.txt")
    assert second.start + 1 == table[(second.subject, second.label + 1)][1][0]
    assert {r.subject for r in module.index.of("train")} == {"3"}
    paths = [r.name for r in module.index.records]
    assert len(set(paths)) == len(paths)


def test_folder_split_keeps_groups_together(folder_root):
    module = Folder(str(folder_root), 32, 8, group_key=r"(p\d+)_", test_fraction=0.4)
    train, test = ({r.subject for r in module.index.of(s)} for s in ("train", "test"))
    assert len(train) == 3 and len(test) == 2 and not train & test
    again = Folder(str(folder_root), 32, 8, group_key=r"(p\d+)_", test_fraction=0.4)
    assert again.index.records == module.index.records
    single = Folder(str(folder_root), 32, 8)
    assert {r.label for r in single.index.of("test")} == set(range(5))  # every class is in both sets
    assert module.clip_spec.fps == 12.0


def test_folder_with_split_folders_and_frame_folders(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("b", "a"):
            clip = tmp_path / split / name / "clip#1.mp4"
            clip.mkdir(parents=True)
            for t in range(4):
                Image.new("RGB", (20, 10), (t * 20, 0, 0)).save(clip / f"{t}.png")
    module = Folder(str(tmp_path), 8, 4)
    assert module.clip_spec.class_names == ("a", "b")
    assert {s: len(module.index.of(s)) for s in ("train", "val", "test")} == {"train": 2, "val": 2, "test": 2}
    assert next(iter(module.val_dataloader()))["video"].shape == (2, 3, 4, 8, 8)


def test_folder_without_classes(folder_root, tmp_path):
    for i, path in enumerate(sorted((folder_root / "jog").iterdir())):
        shutil.copy(path, tmp_path / f"{i}.mp4")
    module = Folder(str(tmp_path), 16, 4)
    assert module.clip_spec.class_names == () and module.clip_spec.condition_keys == ()
    assert "label" not in next(iter(module.train_dataloader()))


def test_table_mistakes_are_named(folder_root, tmp_path):
    clip = next((folder_root / "jog").iterdir())
    shutil.copy(clip, tmp_path / "a.mp4")
    table = tmp_path / "metadata.csv"
    for rows, message in (
        ([("path", "class"), ("a.mp4", "x")], "no column 'label'"),
        ([("path", "label", "split"), ("a.mp4", "x", "trian")], "unknown set 'trian'"),
        ([("path", "label"), ("", "x")], "empty path"),
    ):
        with open(table, "w", newline="") as file:
            csv.writer(file).writerows(rows)
        with pytest.raises(UserError, match=message) as caught:
            _ = Folder(str(tmp_path), 16, 4).clip_spec
        assert "metadata.csv" in str(caught.value)
    with pytest.raises(UserError, match="regular expression"):
        Folder(str(tmp_path), 16, 4, group_key="(")


@pytest.mark.parametrize("module", [MUG, MHAD, NATOPS, Folder])
def test_nothing_there_says_what_was_looked_for(module, tmp_path):
    with pytest.raises(UserError) as caught:
        _ = module(str(tmp_path / "nowhere"), 32, 8).clip_spec
    assert "nowhere" in str(caught.value) and module.expected[:10] in str(caught.value)
    with pytest.raises(UserError) as caught:
        module(str(tmp_path), 32, 8).train_dataloader()
    assert str(tmp_path) in str(caught.value) and module.expected[:10] in str(caught.value)


def test_damaged_files_are_left_out_of_the_index(own_mug, caplog):
    (own_mug / "008/anger/take000/img_0000.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        module = MUG(str(own_mug), 32, 8)
        assert len(module.index.of("train")) == 55
    assert "008/anger/take000" in caplog.text and module.index.bad[0][0] == "008/anger/take000"


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_found_in_training_is_replaced_and_named_once(own_mug, caplog, workers):
    for picture in sorted((own_mug / "008/anger/take000").iterdir())[1:]:
        picture.write_bytes(b"broken")  # the first one is whole, so the index cannot notice
    results = []
    for _ in range(2):
        module = MUG(str(own_mug), 32, 8, "uniform", batch_size=8, num_workers=workers)
        loader = module.train_dataloader()
        with caplog.at_level(logging.WARNING):
            results.append([batch for _ in range(2) for batch in loader])
        assert module.replaced == 2
    assert caplog.text.count("008/anger/take000") == 2  # once for each module, not for each epoch
    assert all(same(a, b) for a, b in zip(*results, strict=True))
    assert sum(len(b["path"]) for b in results[0]) == 112


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_found_in_evaluation_is_an_error(own_mug, workers):
    for picture in sorted((own_mug / "001/anger/take000").iterdir())[1:]:
        picture.write_bytes(b"broken")
    with pytest.raises(UserError, match="damaged picture"):
        list(MUG(str(own_mug), 32, 8, num_workers=workers).test_dataloader())


def test_nothing_readable_stops_at_once(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.mp4", "2.mp4"):
        (tmp_path / "a" / name).touch()
    with pytest.raises(UserError, match="all unreadable") as caught:
        Folder(str(tmp_path), 32, 8).train_dataloader()
    assert "1.mp4" in str(caught.value)


def test_short_clips_can_be_dropped(mug_root):
    lengths = [r.frames for r in MUG(str(mug_root), 32, 8).index.of("train")]
    module = MUG(str(mug_root), 32, 18, short_clips="drop")
    assert 0 < len(module.dataset("train")) == sum(n >= 18 for n in lengths) < len(lengths)
    with pytest.raises(UserError, match="no clip in the train set"):
        MUG(str(mug_root), 32, 30, short_clips="drop").train_dataloader()


def test_the_index_is_kept_and_notices_changes(own_mug):
    before = MUG(str(own_mug), 32, 8)
    fingerprint = before.fingerprint
    assert (own_mug / CACHE_NAME).is_file()
    assert MUG(str(own_mug), 32, 8).fingerprint == fingerprint
    moved = shutil.move(own_mug, own_mug.with_name("moved"))
    assert MUG(str(moved), 32, 8).fingerprint == fingerprint
    picture = moved / "008/anger/take000/img_0003.jpg"
    picture.unlink()
    assert MUG(str(moved), 32, 8).fingerprint != fingerprint
    (moved / CACHE_NAME).write_text("{broken")
    assert len(MUG(str(moved), 32, 8).index.records) == 98


def test_rotated_and_grey_sizes_come_out_square(tmp_path):
    tall = np.zeros((6, 40, 20, 3), np.uint8)
    tall[:, :, :, 1] = 200
    (tmp_path / "x").mkdir()
    for i in range(2):
        encode(tmp_path / f"x/{i}.mp4", tall, 10)
    video = Folder(str(tmp_path), 16, 4, resize="letterbox").dataset("train")[0]["video"]
    assert video.shape == (3, 4, 16, 16)
    assert video[1, :, :, 4:12].min() > 150 and video[:, :, :, :3].max() == 0


@pytest.mark.parametrize("content", [b"path,label\na.mp4,\xff\xfe\n", b"path,label\na\0.mp4,x\n"])
def test_a_table_that_is_no_text_is_named(tmp_path, content):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        Folder(str(tmp_path), 16, 4).train_dataloader()
    assert str(tmp_path) in str(caught.value)


def test_a_table_of_repetitions_that_says_nonsense_costs_those_clips(natops_root, tmp_path, caplog):
    root = shutil.copytree(natops_root, tmp_path / "natops")
    whole = NATOPS(str(root), 16, 4).index
    table = root / "segmentation.txt"
    lines = table.read_text().splitlines()
    lines[2:4] = ["1:0,9", "2:20,19"]  # before the first frame; of no frames
    table.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        index = NATOPS(str(root), 16, 4).index
    assert len(index.records) == len(whole.records) - 2 and len(index.bad) == 2
    assert caplog.text.count("left out unreadable clip") == 2


def test_what_is_in_no_class_folder_is_named(folder_root, tmp_path, caplog):
    root = shutil.copytree(folder_root, tmp_path / "folder")
    shutil.copy(next(root.rglob("*.mp4")), root / "lost.mp4")
    (root / "hollow").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(Folder(str(root), 16, 4).find_clips()) == len(Folder(str(folder_root), 16, 4).find_clips())
    assert "lost.mp4" in caplog.text and "hollow" in caplog.text


def test_a_validation_clip_that_cannot_be_read_does_not_end_a_training(own_mug, caplog):
    for picture in sorted((own_mug / "001/anger/take000").iterdir())[1:]:
        picture.write_bytes(b"broken")
    module = MUG(str(own_mug), 32, 8)
    paths = [path for batch in module.val_dataloader() for path in batch["path"]]
    assert "001/anger/take000" not in paths and len(paths) == len(module.dataset("val")) and module.replaced == 1
    assert "001/anger/take000" in caplog.text
