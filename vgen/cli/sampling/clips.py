"""What is to be generated: pictures, words and seeds, and their combinations."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vgen.cli.trained import Trained, open_data
from vgen.errors import UserError


@dataclass(frozen=True)
class Picture:
    """What a clip begins with: pixels (3, H, W) in [-1, 1], or several past frames (C, t, H, W), and their source."""

    pixels: Tensor
    source: str


@dataclass(frozen=True)
class Clip:
    """One clip to generate.

    Args:
        name: Of its files.
        picture: Its first frame, or frames.
        word: Its class or text.
        seed: Of its noise.
    """

    name: str
    picture: Picture | None
    word: str | None
    seed: int

    def facts(self, fps: float) -> dict[str, Any]:
        """What stands in the JSON beside it."""
        return {
            "kind": "generated",
            "captions": [self.word] if self.word else [],
            "seed": self.seed,
            "image": None if self.picture is None else self.picture.source,
            "fps": fps,
        }


def pictures(args: argparse.Namespace, trained: Trained, inputs: set[str]) -> list[Picture]:
    """The first frames that are asked for, or those of the data where the model needs some.

    Args:
        args: The command's arguments.
        trained: The model.
        inputs: What it takes: `image`, or `video` for several frames, which only data can give.

    Raises:
        UserError: The model takes no picture, or there is none.
    """
    from vgen.video.image import load_image

    spec = trained.model.clip_spec
    if args.image and args.from_data is not None:
        raise UserError("--image and --from-data exclude each other", "vgen sample")
    if "video" in inputs:
        if args.image:
            what = f"{type(trained.model).__name__} goes on behind {trained.model.past_frames} frames, not one picture"
            raise UserError(what, "--image", "take past frames of the data: --from-data N")
        return _first_frames(args, trained, trained.model.past_frames)
    if "image" not in inputs:
        if args.image or args.from_data is not None:
            raise UserError(f"{type(trained.model).__name__} takes no picture", "--image")
        return []
    if args.image:
        return [Picture(load_image(path, spec.height, spec.width), Path(path).name) for path in args.image]
    return _first_frames(args, trained)


def _first_frames(args: argparse.Namespace, trained: Trained, several: int | None = None) -> list[Picture]:
    """First frames of test clips, one or several of each, of as many different subjects as there are."""
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
    found = []
    for index in order[:count]:
        item = dataset[index]
        if isinstance(item, Exception):
            raise item
        found.append(Picture(to_float(item["video"][:, :several] if several else item["video"][:, 0]), item["path"]))
    return found


def words(args: argparse.Namespace, trained: Trained, named: bool) -> list[str | None]:
    """The class names or texts to generate; one None where the model takes neither.

    Raises:
        UserError: The model takes none, or both are asked for.
    """
    names = trained.model.clip_spec.class_names
    if args.label and args.text:
        raise UserError("--label and --text exclude each other", "vgen sample")
    if not named:
        if args.label or args.text:
            given = "--label" if args.label else "--text"
            raise UserError(f"{type(trained.model).__name__} is unconditional: it takes no class or text", given)
        return [None]
    if args.text:
        return list(args.text)
    if args.label:
        numbered = {str(index): name for index, name in enumerate(names)}
        return [label if label in names else numbered.get(label, label) for label in args.label]
    return list(names) or [None]


def combinations(given: Sequence[Picture], said: Sequence[str | None], seeds: Sequence[int]) -> list[Clip]:
    """Every picture with every seed with every word: clips of one picture and seed differ by the word alone."""
    clips: list[Clip] = []
    pictures_or_none: Sequence[Picture | None] = given or [None]
    for picture in pictures_or_none:
        for seed in seeds:
            for word in said:
                label = re.sub(r"[^\w-]+", "_", word or "clip").strip("_")[:40] or "clip"
                clips.append(Clip(f"{len(clips):04d}_{label}_{seed}", picture, word, seed))
    return clips
