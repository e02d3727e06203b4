"""`vgen sample`: generate videos from a run, checkpoint, export or hub id, as mp4 files and one grid of all.

With --frames beyond the training's clips, models that can (`Streams`) make long videos clip by clip, in constant
memory. The same command goes on after a kill, and torchrun parts the clips among its ranks.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.cli.trained import (
    Trained,
    add_model_arguments,
    add_sampling_arguments,
    model_inputs,
    open_trained,
    read_options,
)
from vgen.errors import UserError

if TYPE_CHECKING:
    from vgen.cli.sampling.clips import Clip


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


def run(args: argparse.Namespace) -> int:
    """Generates and writes the clips, on all ranks.

    Raises:
        UserError: Something that the model needs is missing, or it cannot generate.
    """
    from vgen.cli.process_group import process_group

    if args.n < 1 or args.batch < 1 or (args.frames or 1) < 1:
        raise UserError("--n, --batch and --frames must be at least 1")
    with process_group(args.device) as args.device:
        _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    from vgen.cli.sampling.clips import combinations, pictures, words
    from vgen.cli.sampling.grid import write_grid
    from vgen.cli.sampling.making import Maker
    from vgen.cli.sampling.pieces import PieceStore
    from vgen.metrics.ranks import raise_together, rank_and_size
    from vgen.video import ClipSpec, Samples

    options = read_options(args.option)
    trained = open_trained(args)
    spec: ClipSpec = trained.model.clip_spec
    if not isinstance(trained.model, Samples):
        several = args.stage or trained.file.path.name.endswith(".ckpt")
        hint = "an auto-encoder only reconstructs; name another --stage" if several else None
        raise UserError(f"{type(trained.model).__name__} does not generate clips", str(args.run), hint)
    inputs = model_inputs(trained.model)
    given = pictures(args, trained, inputs)
    said = words(args, trained, bool({"label", "text"} & inputs))
    clips = combinations(given, said, args.seeds or [args.seed + i for i in range(args.n)])
    out = args.out or trained.folder / "generated"
    frames = args.frames or spec.frames
    store = PieceStore(out, _settings(args, trained, clips, frames))
    first, error = rank_and_size()[0] == 0, None
    try:
        if first and store.claim([clip.name for clip in clips]):
            print(f"[sample] goes on where an earlier call in {out} stopped", flush=True)
    except Exception as raised:
        error = raised
    raise_together(error)
    try:
        Maker(trained.model, frames, options, bool(args.text), store).run(clips, args.batch, out)
    except Exception as raised:
        error = raised
    raise_together(error)
    if first:
        write_grid(args, trained, clips, store, out)
        store.delete()
        print(f"{len(clips)} clips, grid.mp4{' and grid.gif' if args.gif else ''} in {out}")


def _settings(args: argparse.Namespace, trained: Trained, clips: "list[Clip]", frames: int) -> dict[str, Any]:
    """Everything that decides the clips."""
    import hashlib

    from vgen.files import sha256

    pixels = [None if clip.picture is None else clip.picture.pixels.numpy().tobytes() for clip in clips]
    return {
        "model": {"sha256": sha256(trained.file.path), "weights": trained.weights, "header": trained.file.header},
        "options": args.option,
        "by_text": bool(args.text),
        "frames": frames,
        "batch": args.batch,
        "device": trained.device.partition(":")[0],
        "clips": [[clip.name, clip.word, clip.seed] for clip in clips],
        "pictures": [seen and hashlib.sha256(seen).hexdigest() for seen in pixels],
    }
