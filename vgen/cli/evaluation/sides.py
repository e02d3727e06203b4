"""Which clips `vgen evaluate` compares: real ones of a folder, data set or run, and generated ones of a folder."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.cli.trained import Trained, build_data, find_data, stage_config
from vgen.errors import UserError, did_you_mean
from vgen.metrics.protocols import Protocol
from vgen.metrics.selection import Selection
from vgen.metrics.sources import ClipSource, FolderClips, RecordClips

if TYPE_CHECKING:
    from vgen.data.datamodules import VideoDataModule


@dataclass(frozen=True)
class Real:
    """The real clips.

    Args:
        clips: Those that the protocol compares.
        training: Among which the neighbours of generated clips are looked for.
        held_out: Real clips beside them; None: there are none.
        class_names: Name of each class; empty without classes.
    """

    clips: ClipSource
    training: ClipSource
    held_out: ClipSource | None
    class_names: Sequence[str]


@dataclass(frozen=True)
class DataBlock:
    """The `data` block of a recipe or of a command line.

    Args:
        config: `class_path` and `init_args`.
        where: For messages.
    """

    config: dict[str, Any]
    where: str

    def build(self, size: Sequence[int], frames: int, sampling: str | None = "first") -> "VideoDataModule":
        """Opens the data with clips of some size and length, unchanged by chance.

        Args:
            size: Height and width in pixels.
            frames: Frames of a clip.
            sampling: How they are chosen; None: as for testing.

        Raises:
            UserError: A wrong argument, or the data is not there.
        """
        height, width = size
        changes: dict[str, Any] = {
            "size": height if height == width else [height, width],
            "frames": frames,
            "eval_frames": frames,
            "augmentation": "none",
            "repeats": 1,
        }
        given = self.config.get("init_args") or {}
        changes |= {} if sampling is None else {"sampling": sampling, "eval_sampling": sampling}
        if sampling is not None or given.get("short_clips") != "zero_first_half":
            changes["short_clips"] = "repeat_last"
        data = find_data(build_data({**self.config, "init_args": {**given, **changes}}, self.where))
        if sampling is None:
            data.sampling = data.eval_sampling
        return data


def data_block(args: argparse.Namespace, trained: Trained | None) -> DataBlock | None:
    """The data that `--data` names, else the run's; None without either.

    Raises:
        UserError: No such data set or recipe, or an argument without a value.
    """
    moved = {} if args.data_root is None else {"root": args.data_root, "packed": None}
    options = key_values(args.data_option, "--data-option")
    if args.data is None:
        config, where = ({} if trained is None else stage_config(trained.file).get("data")) or {}, "the run's data"
        if options and not config:
            raise UserError("which data set?", "--data-option", "name one by --data")
    elif Path(args.data).suffix in (".yaml", ".yml"):
        config, where = _of_recipe(Path(args.data), args.stage), args.data
    else:
        config, where, moved = {"class_path": _class_of(args.data)}, "--data", {"root": args.data_root or "."}
    if not config:
        return None
    return DataBlock({**config, "init_args": {**(config.get("init_args") or {}), **moved, **options}}, where)


def _class_of(name: str) -> str:
    from vgen.data.datamodules import DATA_SETS

    classes = {cls.__name__: cls for cls in DATA_SETS.values()}
    known = DATA_SETS.get(name) or classes.get(name.rpartition(".")[2])
    if known is None and "." not in name:
        hint = did_you_mean(name, [*DATA_SETS, *classes]) or f"there are: {', '.join(DATA_SETS)}; or a recipe's file"
        raise UserError(f"no data set {name!r}", "--data", hint)
    return name if known is None or "." in name else f"vgen.data.datamodules.{known.__name__}"


def _of_recipe(path: Path, stage: str | None) -> dict[str, Any]:
    from vgen.cli.recipe import load_yaml, merge

    content = load_yaml(path)
    stages = content.get("stages") or {}
    if not isinstance(stages, dict) or not stages:
        raise UserError("no stages in it: is it a recipe?", str(path))
    if stage is not None and stage not in stages:
        raise UserError(f"no stage {stage!r}", str(path), did_you_mean(stage, stages) or f"there: {', '.join(stages)}")
    block = merge(content.get("all_stages") or {}, stages[stage or list(stages)[-1]]).get("data")
    if not isinstance(block, dict) or "class_path" not in block:
        raise UserError("the stage names no data", str(path))
    return block


def key_values(given: Sequence[str], where: str) -> dict[str, Any]:
    """Reads `KEY=VALUE`, the values as YAML.

    Raises:
        UserError: No value.
    """
    import yaml

    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{text!r} is no KEY=VALUE", where)
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{value!r} is no value", f"{where} {key}") from error
    return found


def real_side(
    args: argparse.Namespace, block: DataBlock | None, protocol: Protocol, size: Sequence[int], by_folder: bool
) -> Real:
    """Opens the real clips.

    Args:
        args: `real` and `split`.
        block: The data, where `real` names no folder.
        protocol: Decides the split and the length.
        size: Height and width of the generated clips.
        by_folder: Whether folders' names are classes.

    Raises:
        UserError: Nothing real is named, or it is not there.
    """
    if args.real is not None:
        if args.data is not None:
            raise UserError("--real and --data exclude each other: which clips are the real ones?", "vgen evaluate")
        folder = FolderClips(args.real, "folder" if by_folder else "none", split=args.split or "")
        return Real(folder, folder, None, folder.class_names)
    if block is None:
        raise UserError(
            "nothing real to compare with", "vgen evaluate", "--real DIR, or --data NAME --root DIR (or a recipe)"
        )
    data = block.build(size, protocol.span)
    protocol = protocol.of(data.whole_clips("train").data)
    if protocol.span > data.frames:  # of drawn clips, there is as much as is asked for
        data = block.build(size, protocol.span)
    split = args.split or protocol.split
    clips = RecordClips.of(data.whole_clips(split))
    train, test = (RecordClips.of(data.whole_clips(name)) for name in ("train", "test"))
    training = clips if "train" in split.split("+") or not len(train) else train
    # Clips that the model has seen itself are no reference.
    seen = ("test" in split.split("+") and training is clips) or data.train_on == "all"
    held_out = clips if split == "test" else test
    return Real(clips, training, held_out if len(held_out) and not seen else None, data.clip_spec.class_names)


def generated_folder(path: str) -> Path | None:
    """The folder of videos that a path means; None where it is a model.

    Raises:
        UserError: It is a single video.
    """
    from vgen.video.io import VIDEO_SUFFIXES

    place = Path(path).expanduser()
    if place.is_file() and place.suffix.lower() in VIDEO_SUFFIXES:
        raise UserError("one video only: a distribution needs more", path, "give the folder of all generated videos")
    if not place.is_dir() or (place / "model.safetensors").is_file() or (place / "checkpoints").is_dir():
        return None
    is_run = (place / "config.yaml").is_file() or any(place.glob("*/checkpoints/last.ckpt"))
    return None if is_run else place


def check_split(real: Real, protocol: Protocol) -> None:
    """Looks for real clips before anything is generated.

    Raises:
        UserError: There are none, or all are too short.
    """
    if len(real.clips) < 2:
        found = "no video" if len(real.clips) == 0 else "one video only"
        raise UserError(f"{found} in the real set: a distribution needs more", where=f"real videos, {real.clips.split}")
    Selection(real.clips, protocol.of(real.clips.data)).usable()
