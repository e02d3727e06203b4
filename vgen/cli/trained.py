"""What `sample`, `evaluate` and `export` open: the model of a run, and the data that the run was trained on."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from vgen.data.datamodules import VideoDataModule
    from vgen.weights.checkpoint import ModelFile


_MODEL = "run directory, stage directory, checkpoint, export or hub id"


def add_model_arguments(parser: argparse.ArgumentParser, device: bool = True, text: str = _MODEL) -> None:
    """Declares which model is meant."""
    parser.add_argument("run", metavar="RUN", help=text)
    parser.add_argument("--stage", help="stage of a run directory (default: the last one that is trained)")
    if device:
        parser.add_argument(
            "--weights",
            choices=("auto", "raw", "ema"),
            default="auto",
            help="auto: the averaged weights where the run kept them (default)",
        )
        parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")


def add_sampling_arguments(parser: argparse.ArgumentParser, batch: int) -> None:
    """Declares how clips are generated."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="sampler setting that differs from the model's, e.g. steps=20, guidance=2, sampler=DDIM; may be repeated",
    )
    parser.add_argument(
        "--batch", type=int, default=batch, metavar="N", help=f"clips at once; changes no clip (default: {batch})"
    )
    parser.add_argument(
        "--data-root", "--root", metavar="DIR", help="where the data lies (default: where the run found it)"
    )


@dataclass
class Trained:
    """An opened model.

    Args:
        model: The model in eval mode on its device.
        file: The file that it was built from.
        weights: Which weights it has.
        device: Where it is.
        folder: Where what is made with it belongs: run directory, export folder, or the working directory.
    """

    model: Any
    file: "ModelFile"
    weights: str
    device: str
    folder: Path


def open_trained(args: argparse.Namespace) -> Trained:
    """Builds the model that the arguments of `add_model_arguments` name.

    Raises:
        UserError: Nothing of that kind is there, or the device is not.
    """
    import torch

    from vgen.loading import locate
    from vgen.weights.checkpoint import WeightsChoice, build_model, read_model_file

    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    path = locate(args.run)
    file = read_model_file(path, args.stage)
    weights: WeightsChoice = args.weights if args.weights != "auto" else ("raw" if file.ema is None else "ema")
    model = build_model(file, weights)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"the device cannot be used: {str(error).splitlines()[0]}", f"--device {device}") from error
    # An export from the hub lies in its cache, which is no place to write to.
    folder = file.root if Path(args.run).exists() else Path()
    return Trained(model, file, weights, device, folder)


def read_options(given: list[str]) -> dict[str, Any]:
    """Reads `--option NAME=VALUE`: numbers, true and false, lists; `sampler=CLASS` becomes an object.

    Raises:
        UserError: An option without a value, or no such sampler.
    """
    options = read_values(given, "--option", "steps=20")
    if "sampler" in options:
        options["sampler"] = _sampler(options["sampler"])
    return options


def option_texts(given: list[str]) -> dict[str, str]:
    """Options NAME=VALUE as they were written, by their names: for the record of an evaluation."""
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def read_values(given: list[str], option: str, example: str) -> dict[str, Any]:
    """Reads the values of an option that may be repeated, each NAME=VALUE: numbers, true and false, lists, text.

    Raises:
        UserError: One without a value.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"{text!r} is no NAME=VALUE", option, f"for instance {option} {example}")
        try:
            values[name] = float(value)
            if values[name].is_integer() and value.strip().lstrip("+-").isdigit():
                values[name] = int(value)
        except ValueError:
            values[name] = yaml.safe_load(value)
    return values


def _sampler(name: Any) -> Any:
    from vgen import diffusion

    known = {
        key: value
        for key in diffusion.__all__
        if isinstance(value := getattr(diffusion, key), type)
        and issubclass(value, diffusion.Sampler)
        and value is not diffusion.Sampler
    }
    short = str(name).rpartition(".")[2]
    if short not in known:
        hint = did_you_mean(short, known) or f"there: {', '.join(known)}"
        raise UserError(f"no sampler {name!r}", "--option sampler", hint)
    return known[short]()


def stage_config(file: "ModelFile") -> dict[str, Any]:
    """The saved configuration of the stage that a model comes from; empty where there is none."""
    from vgen.cli.recipe import load_yaml

    stage = file.header.get("stage")
    for path in (file.root / str(stage) / "config.yaml", file.root / "config.yaml"):
        if path.is_file():
            return dict((load_yaml(path).get("stages") or {}).get(stage) or {})
    return {}


def open_data(
    file: "ModelFile", data_root: str | None = None, changes: dict[str, Any] | None = None
) -> "VideoDataModule":
    """Builds the data of the stage that a model comes from.

    Args:
        file: The model's file, in a run directory that `vgen fit` wrote.
        data_root: Where the data lies now; None: where the run found it.
        changes: Constructor arguments that are to differ from the run's.

    Raises:
        UserError: The run names no data, or it is not there any more.
    """
    config = stage_config(file).get("data")
    if not config:
        raise UserError(
            "nothing says which data this model was trained on (no config.yaml of a `vgen fit`)",
            str(file.root),
            "give the run directory, or first frames by --image",
        )
    moved = {} if data_root is None else {"root": data_root, "packed": None}
    init_args = {**(config.get("init_args") or {}), **moved, **(changes or {})}
    return find_data(build_data({**config, "init_args": init_args}, str(file.root / "config.yaml")))


def find_data(data: "VideoDataModule") -> "VideoDataModule":
    """Returns the data, which is there.

    Raises:
        UserError: It is not.
    """
    try:
        _ = data.clip_spec  # looks for the folder
    except UserError as error:
        hint = "name its place now: --data-root DIR" + (f" ({error.hint})" if error.hint else "")
        raise UserError(error.what, error.where, hint) from error
    return data


def build_data(config: dict[str, Any], where: str) -> "VideoDataModule":
    """Builds a DataModule from `{"class_path", "init_args"}`.

    Args:
        config: The class and its arguments, as a recipe has them.
        where: Where they come from, for messages.

    Raises:
        UserError: An argument does not fit the class.
    """
    from lightning.pytorch.cli import LightningArgumentParser

    from vgen.cli.explain import explain
    from vgen.data.datamodules import VideoDataModule

    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    try:
        parsed = parser.parse_object({"data": config})
    except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        raise explain(str(error), where) from error
    data: VideoDataModule = parser.instantiate_classes(parsed).data
    return data


def model_inputs(model: Any) -> set[str]:
    """Which conditions a model takes from a batch: a subset of `image`, `label`, `text`, `subject`, ..."""
    import torch

    spec = model.clip_spec
    blank: dict[str, Any] = dict.fromkeys(spec.condition_keys)
    blank["video"] = torch.zeros(1, spec.channels, spec.frames, spec.height, spec.width)
    return set(model.conditions(blank))
