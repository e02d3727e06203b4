"""`vgen evaluate`: measure generated videos against real ones under a named protocol.

vgen evaluate GENERATED --real DIR --protocol NAME: two folders of videos or frame folders.
vgen evaluate GENERATED --data NAME --root DIR --protocol NAME: a folder and a data set (or a recipe's).
vgen evaluate RUN --protocol NAME: a run, checkpoint or export, which samples by itself, on all ranks of torchrun;
the same command goes on after a kill.
vgen evaluate RUN --best-of 100: a run that predicts behind past frames, by its best prediction of each held-out clip.
vgen evaluate RUN: an image-to-video run with classes, on held-out clips, by a compact classifier.
"""

import argparse

from vgen.cli.trained import add_model_arguments, add_sampling_arguments
from vgen.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    text = "folder of generated videos; or a run directory, stage directory, checkpoint, export or hub id"
    add_model_arguments(parser, text=text)
    parser.add_argument(
        "--clips", type=int, metavar="N", help="generated clips (default: the protocol's; without a protocol: 112)"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses clips, requested classes and noise (default: 0)")
    add_sampling_arguments(parser, batch=16)
    parser.add_argument("--name", help="the result is NAME.json (default: the protocol's name, or image_to_video)")

    best = parser.add_argument_group("predictions")
    best.add_argument("--best-of", type=int, metavar="N", help="draws for each clip, of which the best counts")
    best.add_argument("--frames", type=int, metavar="T", help="past and predicted frames (default: as trained)")
    best.add_argument(
        "--similarity",
        choices=("svg", "finn"),
        default="svg",
        help="SSIM of SVG's released code (7x7 windows, range 2) or of Finn et al. (11x11 Gaussian, range 1)",
    )

    how = parser.add_argument_group("under a protocol")
    how.add_argument("--protocol", metavar="NAME|FILE", help="one that vgen ships, or a .yaml file of your own")
    how.add_argument(
        "--change", action="append", default=[], metavar="KEY=VALUE", help="another value; the result is named after it"
    )
    how.add_argument("--metrics", nargs="+", metavar="NAME", help="instead of the protocol's")
    how.add_argument(
        "--detector",
        action="append",
        default=[],
        metavar="[ROLE=]WHAT",
        help="instead of the published network: random, small (trained on the data's classes), or a file; role: i3d",
    )
    how.add_argument("--real", metavar="DIR", help="folder of real videos or frame folders")
    how.add_argument("--data", metavar="NAME|RECIPE", help="data set: its short name or class, or a recipe that has it")
    how.add_argument(
        "--data-option", action="append", default=[], metavar="KEY=VALUE", help="argument of the data set: preset=tats"
    )
    how.add_argument("--split", help="which part of the data is real (default: the protocol's)")
    how.add_argument("--no-floor", action="store_true", help="leave out the distance of real to real clips")
    how.add_argument(
        "--training-clips",
        type=int,
        default=2048,
        metavar="N",
        help="most training clips among which neighbours are looked for; 0: none (default: 2048)",
    )
    how.add_argument("--keep-samples", action="store_true", help="keep the generated clips, also as mp4")
    how.add_argument("--workers", type=int, default=0, metavar="N", help="threads that read ahead (default: 0)")
    how.add_argument(
        "--cache", default="~/.cache/vgen/features", metavar="DIR", help="features of real clips; none: no cache"
    )
    how.add_argument("--out", metavar="DIR", help="folder of the results (default: evaluation, in the run or here)")

    compact = parser.add_argument_group("the compact classifier (without a protocol, or --detector small)")
    compact.add_argument(
        "--classifier-clips", type=int, default=1000, metavar="N", help="most training clips it sees (default: 1000)"
    )
    compact.add_argument(
        "--classifier-steps", type=int, default=200, metavar="N", help="steps of its training (default: 200)"
    )


def run(args: argparse.Namespace) -> int:
    """Measures, writes the result and prints a table.

    Raises:
        UserError: Something is missing, or does not fit.
    """
    if args.best_of is not None:
        if args.protocol is not None:
            raise UserError("--best-of is a protocol of its own", "--protocol")
        from vgen.cli.evaluation import best_of

        return best_of.run(args)
    if args.protocol is None:
        given = ("change", "metrics", "detector", "real", "data", "data_option", "split", "keep_samples", "out")
        if named := [name for name in given if getattr(args, name)]:
            from vgen.metrics.protocols import protocol_names

            hint = f"--protocol, one of {', '.join(protocol_names())}, or a .yaml file"
            raise UserError("which protocol?", f"--{named[0].replace('_', '-')}", hint)
        from vgen.cli.evaluation import image_to_video

        return image_to_video.run(args)
    from vgen.cli.evaluation import protocol

    return protocol.run(args)
