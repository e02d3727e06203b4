"""Entry point of the `vgen` command."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence

from vgen import __version__
from vgen.errors import UserError, did_you_mean
from vgen.files import WriteError, disk_error

TRAINING = ("fit", "validate", "test", "predict")
COMMANDS = {
    "sample": "generate videos from a run, checkpoint or export",
    "evaluate": "measure generated videos, or a run, against real ones",
    "benchmark": "train recipes at an equal small budget, print one table",
    "data": "make-fake | make-motions | check | pack a data set",
    "convert": "turn official checkpoint files into ours",
    "export": "write safetensors, config.json and a model card",
    "models": "list the families: parameters, parity, recipes, status",
    "report": "write a self-contained HTML report of runs",
    "schema": "write the JSON schema of recipes, for editors",
    "doctor": "check versions, devices, data, pretrained parts",
}
HELP = f"""vgen {__version__}: train, sample and compare video generative models

usage: vgen COMMAND [options]

training (LightningCLI; recipes of one or more stages, chained with checkpoint handoff)
  fit        --config RECIPE [--config OVERLAY ...] [--only STAGE] [--resume | --overwrite]
  validate   --config RECIPE [--stage STAGE]
  test       --config RECIPE [--stage STAGE]
  predict    --config RECIPE [--stage STAGE]

other commands
{chr(10).join(f"  {name:<10} {text}" for name, text in COMMANDS.items())}

examples
  vgen fit --config lightning_configs/lfdm_mug.yaml
  vgen fit --config lightning_configs/lfdm_mug.yaml --config lightning_configs/overlays/bf16.yaml --resume
  vgen fit --config my.yaml --stages.diffusion.model.denoiser.dim=32 --all_stages.trainer.devices=2
  vgen fit --config lightning_configs/lfdm_mug.yaml --print_config > my.yaml
  vgen sample runs/lfdm_mug --image face.png --label happiness --n 4

help of one command: vgen COMMAND --help; all settings of a recipe: vgen fit --config RECIPE --help_all
exit codes: 0 done, 1 the run failed, 2 a mistake in the command, config or data, 130 interrupted,
            143 SIGTERM and 138 SIGUSR1: saved; the same command with --resume goes on
"""
FIT_HELP = """usage: vgen {command} --config RECIPE [--config OVERLAY ...] [options]

  --config FILE              a recipe (first), then overlays that are stacked on it
  --run_dir DIR              folder of the run (default runs/<recipe>)
{specific}
  --stages.STAGE.KEY=VALUE   override one setting, e.g. --stages.diffusion.model.denoiser.dim=32
  --all_stages.KEY=VALUE     override it in every stage, e.g. --all_stages.trainer.precision=bf16-mixed
  --print_config             print the complete configuration and stop

all settings of a recipe's stages:  vgen {command} --config RECIPE --help_all
settings of one class:              vgen {command} --config RECIPE --stages.STAGE.model.help CLASS
"""
_FIT_OPTIONS = """  --only STAGE               train this stage alone
  --resume                   go on where the run stands (also starts a new run)
  --overwrite                delete what the run directory holds of these stages"""
_OTHER_OPTIONS = "  --stage STAGE              which stage (default the last one)"


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code (see HELP)."""
    arguments = list(sys.argv[1:] if args is None else args)
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"error: {_rank()}{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on (a training: with --resume)", file=sys.stderr)
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if (mistake := mistake_behind(error)) is not None:
            print(f"error: {_rank()}{mistake}", file=sys.stderr)
            return 2
        traceback.print_exc()
        if rank := _rank():
            print(f"error: {rank}{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", file=sys.stderr)
        return 1


def mistake_behind(error: Exception) -> UserError | None:
    """The mistake of the user's, or of the disk's, that an exception comes from; None where there is none.

    Lightning and torch wrap what a worker or callback raised.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    if cause is None and (reason := disk_error(error)) is not None:  # of a library's own files
        return WriteError(reason, getattr(error, "filename", None) or ".")
    return cause


def _rank() -> str:
    """`rank 1: ` where several processes train, whose messages come from all of them."""
    torch = sys.modules.get("torch")  # not imported by commands that need none
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ""
    return f"rank {torch.distributed.get_rank()}: " if torch.distributed.get_world_size() > 1 else ""


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in TRAINING:
        if not rest or {"-h", "--help"} & set(rest):
            print(FIT_HELP.format(command=name, specific=_FIT_OPTIONS if name == "fit" else _OTHER_OPTIONS))
            return 0
        from vgen.cli.run import run_command

        return run_command(name, ["--help" if a == "--help_all" else a for a in rest])
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}", "vgen", did_you_mean(name, [*TRAINING, *COMMANDS]))
    module = importlib.import_module(f"vgen.cli.commands.{name}")
    parser = argparse.ArgumentParser(prog=f"vgen {name}", description=module.__doc__)
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(rest)))


def console() -> None:
    """The `vgen` script."""
    sys.exit(main())


if __name__ == "__main__":
    console()
