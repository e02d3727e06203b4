"""Recipes made equal: shrunk by their tiny overlays, on the benchmark's clips, for the same budget."""

import copy
import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vgen.cli.benchmark.clips import BenchmarkClips
from vgen.cli.commands.models import recipe_folder
from vgen.cli.parser import parse
from vgen.cli.recipe import read_command_line
from vgen.cli.stages import STAGE
from vgen.cli.trained import build_data
from vgen.data.presets import Preset
from vgen.errors import UserError, did_you_mean
from vgen.weights.checkpoint import instantiate

Unit = Literal["clips", "steps", "seconds"]
Stages = dict[str, dict[str, Any]]
# How a stage reads its clips is its own; which clips these are is the benchmark's.
_OF_THE_STAGE = ("batch_size", "eval_batch_size", "num_workers", "repeats", "val_clips", "pin_memory")
# Callbacks that look at the model while it trains: their time is no training, and the benchmark looks at the end.
_LOOKING = ("SampleLogger", "Evaluate")
# Arguments of learning-rate schedules that are lengths, in steps or epochs.
_LENGTHS = (
    "total_steps", "warmup_steps", "num_training_steps", "num_warmup_steps", "step_size", "milestones", "total_iters",
    "T_max", "T_0",
)  # fmt: skip
# Arguments in which a network says the side of the frames again, as a number or as height and width.
_SIDES = ("size", "resolution")
# Arguments in which it says the number of frames again.
_COUNTS = ("video_timesteps",)
_EPOCHS = 1000  # what Lightning trains for where a recipe names no end
_SAVES = 8  # checkpoints in a stage's training: a kill costs at most that share


@dataclass(frozen=True)
class Budget:
    """What every recipe is given, over all its stages.

    Args:
        unit: `clips` seen, optimiser `steps`, or `seconds` of training.
        amount: How many.
    """

    unit: Unit
    amount: float


@dataclass(frozen=True)
class Length:
    """How long a recipe itself trains a stage.

    Args:
        steps: Optimiser steps.
        clips: Clips of one step.
    """

    steps: int
    clips: int


def find_recipe(name: str) -> Path:
    """The file of a recipe that is named by its path, or by its name in `lightning_configs`.

    Raises:
        UserError: There is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise UserError("no such recipe", str(path))
        return path
    folder = recipe_folder()
    known = {found.stem: found for found in sorted(folder.glob("*.yaml"))} if folder is not None else {}
    if name not in known:
        hint = did_you_mean(name, known) or f"there: {', '.join(known) or 'none'}; or a path to a .yaml file"
        raise UserError(f"no recipe {name!r}", "--recipes", hint)
    return known[name]


def read_recipe(path: Path) -> tuple[Stages, bool]:
    """The stages of a recipe under its tiny overlay, complete and as plain data, and whether it has such an overlay.

    Raises:
        UserError: The recipe is wrong.
    """
    overlay = path.parent / "tiny" / path.name
    files = [path, overlay] if overlay.is_file() else [path]
    config, _ = parse(read_command_line("fit", [word for file in files for word in ("--config", str(file))]))
    return config["stages"], overlay.is_file()


def own_lengths(stages: Stages, train_clips: int) -> dict[str, Length]:
    """How long the recipe itself trains each stage, on a training set of so many clips.

    Raises:
        UserError: A stage has no end.
    """
    found = {}
    for name, stage in stages.items():
        trainer, reading = stage["trainer"], _arguments(stage["data"])
        clips = int(reading.get("batch_size") or 1) * int(trainer.get("accumulate_grad_batches") or 1)
        epoch = max(1, train_clips * int(reading.get("repeats") or 1) // clips)
        steps, epochs = trainer.get("max_steps"), trainer.get("max_epochs")
        if epochs is None and steps in (None, -1):
            epochs = _EPOCHS
        ends = [
            *([int(steps)] if steps not in (None, -1) else []),
            *([epochs * epoch] if epochs not in (None, -1) else []),
        ]
        if not ends:
            raise UserError(
                "the training has no end, and so no share of the budget", f"stages.{name}.trainer.max_steps"
            )
        found[name] = Length(max(1, min(ends)), clips)
    return found


def share(lengths: Mapping[str, Length], budget: Budget, pace: Mapping[str, float] | None = None) -> dict[str, int]:
    """Optimiser steps of each stage: the recipe's own, all stretched or shrunk by the factor that spends the budget.

    Args:
        lengths: The recipe's own.
        budget: To spend.
        pace: Seconds of one step of each stage, for a budget of seconds.
    """
    cost = {
        name: length.steps * {"clips": length.clips, "steps": 1, "seconds": (pace or {}).get(name, 0.0)}[budget.unit]
        for name, length in lengths.items()
    }
    factor = budget.amount / sum(cost.values())
    return {name: max(1, round(length.steps * factor)) for name, length in lengths.items()}


def adapt(
    stages: Stages, clips: BenchmarkClips, steps: Mapping[str, int], seed: int, accelerator: Literal["cpu", "gpu"]
) -> Stages:
    """A recipe's stages on the benchmark's clips, each for so many steps, on one device.

    A stage that reads clips of another length than the one that generates (pairs of frames, single pictures) keeps
    that length and its own choice of frames; everything else about the clips is the benchmark's. Learning-rate
    schedules are stretched with the training, and networks that state size or number of the frames are made for the
    benchmark's. Nothing is drawn or validated meanwhile, except for a `best.ckpt`.

    Raises:
        UserError: A stage reads more frames than the clips have.
    """
    own = own_lengths(stages, len(clips.module.dataset("train")))
    generated = _generated_frames(stages)
    adapted = copy.deepcopy(stages)
    for name, stage in adapted.items():
        stage["seed_everything"] = seed
        reading = _arguments(stage["data"])
        _restate(stage["model"], _SIDES, reading.get("size"), clips.size)
        if reading.get("frames") == generated:
            _restate(stage["model"], _COUNTS, generated, clips.frames)
        stage["data"] = _data(stage["data"], clips, generated, seed, f"stages.{name}.data")
        stage["trainer"] |= _trainer(stage["trainer"], steps[name], accelerator)
        for schedule in _schedules(stage["model"]):
            _stretch(schedule, steps[name] / own[name].steps)
        arguments = _arguments(stage["model"])
        if arguments.get("cache_latents"):  # encoding the whole set pays where each clip is read more than once
            seen = steps[name] * own[name].clips
            arguments["cache_latents"] = clips.module.repeatable and seen > len(clips.module.dataset("train"))
    return adapted


def check(stages: Stages) -> None:
    """Builds what can be built before anything is trained: the data of every stage, and the models without a handoff.

    Raises:
        UserError: Names what does not fit: sizes, frames, channels, classes.
    """
    for name, stage in stages.items():
        spec = build_data(stage["data"], f"stages.{name}.data").clip_spec
        if not _mentions(stage["model"], STAGE):
            instantiate(stage["model"], spec, f"stages.{name}.model")


def _arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    return entry.get("init_args") or {}


def _class(entry: Mapping[str, Any]) -> Any:
    module, _, name = entry["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def _generated_frames(stages: Stages) -> int | None:
    """Frames of the clips of the last stage that generates; None where none does."""
    frames = [_arguments(s["data"]).get("frames") for s in stages.values() if hasattr(_class(s["model"]), "sample")]
    return frames[-1] if frames else None


def _data(
    entry: Mapping[str, Any], clips: BenchmarkClips, generated: int | None, seed: int, where: str
) -> dict[str, Any]:
    own, changes = _arguments(entry), {"seed": seed}
    changes |= {key: own[key] for key in _OF_THE_STAGE if own.get(key) is not None}
    frames = own.get("frames")
    if frames is not None and frames != generated:
        if frames > clips.frames:
            what = f"the stage reads {frames} frames, and the benchmark's clips have {clips.frames}"
            raise UserError(what, where, f"--frames {frames}")
        module = _class(entry)
        preset = module.presets.get(own.get("preset"), Preset(""))
        changes |= {"frames": frames, "sampling": own.get("sampling") or preset.sampling or module.own_sampling}
    return clips.config(changes)


def _trainer(own: Mapping[str, Any], steps: int, accelerator: str) -> dict[str, Any]:
    callbacks = [c for c in own.get("callbacks") or [] if _name(c) not in (*_LOOKING, "Checkpoint")]
    saving = next((_arguments(c) for c in own.get("callbacks") or [] if _name(c) == "Checkpoint"), {})
    monitored = saving.get("monitor") is not None
    checkpoint = {**saving, "every_n_steps": max(1, -(-steps // _SAVES)), "every_n_minutes": None}
    return {
        "accelerator": accelerator,
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
        "max_steps": steps,
        "max_epochs": None,
        "max_time": None,
        "min_steps": None,
        "min_epochs": None,
        "num_sanity_val_steps": 0,
        "limit_val_batches": None if monitored else 0,
        "val_check_interval": steps,
        "check_val_every_n_epoch": None,
        # A divisor, so that the last row of the log tells the whole time.
        "log_every_n_steps": next(n for n in range(max(1, steps // 20), 0, -1) if steps % n == 0),
        "callbacks": [{"class_path": "vgen.callbacks.Checkpoint", "init_args": checkpoint}, *callbacks],
    }


def _name(callback: Mapping[str, Any]) -> str:
    return str(callback["class_path"]).rpartition(".")[2]


def _schedules(value: Any) -> Iterator[dict[str, Any]]:
    """Every learning-rate schedule in a model's configuration."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if "lr_scheduler" in key and isinstance(inner, dict):
            yield inner
        else:
            yield from _schedules(inner)


def _stretch(schedule: dict[str, Any], factor: float) -> None:
    def scaled(length: int) -> int:
        return max(1, round(length * factor))

    for key, value in _arguments(schedule).items():
        if key in _LENGTHS and value is not None:
            schedule["init_args"][key] = [scaled(v) for v in value] if isinstance(value, list) else scaled(value)


def _restate(value: Any, names: Collection[str], own: int | None, new: int) -> None:
    """Puts the benchmark's size wherever a model's configuration repeats, under such a name, that of its own data."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key in names and own is not None and inner in (own, [own, own]):
            value[key] = [new, new] if isinstance(inner, list) else new
        else:
            _restate(inner, names, own, new)


def _mentions(value: Any, text: str) -> bool:
    if isinstance(value, dict | list):
        return any(_mentions(inner, text) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value.startswith(text)
