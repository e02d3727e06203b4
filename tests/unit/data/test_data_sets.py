"""Every data set: its fake tree is written, checked, packed, and iterated by its DataModule; presets; missing data."""

import argparse
import inspect
from importlib.util import find_spec

import pytest
import torch

from tests.tiny_data import TINY
from vgen.cli.commands import data
from vgen.data import datamodules
from vgen.data.datamodules import DATA_SETS, VideoDataModule
from vgen.data.fake import WRITERS
from vgen.data.presets import Preset
from vgen.errors import UserError

CLASSES = {
    name: cls
    for name, cls in vars(datamodules).items()
    if isinstance(cls, type) and issubclass(cls, VideoDataModule) and cls is not VideoDataModule
}
DRAWN = {"MovingDigits": {"train_clips": 40, "test_clips": 12}}  # nothing is read, so nothing is faked
FEWER = {**DRAWN, "MovingMNIST": {"train_clips": 40, "test_clips": 12, "fresh": False}}
COMMANDS = {cls.__name__: name for name, cls in DATA_SETS.items()}

every_set = pytest.mark.parametrize("name", sorted(CLASSES))


def run(*words):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def make(tiny_root):
    """Makes a DataModule over its tiny set."""

    def module_of(name, size=24, frames=4, **options):
        if name == "MovingDigits" and find_spec("sklearn") is None:
            pytest.skip("scikit-learn is not installed")
        root = {} if name in DRAWN else {"root": str(tiny_root(name))}
        return CLASSES[name](**root, size=size, frames=frames, **{**FEWER.get(name, {}), **options})

    return module_of


def test_all_of_them_are_known_everywhere():
    assert set(CLASSES) == set(COMMANDS) <= set(datamodules.__all__)
    assert set(CLASSES) == set(TINY) | set(DRAWN)
    assert tuple(DATA_SETS) == data.SETS and tuple(WRITERS) == data.FAKE


@every_set
def test_written_checked_packed_and_iterated(name, make, tmp_path, capsys):
    module = make(name, batch_size=3)
    root = module.root if name not in DRAWN else tmp_path
    assert run("check", root, "--dataset", COMMANDS[name]) == 0, capsys.readouterr().out
    spec = module.clip_spec
    assert (spec.frames, spec.height, spec.width, spec.channels) == (4, 24, 24, 3)
    records = module.index.records
    assert not module.index.bad and {r.split for r in records} >= {"train", "test"}
    assert len({r.name for r in records}) == len(records)
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        batches = list(loader)
        assert batches
        for batch in batches:
            count = len(batch["path"])
            assert batch["video"].shape == (count, 3, 4, 24, 24) and batch["video"].dtype == torch.uint8
            assert set(spec.condition_keys) <= set(batch)
            assert batch["video"].float().std() > 3  # there is something to see
    packed = CLASSES[name](
        **{"root": str(root)} if name not in DRAWN else {}, size=24, frames=4, packed=str(tmp_path / "packed")
    )
    pack(module, tmp_path / "packed")
    for split in ("train", "test"):
        sets = packed.dataset(split), make(name).dataset(split)
        assert len(sets[0]) == len(sets[1])
        for number in range(min(len(sets[0]), 4)):
            ours, theirs = (clips[number] for clips in sets)
            assert torch.equal(ours["video"], theirs["video"]) and ours["path"] == theirs["path"]
            assert (ours.get("label"), ours.get("text")) == (theirs.get("label"), theirs.get("text"))


def pack(module, out):
    from vgen.data.packing import pack as pack_clips

    spec = module.clip_spec
    pack_clips(module.index, module.reader(), out, spec.class_names, spec.fps, None, module.resize, module.crop)


@every_set
def test_batches_are_the_same_with_any_number_of_workers(name, make):
    loaders = [make(name, batch_size=2, num_workers=workers, val_clips=4).val_dataloader() for workers in (0, 1)]
    for left, right in zip(*loaders, strict=True):
        assert left["path"] == right["path"] and torch.equal(left["video"], right["video"])


@every_set
def test_subjects_stay_in_one_set(name, make):
    module = make(name)
    for variant in module.variants or (None,):
        if name in ("MovingDigits", "MovingMNIST") or (name, variant) == ("Cityscapes", "vid2vid"):
            continue  # subjects are numbers of pictures, or of sequences, within their set
        index = make(name, variant=variant).index
        sets = [{r.subject for r in index.of(split)} - {""} for split in ("train", "val", "test")]
        assert not sets[0] & sets[2] and not sets[0] & sets[1] and not sets[1] & sets[2], variant


@every_set
def test_every_preset_gives_batches_of_its_kind(name, make):
    for preset, settings in CLASSES[name].presets.items():
        assert settings.source
        module = make(name, frames=2, preset=preset, batch_size=1)
        found = {
            key: getattr(module, key)
            for key in ("resize", "filter", "sampling", "stride", "short_clips", "augmentation", "train_on", "variant")
        }
        for key, value in found.items():
            assert value == (getattr(settings, key) or value), (preset, key)
        if name == "FaceForensics" and preset == "mocogan":
            continue  # its tiny videos are too short for every second of so many frames
        batch = next(iter(module.train_dataloader()))
        assert batch["video"].shape == (1, 3, 2, 24, 24), preset


@every_set
def test_missing_data_says_what_where_and_how_to_get_it(name, tmp_path):
    cls = CLASSES[name]
    if name in DRAWN:
        return
    with pytest.raises(UserError) as caught:
        _ = cls(str(tmp_path / "nowhere"), 32, 8).clip_spec
    assert "nowhere" in str(caught.value) and cls.expected[:10] in str(caught.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UserError) as caught:
        cls(str(tmp_path / "other"), 32, 8).train_dataloader()
    assert str(tmp_path / "other") in str(caught.value)
    assert cls is datamodules.Folder or ("http" in (cls.how_to_get or "") and cls.how_to_get in str(caught.value))


def test_explicit_arguments_go_before_the_preset(tiny_root):
    root = str(tiny_root("UCF101"))
    pvdm = datamodules.UCF101(root, 24, 4, preset="pvdm")
    assert (pvdm.resize, pvdm.filter, pvdm.sampling) == ("crop_first", "bilinear_no_antialias", "window")
    own = datamodules.UCF101(root, 24, 4, preset="pvdm", sampling="first", stride=2, filter="lanczos")
    assert (own.resize, own.filter, own.sampling, own.stride) == ("crop_first", "lanczos", "first", 2)
    # Another way of resizing does not inherit a filter that was meant for the preset's.
    assert datamodules.UCF101(root, 24, 4, preset="pvdm", resize="letterbox").filter == "area"
    with pytest.raises(UserError, match=r"no preset 'pvmd'[\s\S]*did you mean 'pvdm'"):
        datamodules.UCF101(root, 24, 4, preset="pvmd")
    with pytest.raises(UserError, match=r"no variant 'split4'[\s\S]*split"):
        datamodules.UCF101(root, 24, 4, variant="split4")
    with pytest.raises(UserError, match=r"has no variant 'a'[\s\S]*it has none"):
        datamodules.SkyTimelapse(root, 24, 4, variant="a")


def test_training_on_everything_keeps_the_test_set(tiny_root):
    root = str(tiny_root("UCF101"))
    usual, everything = (datamodules.UCF101(root, 24, 4, train_on=train_on) for train_on in ("train", "all"))
    assert len(everything.index.of("train")) == len(usual.index.of("train")) + len(usual.index.of("test"))
    assert everything.index.of("test") == usual.index.of("test")
    assert everything.fingerprint != usual.fingerprint


def test_frames_need_not_be_square(tiny_root):
    module = datamodules.Cityscapes(str(tiny_root("Cityscapes")), (16, 32), 3, preset="vid2vid")
    assert (module.clip_spec.height, module.clip_spec.width) == (16, 32)
    assert module.dataset("train")[0]["video"].shape == (3, 3, 16, 32)


def test_a_set_whose_clips_are_all_too_short_says_so(tiny_root):
    with pytest.raises(UserError, match="no clip in the train set has the 900 frames that window needs"):
        datamodules.UCF101(str(tiny_root("UCF101")), 24, 900, preset="pvdm").train_dataloader()


def test_constructors_agree():
    """Where a class lists the arguments of its base again, none is forgotten or has another default."""
    base = inspect.signature(VideoDataModule.__init__).parameters
    for cls in CLASSES.values():
        own = inspect.signature(cls.__init__).parameters
        assert not set(base) - set(own), cls
        for name, parameter in base.items():
            if name not in ("self", "root", "size"):
                assert own[name].default == parameter.default, (cls, name)
                assert own[name].annotation == parameter.annotation, (cls, name)


def test_presets_are_plain_data():
    for cls in CLASSES.values():
        assert all(isinstance(preset, Preset) for preset in cls.presets.values())
