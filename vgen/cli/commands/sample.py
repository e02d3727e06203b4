"""`vgen sample`: generate videos from a run, checkpoint, export or hub id, as mp4 files and one grid of all."""

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.cli.trained import (
    Trained,
    add_model_arguments,
    add_sampling_arguments,
    model_inputs,
    open_data,
    open_trained,
    read_options,
)
from vgen.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = 8  # clips beside each other in the grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_arguments(parser)
    given = parser.add_argument_group("conditions; every picture is combined with every label or text")
    given.add_argument("--image", nargs="+", default=[], metavar="FILE", help="first frames")
    given.add_argument(
        "--from-data",
        type=int,
        nargs="?",
        const=1,
        metavar="N",
        help="first frames of N test clips of the run's data (default, with N = 1, where a picture is needed)",
    )
    given.add_argument("--label", nargs="+", default=[], metavar="NAME", help="classes (default: every class once)")
    given.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="free texts, for models that read them")
    parser.add_argument("--n", type=int, default=1, metavar="N", help="clips of each combination (default: 1)")
    parser.add_argument("--frames", type=int, metavar="T", help="frames of a clip (default: as trained)")
    parser.add_argument("--seed", type=int, default=0, help="noise of the first of the N clips (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="noise of each of the N clips")
    add_sampling_arguments(parser, batch=8)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: generated, in the run)")
    parser.add_argument("--gif", action="store_true", help="write the grid as animated GIF too")


@dataclass(frozen=True)
class _Picture:
    """A first frame: its pixels (3, H, W) in [-1, 1] and where they came from."""

    pixels: "Tensor"
    source: str


@dataclass(frozen=True)
class _Clip:
    """One clip to generate."""

    name: str
    picture: int | None
    word: str | None
    seed: int


def run(args: argparse.Namespace) -> int:
    """Generates and writes the clips.

    Raises:
        UserError: Something that the model needs is missing, or it cannot generate.
    """
    from vgen.video import Samples

    if args.n < 1 or args.batch < 1 or (args.frames or 1) < 1:
        raise UserError("--n, --batch and --frames must be at least 1")
    options = read_options(args.option)
    trained = open_trained(args)
    if not isinstance(trained.model, Samples):
        hint = "an auto-encoder only reconstructs; name another --stage" if args.stage or _stages(trained) else None
        raise UserError(f"{type(trained.model).__name__} does not generate clips", str(args.run), hint)
    inputs = model_inputs(trained.model)
    pictures = _pictures(args, trained, "image" in inputs)
    words = _words(args, trained)
    seeds = args.seeds or [args.seed + i for i in range(args.n)]
    clips = _plan(pictures, words, seeds)
    out = args.out or trained.folder / "generated"
    _remove_earlier(out)
    videos = _generate(args, trained, options, clips, pictures, out)
    _write_grid(args, trained, clips, pictures, videos, out)
    return 0


def _stages(trained: Trained) -> bool:
    return trained.file.path.name.endswith(".ckpt")


def _pictures(args: argparse.Namespace, trained: Trained, needed: bool) -> list[_Picture]:
    from vgen.video.image import load_image

    spec = trained.model.clip_spec
    if args.image and args.from_data is not None:
        raise UserError("--image and --from-data exclude each other", "vgen sample")
    if not needed:
        if args.image or args.from_data is not None:
            raise UserError(f"{type(trained.model).__name__} takes no picture", "--image")
        return []
    if args.image:
        return [_Picture(load_image(path, spec.height, spec.width), Path(path).name) for path in args.image]
    return _first_frames(args, trained)


def _first_frames(args: argparse.Namespace, trained: Trained) -> list[_Picture]:
    """First frames of test clips, of as many different subjects as there are."""
    from vgen.video import to_float

    count = 1 if args.from_data is None else args.from_data
    if count < 1:
        raise UserError(f"must be at least 1, got {count}", "--from-data")
    dataset = open_data(trained.file, args.data_root).dataset("test")
    by_subject: dict[str, list[int]] = {}
    for index, record in enumerate(dataset.records):
        by_subject.setdefault(record.subject or record.path, []).append(index)
    groups = list(by_subject.values())
    # One clip of each subject, then the second of each, and so on.
    order = [group[i] for i in range(max(map(len, groups))) for group in groups if i < len(group)]
    pictures = []
    for index in order[:count]:
        item = dataset[index]
        if isinstance(item, Exception):
            raise item
        pictures.append(_Picture(to_float(item["video"][:, 0]), item["path"]))
    return pictures


def _words(args: argparse.Namespace, trained: Trained) -> list[str | None]:
    """The class names or texts to generate; one None where the model takes neither."""
    names = trained.model.clip_spec.class_names
    if args.label and args.text:
        raise UserError("--label and --text exclude each other", "vgen sample")
    if args.text:
        return list(args.text)
    if args.label:
        numbered = {str(index): name for index, name in enumerate(names)}
        return [label if label in names else numbered.get(label, label) for label in args.label]
    return list(names) or [None]


def _plan(pictures: Sequence[_Picture], words: Sequence[str | None], seeds: Sequence[int]) -> list[_Clip]:
    """Every picture with every seed with every word: clips of one picture and seed differ by the word alone."""
    clips: list[_Clip] = []
    for picture in range(len(pictures)) if pictures else [None]:
        for seed in seeds:
            for word in words:
                label = re.sub(r"[^\w-]+", "_", word or "clip").strip("_")[:40] or "clip"
                clips.append(_Clip(f"{len(clips):04d}_{label}_{seed}", picture, word, seed))
    return clips


def _remove_earlier(out: Path) -> None:
    """Deletes what an earlier call wrote into the folder: clips of two calls must not be taken for one set."""
    try:
        earlier = json.loads((out / "grid.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in [*earlier, "grid"]:
        for suffix in (".mp4", ".json", ".gif"):
            (out / f"{Path(str(name)).name}{suffix}").unlink(missing_ok=True)


def _generate(
    args: argparse.Namespace,
    trained: Trained,
    options: dict[str, Any],
    clips: list[_Clip],
    pictures: list[_Picture],
    out: Path,
) -> "list[Tensor]":
    """Generates the clips in batches and writes each; returns them as uint8 (C, T, H, W)."""
    from vgen.files import write_json
    from vgen.video import to_uint8
    from vgen.video.io import write_video

    fps = float(trained.model.clip_spec.fps)
    start, videos = time.monotonic(), []
    for first in range(0, len(clips), args.batch):
        batch = clips[first : first + args.batch]
        given: dict[str, Any] = {"n": len(batch), "seeds": [clip.seed for clip in batch], "options": options}
        if pictures:
            given["image"] = [pictures[clip.picture].pixels for clip in batch if clip.picture is not None]
        if batch[0].word is not None:
            given["text" if args.text else "label"] = [clip.word for clip in batch]
        try:
            made = to_uint8(trained.model.sample(frames=args.frames, **given)).cpu()
        except ValueError as error:
            if options:  # samplers say by it which value of an option they do not take
                raise UserError(str(error), "--option") from error
            raise
        for clip, video in zip(batch, made, strict=True):
            write_video(out / f"{clip.name}.mp4", video, fps)
            write_json(out / f"{clip.name}.json", _facts(clip, pictures, fps))
            videos.append(video)
        seconds = time.monotonic() - start
        print(f"[sample] {len(videos)}/{len(clips)} clips  {seconds / len(videos):.2f} s each", flush=True)
    return videos


def _facts(clip: _Clip, pictures: list[_Picture], fps: float) -> dict[str, Any]:
    source = None if clip.picture is None else pictures[clip.picture].source
    return {
        "kind": "generated",
        "captions": [clip.word] if clip.word else [],
        "seed": clip.seed,
        "image": source,
        "fps": fps,
    }


def _write_grid(
    args: argparse.Namespace,
    trained: Trained,
    clips: list[_Clip],
    pictures: list[_Picture],
    videos: "list[Tensor]",
    out: Path,
) -> None:
    """Writes grid.mp4 (and .gif): a row for each picture, which stands still in the first column."""
    from vgen.files import write_json
    from vgen.video import to_uint8
    from vgen.video.captions import captioned_grid
    from vgen.video.io import write_gif, write_video

    fps = float(trained.model.clip_spec.fps)
    words = {clip.word for clip in clips}
    # Columns are words; with one word, seeds. A longer row is broken.
    unit = len(words) if len(words) > 1 else len({clip.seed for clip in clips})
    wide = min(unit, _COLUMNS)
    cells: list[Tensor] = []
    for start in range(0, len(clips), unit):
        for first in range(start, start + unit, wide):
            row = range(first, min(first + wide, start + unit))
            if (picture := clips[first].picture) is not None:
                still = to_uint8(pictures[picture].pixels)
                cells.append(still[:, None].expand_as(videos[first]))
            cells += [videos[index] for index in row]
            cells += [videos[first].new_full(videos[first].shape, 255)] * (wide - len(row))
    heads = [clip.word or "" for clip in clips[:wide]] if unit == wide else []
    captions = ["given", *heads] if any(heads) and pictures else heads
    grid = captioned_grid(cells, wide + bool(pictures), captions)
    write_video(out / "grid.mp4", grid, fps, upscale_to=0)
    if args.gif:
        write_gif(out / "grid.gif", grid, fps, upscale_to=0)
    rows = "each row begins with the given picture" if pictures else ""
    record = {
        "kind": "grid",
        "captions": [clip.word for clip in clips if clip.word],
        "rows": rows,
        "fps": fps,
        "files": [clip.name for clip in clips],
        "clips": [_facts(clip, pictures, fps) for clip in clips],
        "model": {
            "class": type(trained.model).__name__,
            "weights": trained.weights,
            "step": trained.file.header.get("step"),
        },
        "options": args.option,
    }
    write_json(out / "grid.json", record)
    print(f"{len(clips)} clips, grid.mp4{' and grid.gif' if args.gif else ''} in {out}")
