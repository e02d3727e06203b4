"""`vgen data`: make tiny sets, check, pack, and cut labelled motions from own videos."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from vgen.errors import UserError, did_you_mean

# The keys of vgen.data.datamodules.DATA_SETS and vgen.data.fake.WRITERS, which load slowly.
SETS = (
    "bair", "cityscapes", "clevrer", "faceforensics", "folder", "kinetics600", "kth", "mhad", "moving_digits",
    "moving_mnist", "mug", "natops", "skytimelapse", "taichi", "ucf101",
)  # fmt: skip
FAKE = tuple(name for name in SETS if name != "moving_digits")  # that one has no files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-commands and their arguments."""
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    fake = commands.add_parser("make-fake", help="write a tiny drawn set in the layout and codec of a real one")
    fake.add_argument("dataset", choices=FAKE, help="whose layout")
    fake.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    fake.add_argument("--size", type=int, metavar="PX", help="height of the pictures (default: the set's own)")
    fake.add_argument("--subjects", type=int, metavar="N", help="persons or scenes, some of each official set")
    fake.add_argument("--takes", type=int, metavar="N", help="clips of each person and class, or of each scene")
    fake.add_argument(
        "--metadata", action="store_true", help="folder: one folder and a metadata.csv instead of classes"
    )
    fake.add_argument("--captions", action="store_true", help="folder: a text file with a caption beside every clip")
    fake.add_argument("--seed", type=int, default=0, help="decides every picture (default: 0)")
    fake.add_argument("--processes", type=int, default=1, metavar="N", help="mug: drawing processes (default: 1)")

    check = commands.add_parser("check", help="name damaged, short, lying, odd-sized and doubled files; exit code 1")
    check.add_argument("root", type=Path, help="folder of video files and frame folders")
    check.add_argument("--dataset", choices=SETS, help="only the clips that this DataModule would read")
    check.add_argument("--variant", help="variant of the set, where it has some (default: its first)")
    check.add_argument("--min-frames", type=int, default=2, metavar="N", help="shorter clips are named (default: 2)")

    pack = commands.add_parser("pack", help="decode a set once into one file that is mapped into memory")
    pack.add_argument("dataset", choices=SETS, help="its DataModule")
    pack.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="folder of the set, where it has one")
    pack.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    pack.add_argument("--variant", help="variant of the set, where it has some (default: its first)")
    pack.add_argument("--size", default="native", metavar="PX|native", help="side in pixels (default: native)")
    pack.add_argument("--preset", help="whose preparation: the preset that recipes will name")
    pack.add_argument("--resize", help="how frames get their size (default: as the preset or the DataModule)")
    pack.add_argument("--filter", help="with which filter (default: the same)")
    pack.add_argument("--processes", type=int, default=1, metavar="N", help="shards at the same time (default: 1)")
    pack.add_argument("--shard-mb", type=int, default=256, metavar="MB", help="size of a shard (default: 256)")

    motions = commands.add_parser("make-motions", help="cut a labelled set of camera motions from own videos")
    motions.add_argument("--videos", nargs="+", required=True, type=Path, metavar="FILE", help="source videos")
    motions.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    motions.add_argument("--size", type=int, default=64, metavar="PX", help="side of the clips (default: 64)")
    motions.add_argument("--frames", type=int, default=16, metavar="N", help="frames of a clip (default: 16)")
    motions.add_argument("--max-regions", type=int, default=240, metavar="N", help="per video (default: 240)")
    motions.add_argument("--seed", type=int, default=0, help="decides the strengths of motion (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen sub-command.

    Returns:
        Exit code: 0, or 1 where `check` found something.
    """
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "make-fake": make_fake,
        "check": check,
        "pack": pack,
        "make-motions": make_motions,
    }
    return commands[args.data_command](args)


def make_fake(args: argparse.Namespace) -> int:
    """Writes a tiny set."""
    from vgen.data import fake

    if args.out.exists() and any(args.out.iterdir()):
        raise UserError("the folder is not empty", where=str(args.out), hint="choose a new one")
    for name in ("size", "subjects", "takes"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"must be at least 1, got {value}", where=f"--{name}")
    given = {name: getattr(args, name) for name in ("size", "subjects", "takes") if getattr(args, name) is not None}
    own = {"folder": ("metadata", "captions"), "mug": ("processes",)}.get(args.dataset, ())
    given.update({name: getattr(args, name) for name in own})
    if "size" in given and args.dataset in ("bair", "moving_mnist"):
        raise UserError(f"pictures of {args.dataset} have one fixed size", where="--size")
    fake.WRITERS[args.dataset](args.out, seed=args.seed, **given)
    files = [p for p in args.out.rglob("*") if p.is_file()]
    print(f"wrote {len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB, to {args.out}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Names what is wrong with a set."""
    from vgen.data.check import check_videos, find_videos

    others: Counter[str] = Counter()
    tools: dict[str, Any] = {}
    if args.dataset:
        module = _module(args.dataset, args.root, args.variant)
        paths, tools = module.files(), {"look": module.look, "examine": module.examine}
        if not paths:
            print(f"{len(module.find_clips())} clips, drawn while reading: there are no files to check")
            return 0
    else:
        paths, others = find_videos(args.root)
    if not paths:
        raise UserError("no video file or frame folder", where=str(args.root))
    findings = check_videos(args.root, paths, args.min_frames, _progress("checked"), **tools)
    for finding in findings:
        print(finding)
    if others:
        print("passed over, as no clips: " + ", ".join(f"{n} x {suffix}" for suffix, n in others.most_common(8)))
    wrong = len({finding.path for finding in findings})
    print(
        f"{len(paths)} clips checked, {wrong} with something to mend"
        if wrong
        else f"{len(paths)} clips checked, all well"
    )
    return 1 if findings else 0


def pack(args: argparse.Namespace) -> int:
    """Packs a set."""
    from vgen.data.packing import pack as pack_clips
    from vgen.data.transforms import Filter, Resize

    for name, known in (("resize", get_args(Resize)), ("filter", get_args(Filter))):
        if (word := getattr(args, name)) is not None and word not in known:
            raise UserError(f"{word!r} is none of {', '.join(known)}", f"--{name}", did_you_mean(word, known))
    for name in ("processes", "shard_mb"):
        if getattr(args, name) < 1:
            raise UserError(f"must be at least 1, got {getattr(args, name)}", f"--{name.replace('_', '-')}")
    if args.size != "native" and not (args.size.isdigit() and int(args.size) > 0):
        raise UserError(f"{args.size!r} is neither a number of pixels nor 'native'", where="--size")
    module = _module(args.dataset, args.root, args.variant, preset=args.preset, resize=args.resize, filter=args.filter)
    packed = pack_clips(
        module.index,
        module.reader(),
        args.out,
        module.clip_spec.class_names,
        module.clip_spec.fps,
        side=None if args.size == "native" else int(args.size),
        resize_mode=module.resize,
        crop=module.crop,
        progress=_progress("packed"),
        filter=module.filter,
        processes=args.processes,
        shard_bytes=args.shard_mb << 20,
        variant=module.variant,
    )
    size = sum(shard.stat().st_size for shard in args.out.glob("shard-*.u8")) / 1e6
    print(f"{len(packed.index.records)} clips, {size:.1f} MB, in {args.out}; use it as data.init_args.packed")
    if packed.index.bad:
        print(f"{len(packed.index.bad)} clips cannot be read and were left out; `vgen data check` names them")
    return 0


def make_motions(args: argparse.Namespace) -> int:
    """Cuts a set of camera motions."""
    from vgen.data.motions import make_motions as cut

    counts = cut(args.videos, args.out, args.size, args.frames, args.max_regions, args.seed)
    for name, count in sorted(counts.items()):
        print(f"{count:6d}  {name}")
    return 0


def _module(dataset: str, root: Path, variant: str | None, **more: Any):  # type: ignore[no-untyped-def]  # noqa: ANN202 (its module loads slowly)
    from vgen.data.datamodules import DATA_SETS

    if not root.is_dir():
        raise UserError("no such folder", where=str(root))
    # Training clips of Moving MNIST are other ones in every epoch, unless it is told to stay with the first.
    more = {**more, "fresh": False} if dataset == "moving_mnist" else more
    return DATA_SETS[dataset](root=str(root), size=64, frames=1, variant=variant, **more)


def _progress(word: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() and (done % 20 == 0 or done == total):
            print(f"\r{word} {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
