"""The parser of `vgen fit|validate|test|predict`: every stage is a fully typed LightningCLI config."""

import argparse
import re
from typing import Any

import yaml
from jsonargparse import ActionParser, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from torch import nn

import vgen.callbacks
import vgen.data.datamodules
import vgen.models  # noqa: F401  all three: recipes may name an imported class without its module
from vgen import __version__
from vgen.cli.explain import explain
from vgen.cli.recipe import CommandLine
from vgen.data.datamodules import VideoDataModule
from vgen.training import VideoModule
from vgen.weights import WarmStart


def stage_parser() -> LightningArgumentParser:
    """Parser of one stage: seed, trainer, model, data, init_from; the model's `clip_spec` comes from the data."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, noise and clip choice.")
    parser.add_lightning_class_args(Trainer, "trainer", required=False)
    # Lightning shards with a sampler that does not know which batches are done; our DataModules do both.
    parser.set_defaults({"trainer.use_distributed_sampler": False})
    parser.add_subclass_arguments(VideoModule, "model", required=True, skip={"clip_spec"})
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    parser.add_argument("--init_from", type=WarmStart | None, default=None, help="Trainable weights to begin with.")
    return parser


def command_parser(line: CommandLine) -> LightningArgumentParser:
    """Parser of a whole command: the stages, and what concerns the run."""
    parser = LightningArgumentParser(
        prog=f"vgen {line.command}",
        exit_on_error=False,
        allow_abbrev=False,  # `max_step` is a mistake, and not short for `max_steps`
        dump_header=[f"vgen=={__version__}"],
        print_config="--print_config",
    )
    parser.add_argument("-c", "--config", action="config", help="Recipe; further files are stacked on it.")
    parser.add_argument("--run_dir", type=str | None, default=None, help="Folder of the run; default runs/<recipe>.")
    for name in line.stage_names:
        parser.add_argument(f"--stages.{name}", action=ActionParser(parser=stage_parser()))
    return parser


def parse(line: CommandLine) -> tuple[dict[str, Any], LightningArgumentParser]:
    """Parses and validates a command line; returns the configuration as plain data.

    Raises:
        UserError: One line of what, one of where, and a hint.
        SystemExit: After `--help` or `--print_config`.
    """
    parser = command_parser(line)
    try:
        _class_help(line)
        config = parser.parse_args(line.arguments)
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        raise explain(str(error), f"vgen {line.command}") from error
    return to_plain(parser, config), parser


def _class_help(line: CommandLine) -> None:
    """Answers `--stages.STAGE.KEY.help CLASS`, which jsonargparse does not carry over from the stages' parsers."""
    for index, argument in enumerate(line.arguments):
        if match := re.fullmatch(r"--stages\.\w+\.(.+)\.help(=.*)?", argument):
            key, given = match.group(1), match.group(2)
            value = [given[1:]] if given else line.arguments[index + 1 : index + 2]
            parser = stage_parser()
            if f"--{key}.help" not in parser._option_string_actions:  # an object within a model
                parser = LightningArgumentParser(exit_on_error=False)
                parser.add_subclass_arguments(nn.Module, key)
            parser.parse_args([f"--{key}.help", *value])


def to_plain(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """The configuration as nested dicts of plain values, defaults included."""
    plain: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))
    plain.pop("config", None)
    return plain
