"""What people really find in the folders: one test for each trap of each data set."""

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from vgen.data.datamodules import (
    BAIR,
    CLEVRER,
    KTH,
    UCF101,
    Cityscapes,
    FaceForensics,
    Folder,
    Kinetics600,
    SkyTimelapse,
    TaiChiHD,
)
from vgen.data.datamodules.cityscapes import snippets
from vgen.data.datamodules.faceforensics import face_box
from vgen.data.datamodules.kth import read_sequences
from vgen.errors import UserError
from vgen.video.io import probe


@pytest.fixture
def own(tiny_root, tmp_path):
    """A copy of a tiny set that a test may change."""
    return lambda name: shutil.copytree(tiny_root(name), tmp_path / name)


# UCF-101 ------------------------------------------------------------------------------------------------------------


def test_ucf_class_is_the_folders_because_files_spell_it_another_way(tiny_root):
    module = UCF101(str(tiny_root("UCF101")), 16, 4)
    clips = [r for r in module.index.records if "HandStandPushups" in r.path]
    assert clips and all("/HandstandPushups/v_HandStandPushups_" in r.path for r in clips)
    assert {module.class_names[r.label] for r in clips} == {"HandstandPushups"}
    assert {r.split for r in clips} == {"train", "test"}


@pytest.mark.parametrize("place", ["root", "classes", "beside"])
def test_ucf_lists_may_lie_among_the_classes_and_are_no_class(own, place):
    root = own("UCF101")
    expected = UCF101(str(root), 16, 4).index
    lists = root / "ucfTrainTestlist"
    if place == "classes":
        shutil.move(lists, root / "UCF-101" / lists.name)
    top = root / "UCF-101" if place != "root" else root
    module = UCF101(str(top), 16, 4)
    assert "ucfTrainTestlist" not in module.class_names and len(module.class_names) == 6
    assert [r.label for r in module.index.records] == [r.label for r in expected.records]


def test_ucf_lists_are_read_as_they_are(tiny_root):
    """Training lines have a class number behind the path, test lines have not; numbers count from 1."""
    root = tiny_root("UCF101")
    train = (root / "ucfTrainTestlist/trainlist01.txt").read_text().splitlines()
    test = (root / "ucfTrainTestlist/testlist01.txt").read_text().splitlines()
    module = UCF101(str(root), 16, 4)
    assert len(module.index.of("train")) == len(train) and len(module.index.of("test")) == len(test)
    name, number = train[0].split()
    record = next(r for r in module.index.records if r.path.endswith(name))
    assert record.label == int(number) - 1 and len(test[0].split()) == 1


def test_ucf_splits_keep_groups_together(tiny_root):
    sets = {}
    for variant in UCF101.variants:
        index = UCF101(str(tiny_root("UCF101")), 16, 4, variant=variant).index
        train, test = ({r.subject for r in index.of(s)} for s in ("train", "test"))
        assert train and test and not train & test
        sets[variant] = test
    assert len(set.union(*sets.values())) == sum(map(len, sets.values()))


def test_ucf_files_in_no_list_are_left_out_and_missing_lists_named(own):
    root = own("UCF101")
    some = next((root / "UCF-101/Lunges").iterdir())
    shutil.copy(some, some.with_name("v_Lunges_g01_c99.avi"))
    module = UCF101(str(root), 16, 4)
    assert not [r for r in module.index.records if "c99" in r.path]
    (root / "ucfTrainTestlist/testlist02.txt").unlink()
    with pytest.raises(UserError, match=r"testlist02.txt[\s\S]*crcv.ucf.edu"):
        _ = UCF101(str(root), 16, 4, variant="split2").index
    shutil.rmtree(root / "ucfTrainTestlist")
    with pytest.raises(UserError, match=r"ucfTrainTestlist/ with classInd\.txt"):
        _ = UCF101(str(root), 16, 4).clip_spec


def test_ucf_header_that_counts_one_frame_too_many(own):
    """The last frame that an AVI header promises may not be there; the clip is used all the same."""
    root = own("UCF101")
    path = next((root / "UCF-101/Bowling").iterdir())
    frames = probe(path).frames
    content = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):  # where either header has its number of frames
        at = content.index(tag) + offset
        assert int.from_bytes(content[at : at + 4], "little") == frames
        content[at : at + 4] = (frames + 1).to_bytes(4, "little")
    path.write_bytes(content)
    module = UCF101(str(root), 16, frames, short_clips="drop", sampling="first")
    record = next(r for r in module.index.records if r.path.endswith(path.name))
    assert record.frames in (frames, frames + 1)
    assert module.reader().read(record, np.arange(frames - 1, record.frames)).shape[0] == record.frames - frames + 1


# SkyTimelapse, TaiChi-HD --------------------------------------------------------------------------------------------


def test_sky_empty_folders_and_the_broken_video_are_left_out(tiny_root):
    root = tiny_root("SkyTimelapse")
    top = root / "sky_timelapse"
    empty = [p for p in top.glob("*/*/*") if not any(p.iterdir())]
    assert empty and list(top.glob("*/z6Yr7KDZhm0"))
    module = SkyTimelapse(str(root), 16, 4)
    assert not module.index.bad and not [r for r in module.index.records if "z6Yr7KDZhm0" in r.path]
    assert all(r.subject == r.path.split("/")[2] for r in module.index.records)


def test_sky_under_the_names_that_users_give_it_and_one_level_less(own, tmp_path):
    root = own("SkyTimelapse")
    for long, short in (("sky_train", "train"), ("sky_test", "test")):
        for clip in (root / "sky_timelapse" / long).glob("*/*"):
            if any(clip.iterdir()):
                shutil.copytree(clip, tmp_path / "flat" / short / clip.name)
    module = SkyTimelapse(str(tmp_path / "flat"), 16, 4)
    assert len(module.index.of("train")) >= 2 and len(module.index.of("test")) == 2


def test_sky_frames_come_in_the_order_of_their_numbers(tmp_path):
    folder = tmp_path / "sky_train/v/v_1"
    folder.mkdir(parents=True)
    for number in (1, 2, 9, 10, 11):
        Image.new("RGB", (16, 9), (number * 20,) * 3).save(folder / f"v_1_frames_{number}.jpg")
    module = SkyTimelapse(str(tmp_path), 8, 5, sampling="first")
    levels = module.dataset("train")[0]["video"].float().mean((0, 2, 3)) / 20
    assert levels.round().tolist() == [1, 2, 9, 10, 11]


def test_taichi_chunks_are_videos_or_folders_named_like_videos(tiny_root):
    module = TaiChiHD(str(tiny_root("TaiChiHD")), 16, 4)
    kinds = {(module.root / r.path).is_dir() for r in module.index.records}
    assert kinds == {True, False}
    assert all(r.path.endswith(".mp4") and "#" in r.path for r in module.index.records)
    assert {r.subject for r in module.index.of("train")} == {"tc_00000000"}


def test_taichi_underscores_for_hashes_and_chunks_of_lost_videos(own):
    root = own("TaiChiHD")
    before = TaiChiHD(str(root), 16, 4).index
    for path in sorted((root / "train").iterdir()):
        path.rename(path.with_name(path.name.replace("#", "_")))
    after = TaiChiHD(str(root), 16, 4).index
    assert [r.subject for r in after.records] == [r.subject for r in before.records]


def test_taichi_under_digan_makes_four_clips_of_64_frames(tiny_root):
    module = TaiChiHD(str(tiny_root("TaiChiHD")), 16, 16, preset="digan", augmentation="none")
    dataset = module.dataset("train")
    assert len(dataset) == 4 * len(module.index.of("train"))
    items = [dataset[n] for n in range(4)]
    assert sorted(int(i) for item in items for i in item["frame_index"]) == list(range(64))
    assert len({item["path"] for item in items}) == 4


# CLEVRER, Kinetics-600 ----------------------------------------------------------------------------------------------


def test_clevrer_numbers_decide_the_set_wherever_the_archives_were_unpacked(own, tmp_path):
    root = own("CLEVRER")
    nested = CLEVRER(str(root), 16, 4).index
    assert {s: len(nested.of(s)) for s in ("train", "val", "test")} == {"train": 2, "val": 1, "test": 1}
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in root.glob("*/*/*.mp4"):
        shutil.copy(path, flat / path.name)
    frames = flat / "video_00000"  # frames that somebody extracted, beside the video
    frames.mkdir()
    Image.new("RGB", (8, 8)).save(frames / "frame00000.png")
    assert [(r.subject, r.split) for r in CLEVRER(str(flat), 16, 4).index.records] == [
        (r.subject, r.split) for r in nested.records
    ]


def test_kinetics_lost_videos_are_counted_and_tables_may_end_in_txt(tiny_root, caplog):
    root = tiny_root("Kinetics600")
    assert (root / "annotations/train.txt").is_file() and (root / "annotations/test.csv").is_file()
    with caplog.at_level(logging.INFO):
        module = Kinetics600(str(root), 16, 4)
        assert len(module.index.records) == 15
    assert "3 of 18 listed Kinetics videos are not there" in caplog.text
    assert len({(r.height, r.width) for r in module.index.records}) > 1  # of any size
    assert module.dataset("train")[0]["video"].shape == (3, 4, 16, 16)


def test_kinetics_in_class_folders_and_the_food_classes(own):
    root = own("Kinetics600")
    food = Kinetics600(str(root), 16, 4, variant="food")
    assert food.class_names == ("baking cookies",) and {r.label for r in food.index.records} == {0}
    before = Kinetics600(str(root), 16, 4)
    for record in before.index.records:
        folder = root / record.split / before.class_names[record.label]
        folder.mkdir(exist_ok=True)
        shutil.move(root / record.path, folder)
    after = Kinetics600(str(root), 16, 4).index
    assert [(r.label, r.subject) for r in after.records] == [(r.label, r.subject) for r in before.index.records]
    (root / "annotations/train.txt").write_text("label,id\n")
    with pytest.raises(UserError, match="lacks columns"):
        _ = Kinetics600(str(root), 16, 4).class_names


# KTH, BAIR ----------------------------------------------------------------------------------------------------------


def test_kth_clips_are_the_performances_and_nobody_is_missing(tiny_root):
    root = tiny_root("KTH")
    table = read_sequences(root / "00sequences.txt")
    module = KTH(str(root), 16, 4)
    assert len(module.index.records) == sum(map(len, table.values()))
    walk = [r for r in module.index.records if "person11_walking" in r.path]
    whole = probe(root / walk[0].path).frames
    assert sum(r.frames for r in walk) < whole  # between performances, nobody is to be seen
    assert [(r.start + 1, r.start + r.frames) for r in walk] == table["person11_walking_d1"]
    for record in walk:
        assert module.reader().read(record, np.arange(record.frames)).std((1, 2)).min() > 5
    empty = walk[0].start + walk[0].frames + 2
    assert module.reader().read(walk[0], np.array([empty])).std() < 5
    assert "person13_handclapping_d3" not in table


def test_kth_divisions_of_persons_and_flat_folders(own):
    root = own("KTH")
    official = KTH(str(root), 16, 4, variant="official").index
    assert {r.subject: r.split for r in official.records} == {"11": "train", "22": "test", "01": "val"}
    for path in sorted(root.glob("*/*.avi")):
        shutil.move(path, root)
    assert {r.subject: r.split for r in KTH(str(root), 16, 4).index.records} == {
        "11": "train", "22": "test", "01": "train",
    }  # fmt: skip
    (root / "00sequences.txt").unlink()
    with pytest.raises(UserError, match=r"00sequences.txt[\s\S]*csc.kth.se"):
        _ = KTH(str(root), 16, 4).index


def test_kth_is_squashed_and_grey_on_demand(tiny_root):
    module = KTH(str(tiny_root("KTH")), 16, 4, preset="svg", channels=1)
    assert module.clip_spec.channels == 1 and module.resize == "stretch"
    assert module.dataset("train")[0]["video"].shape == (1, 4, 16, 16)


def test_bair_without_tensorflow(tiny_root):
    root = tiny_root("BAIR")
    aux, main = (BAIR(str(root), 64, 30, sampling="first", variant=v) for v in BAIR.variants)
    assert {s: len(aux.index.of(s)) for s in ("train", "test")} == {"train": 2, "test": 1}
    clips = [m.dataset("train")[0]["video"].int() for m in (aux, main)]
    assert clips[0].shape == (3, 30, 64, 64)
    # The other camera stands six pixels to the left.
    assert (clips[0][..., :-6] - clips[1][..., 6:]).abs().float().mean() < 1
    inside = BAIR(str(root / "softmotion30_44k"), 64, 30)
    assert len(inside.index.records) == 3


def test_bair_damage_is_named(own):
    root = own("BAIR")
    files = sorted(root.rglob("*.tfrecords"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    module = BAIR(str(root), 64, 30)
    assert len(module.index.records) == 2 and "cut off" in module.index.bad[0][1]
    damaged = np.frombuffer(whole, np.uint8).copy()
    damaged[len(damaged) // 2] ^= 255
    files[0].write_bytes(damaged.tobytes())
    with pytest.raises(UserError, match=r"checksum|damaged"):
        BAIR(str(root), 64, 30).examine(files[0])


# FaceForensics ------------------------------------------------------------------------------------------------------


def test_a_face_box_is_squared_by_its_shorter_side():
    mask = np.full((40, 60, 3), 255, np.uint8)
    mask[10:30, 25:35] = 0
    assert face_box(mask) == (20, 10, 40, 30)
    assert face_box(np.full((40, 60, 3), 255, np.uint8)) is None


def test_faces_are_cut_and_frames_with_half_a_face_dropped(own):
    root = own("FaceForensics")
    whole, unstable, stable = (FaceForensics(str(root), 24, 8, variant=v) for v in ("whole", "unstable", "stable"))
    lengths = [{r.path: r.frames for r in m.index.records} for m in (whole, unstable, stable)]
    assert all(lengths[1][p] == n - 1 for p, n in lengths[0].items())  # in the last one, the face leaves the picture
    record = unstable.index.records[0]
    boxes = unstable.reader().boxes[record.path]
    assert len({box for _, box in boxes}) > 1  # every frame has its own
    assert len({box for _, box in stable.reader().boxes[record.path]}) == 1
    item = unstable.dataset("train")[0]
    assert item["video"].shape == (3, 8, 24, 24) and (root / ".vgen_faces.json").is_file()
    stored = (root / ".vgen_faces.json").stat().st_mtime_ns
    _ = FaceForensics(str(root), 24, 8).index
    assert (root / ".vgen_faces.json").stat().st_mtime_ns == stored  # masks are decoded once


def test_videos_without_a_mask_or_with_a_broken_one(own):
    root = own("FaceForensics") / "FaceForensics_compressed"
    next((root / "val/mask").iterdir()).unlink()
    next((root / "test/mask").iterdir()).write_bytes(b"")
    module = FaceForensics(str(root), 24, 8)
    assert {r.split for r in module.index.records} == {"train"}
    assert [reason for _, reason in module.index.bad] == ["no frame shows a whole face"]


# Cityscapes ---------------------------------------------------------------------------------------------------------


def test_label_maps_follow_their_frames(tiny_root):
    root = tiny_root("Cityscapes")
    module = Cityscapes(str(root), (32, 64), 4, sampling="first", resize="stretch")
    item = module.dataset("train")[0]
    name = item["path"].split("/")[1]
    labels = np.stack([np.asarray(Image.open(root / f"train_A/{name}/{t:06d}.png")) for t in range(4)])
    assert np.array_equal(item["label_map"][0].numpy(), labels)
    assert set(np.unique(labels)) <= {7, 11, 23, 26} and item["instance_map"].max() >= 26_000
    flipped = Cityscapes(str(root), (32, 64), 4, sampling="first", resize="stretch", augmentation="flip")
    seen = set()
    for epoch in range(12):
        both = flipped.dataset("train")[(epoch, 0)]
        mirrored = not np.array_equal(both["video"].numpy(), item["video"].numpy())
        expected = item["label_map"].flip(-1) if mirrored else item["label_map"]
        assert np.array_equal(both["label_map"].numpy(), expected.numpy())
        seen.add(mirrored)
    assert seen == {True, False}
    with pytest.raises(UserError, match="would change label maps"):
        Cityscapes(str(root), (32, 64), 4, augmentation="lfdm_clip").train_dataloader()


def test_sequences_with_a_missing_map_are_left_out(own):
    root = own("Cityscapes")
    folder = next((root / "test_A").iterdir())
    next(folder.iterdir()).unlink()
    module = Cityscapes(str(root), 16, 4)
    assert len(module.index.of("test")) == 1 and "16 maps in test_A" in module.index.bad[0][1]
    shutil.rmtree(root / "train_inst")
    assert Cityscapes(str(root), 16, 4).clip_spec.condition_keys == ("label_map",)
    shutil.rmtree(root / "train_A")
    shutil.rmtree(root / "test_A")
    with pytest.raises(UserError, match="no sequence has a map for each frame"):
        _ = Cityscapes(str(root), 16, 4).index


def test_snippets_of_the_official_archive(tiny_root):
    module = Cityscapes(str(tiny_root("Cityscapes")), 16, 4, variant="sequence")
    assert {s: len(module.index.of(s)) for s in ("train", "val", "test")} == {"train": 1, "val": 1, "test": 1}
    assert module.clip_spec.condition_keys == () and module.index.records[0].frames == 17
    name = "x_{:06d}_{:06d}_leftImg8bit.png".format
    names = [name(0, t) for t in range(45)] + [name(0, 60), name(0, 61)] + [name(1, 62)]
    assert snippets(names) == [(0, 30), (30, 15), (45, 2), (47, 1)]


# Captioned folders --------------------------------------------------------------------------------------------------


def test_captions_beside_clips(tmp_path, tiny_root):
    from vgen.data.fake import write_folder

    root = write_folder(tmp_path / "set", size=32, subjects=2, frames=4, captions=True)
    module = Folder(str(root), 16, 2)
    item = module.dataset("train")[0]
    assert item["text"] == f"a person doing: {module.class_names[item['label']]}"
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(root.glob("*/*.mp4"))[:4]):
        shutil.copy(path, flat / f"{number}.mp4")
        if number:
            (flat / f"{number}.txt").write_text(f"  clip number\n{number} ")
    frames = flat / "folder.of#frames"
    frames.mkdir()
    Image.new("RGB", (8, 8)).save(frames / "0.png")
    (flat / "folder.of#frames.txt").write_text("a still")
    module = Folder(str(flat), 16, 2, test_fraction=0.2)
    assert module.clip_spec.class_names == () and module.clip_spec.condition_keys == ("text",)
    texts = {r.path: r.text for r in module.index.records}
    assert texts == {
        "0.mp4": "", "1.mp4": "clip number 1", "2.mp4": "clip number 2", "3.mp4": "clip number 3",
        "folder.of#frames": "a still",
    }  # fmt: skip
    batches = list(module.train_dataloader())
    assert all(isinstance(text, str) for batch in batches for text in batch["text"])


def test_captions_in_a_table_without_classes(tmp_path, tiny_root):
    path = next(tiny_root("Folder").glob("*/*.mp4"))
    for name in "ab":
        shutil.copy(path, tmp_path / f"{name}.mp4")
    (tmp_path / "metadata.csv").write_text('path,caption\na.mp4,"one, two"\nb.mp4,three\n')
    module = Folder(str(tmp_path), 16, 2)
    assert module.clip_spec.condition_keys == ("text",)
    assert {r.text for r in module.index.records} == {"one, two", "three"}
    (tmp_path / "metadata.csv").write_text("path\na.mp4\n")
    with pytest.raises(UserError, match="no column 'label' or 'caption'"):
        _ = Folder(str(tmp_path), 16, 2).clip_spec
