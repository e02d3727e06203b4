"""Runs the stages of a recipe, each one as a plain LightningCLI."""

import copy
import gc
import json
import logging
import signal
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vgen.callbacks import (
    AtomicCheckpointIO,
    Checkpoint,
    Clock,
    LineProgress,
    MetricsCSV,
    NonFinite,
    OptimizerStats,
    Provenance,
    ReplacedClips,
    StepSeed,
    TerminalProgress,
    Throughput,
)
from vgen.callbacks.predictions import PredictionWriter
from vgen.callbacks.preemption import Preempted, Preemption
from vgen.cli.commands.models import published_parameters
from vgen.cli.launch import RankWatch, agree, check_world, launch_id, started_again
from vgen.cli.parser import parse, stage_parser
from vgen.cli.recipe import CommandLine, read_command_line
from vgen.cli.stages import (
    Plan,
    begun_by,
    changed_keys,
    inherited_plan,
    make_plan,
    recipe_of_run,
    recorded_recipe,
    resolve_handoffs,
    run_directory,
    write_done,
)
from vgen.cli.tracking import end_runs, open_runs, wandb_arguments, wanted_unasked
from vgen.data.datamodules import VideoDataModule
from vgen.errors import UserError, did_you_mean
from vgen.files import remove_unfinished, write_text
from vgen.training import VideoModule
from vgen.weights import WarmStart
from vgen.weights.checkpoint import RUN_ID, instantiate, warm_start


class StageCLI(LightningCLI):
    """One stage: parsed from plain data, with the callbacks and loggers that every vgen run has.

    Args:
        stage: Name of the stage.
        config: Plain configuration of the stage.
        stage_dir: Folder of its files.
        command: `fit`, `validate`, `test` or `predict`.
        fresh: Whether what is in the folder is about to be deleted.
        child: Whether a process that lives as long as the training has started this one.

    Attributes:
        wandb_id: Id of the stage's W&B run, where it has one.
    """

    model: VideoModule
    wandb_id: str | None = None

    def __init__(
        self,
        stage: str,
        config: dict[str, Any],
        stage_dir: Path,
        command: str,
        fresh: bool = False,
        child: bool = False,
    ) -> None:
        self.stage, self.stage_config, self.stage_dir, self.command = stage, config, stage_dir, command
        self.fresh, self.child = fresh, child
        super().__init__(
            save_config_callback=None, auto_configure_optimizers=False, run=False, load_from_checkpoint_support=False
        )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """The parser of one stage."""
        self.parser = stage_parser()

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """The configuration was parsed before, with all stages; here it comes as data."""
        self.config = parser.parse_object(copy.deepcopy(self.stage_config))

    def instantiate_classes(self) -> None:
        """Builds data, model and trainer; the model gets the clip specification of the data."""
        without_model = self.config.clone()
        without_model.pop("model")
        self.config_init = self.parser.instantiate_classes(without_model)
        self.datamodule = self.config_init["data"]
        where = f"stages.{self.stage}.model"
        self.model = cast(VideoModule, instantiate(self.stage_config["model"], self.datamodule.clip_spec, where))
        self.model.run_dir, self.model.stage_name = str(self.stage_dir.parent), self.stage
        # Exactly what the recipe says: also for classes that do not record their own arguments.
        self.model.configuration = self.stage_config["model"].get("init_args") or {}
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds what every run has: seeds per step, checkpoints, numbers, provenance, progress."""
        config = dict(self.config_init["trainer"])
        callbacks = list(config.pop("callbacks", None) or [])
        terminal = sys.stdout.isatty() and sys.stderr.isatty()
        seed = int(self.config.get("seed_everything", 0))
        extra: list[Any] = [StepSeed(seed), Throughput()]
        if self.command == "fit":
            extra += [NonFinite(), ReplacedClips()]
            published = published_parameters(type(self.model))
            extra += [Provenance(self.stage_config, published)] if not config.get("fast_dev_run") else []
            if not any(isinstance(c, ProgressBar) for c in callbacks):
                bar = terminal and config.get("enable_progress_bar") is not False
                extra.append(TerminalProgress() if bar else LineProgress())
            config["profiler"] = config.get("profiler") or Clock()
            extra.append(RankWatch(self.child))
            if config.get("enable_checkpointing") is not False:
                extra += [] if any(isinstance(c, Checkpoint) for c in callbacks) else [Checkpoint()]
                extra.append(Preemption())
        if self.command == "predict":
            extra.append(PredictionWriter())
        present = {type(c) for c in callbacks}
        callbacks += [c for c in extra if type(c) not in present]
        if OptimizerStats not in present:
            callbacks.insert(0, OptimizerStats())  # it sees the gradients before NonFinite takes them away
        plugins = config.pop("plugins", None) or []
        config |= {
            "callbacks": callbacks,
            "logger": self._loggers(config.get("logger")),
            "plugins": [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()],
            "default_root_dir": str(self.stage_dir),
        }
        if config.get("enable_progress_bar") is None:
            config["enable_progress_bar"] = terminal
        if config.get("enable_model_summary") is None:
            config["enable_model_summary"] = terminal
        try:
            return Trainer(**(config | kwargs))
        except (MisconfigurationException, ImportError, ValueError) as error:
            raise UserError(" ".join(str(error).split())[:200], f"stages.{self.stage}.trainer") from error

    def _loggers(self, configured: Any) -> list[Logger] | bool:
        if configured is False:
            return False
        loggers = [x for x in (configured if isinstance(configured, list) else [configured]) if isinstance(x, Logger)]
        if self.command != "fit":
            return loggers
        if not any(isinstance(x, WandbLogger) for x in loggers) and wanted_unasked():
            loggers.append(WandbLogger(**self._wandb_arguments({})))
        return [*loggers, MetricsCSV(str(self.stage_dir))]

    def before_instantiate_classes(self) -> None:
        """Gives every W&B logger of the recipe this run's name, group, folder and a key-less fallback to offline."""
        logger = self.config.trainer.get("logger")
        for entry in logger if isinstance(logger, list) else [logger]:
            if getattr(entry, "class_path", "") and entry.class_path.endswith("WandbLogger"):
                for key, value in self._wandb_arguments(entry.init_args.as_dict()).items():
                    entry.init_args[key] = value

    def _wandb_arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        arguments = wandb_arguments(given, self.stage_dir, self.fresh)
        self.wandb_id = arguments["id"]
        return arguments


def fit(args: list[str]) -> None:
    """Trains the stages that are pending, one after another."""

    @cache
    def read() -> tuple[CommandLine, dict[str, Any]]:
        line = read_command_line("fit", args)
        return line, parse(line)[0]

    plan = inherited_plan()
    child = plan is not None or TorchElasticEnvironment.detect()
    plan = plan or Plan.from_json(agree(lambda: _decide(*read()).to_json()))
    plan.publish()
    _, config = read()
    recorded = recorded_recipe(Path(plan.run_dir))
    for stage in plan.stages:
        if _rank() == 0 and stage in recorded and not plan.delete:
            _say_what_changed(plan, stage, changed_keys(recorded[stage], config["stages"][stage]))
        if stage in plan.pending:
            _fit_stage(plan, stage, config, child)
        elif (plan.stage_dir(stage) / "done.json").is_file() and _rank() == 0:
            print(f"[{stage}] already trained ({plan.stage_dir(stage)})", flush=True)


def _decide(line: CommandLine, config: dict[str, Any]) -> Plan:
    """Makes the plan, and looks for the data of every stage that is going to be trained."""
    run_dir, options, launch = run_directory(config, line.config_paths[0]), line.options, launch_id()
    if started_again() and begun_by(launch, run_dir):
        options = options | {"resume": True, "overwrite": False}
        print("started again by the launcher: going on as with --resume", flush=True)
    plan = make_plan(config, run_dir, **options)
    plan.launch = launch
    for stage in plan.pending:
        _check_data(stage, config["stages"][stage])
    return plan


def _say_what_changed(plan: Plan, stage: str, keys: list[str]) -> None:
    if not keys or not (plan.stage_dir(stage) / "checkpoints").is_dir():
        return
    shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    goes = "goes on with other settings than before" if stage in plan.pending else "kept as trained, but now differ"
    print(f"[{stage}] {goes}: {shown}", flush=True)


def _rank() -> int:
    """Rank of this process, also before a trainer has set up its group."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _check_data(stage: str, config: dict[str, Any]) -> None:
    """Opens the data of a stage that may be trained hours from now: what is missing is said before the first one."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VideoDataModule, "data", required=True)
    try:
        _ = parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data.clip_spec
    except UserError as error:
        raise UserError(error.what, f"{error.where} (stages.{stage}.data)", error.hint) from error


def _fit_stage(plan: Plan, stage: str, whole: dict[str, Any], child: bool) -> None:
    stage_dir, config = plan.stage_dir(stage), whole["stages"][stage]
    resolved = resolve_handoffs(config, plan.stages, stage, Path(plan.run_dir))
    going_on = stage in plan.resume
    cli = StageCLI(stage, resolved, stage_dir, "fit", fresh=bool(plan.delete), child=child)
    check_world(cli.trainer.world_size, stage)
    cli.model.run_id = plan.ids[stage]
    if cli.config_init.get("init_from") is not None and not going_on:
        start: WarmStart = cli.config_init["init_from"]
        names = warm_start(cli.model, start)
        if _rank() == 0:
            print(f"[{stage}] warm start: {len(names)} tensors from {start.path}", flush=True)
    if _rank() == 0:
        plan.make_room()
        (stage_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        for folder in (stage_dir, stage_dir / "checkpoints"):
            remove_unfinished(folder)
        write_text(Path(plan.run_dir, "config.yaml"), dump(recipe_of_run(plan, whole)))
        if (run_id := plan.ids[stage]) is not None:
            write_text(stage_dir / RUN_ID, run_id + "\n")
        if cli.wandb_id is not None:
            write_text(stage_dir / "wandb_id", cli.wandb_id)
        write_text(stage_dir / "config.yaml", dump({"run_dir": plan.run_dir, "stages": {stage: resolved}}))
    open_runs(cli.trainer.loggers)
    last = stage_dir / "checkpoints" / "last.ckpt"
    trainer, model = cli.trainer, cli.model
    try:
        trainer.fit(model, datamodule=cli.datamodule, ckpt_path=str(last) if going_on else None, weights_only=True)
    except Preempted as stop:
        end_runs(trainer.loggers)
        raise SystemExit(_code_of_rank(stop.code) if stop.agreed else stop.code) from None
    except SIGTERMException:  # Lightning's handler, before ours was in its place
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit:  # what Lightning makes of Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    trainer.strategy.barrier("vgen: stage trained")
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        if not last.is_file():
            raise UserError("the stage ended without a checkpoint", str(last), "is enable_checkpointing off?")
        write_done(stage_dir, config, trainer.global_step, model.clips_seen, _seconds(stage_dir))
    trainer.strategy.barrier("vgen: stage recorded")
    end_runs(trainer.loggers)
    plan.finished(stage)
    signum = next((c.stopping for c in trainer.callbacks if isinstance(c, Preemption)), 0)  # type: ignore[attr-defined]
    if signum and plan.pending:
        raise SystemExit(_code_of_rank(128 + signum))
    del cli, trainer, model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _code_of_rank(code: int) -> int:
    """Exit code of this rank when all ranks end early together: the first process's is the command's.

    A rank that Lightning has started leaves with 0: its watch would kill the first process, which may still be ending.
    """
    return 0 if inherited_plan() is not None else code


def _seconds(stage_dir: Path) -> float:
    """Training time so far, from the last row of the log."""
    import csv

    path = stage_dir / "metrics.csv"
    if not path.is_file():
        return 0.0
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return float(rows[-1]["seconds"]) if rows else 0.0


def evaluate(line: CommandLine, config: dict[str, Any]) -> None:
    """Runs `validate`, `test` or `predict` of one stage on its checkpoint in the run directory."""
    run_dir = run_directory(config, line.config_paths[0])
    stage = line.options["stage"] or line.stage_names[-1]
    if stage not in config["stages"]:
        raise UserError(f"unknown stage {stage!r}", "--stage", did_you_mean(stage, line.stage_names))
    last = run_dir / stage / "checkpoints" / "last.ckpt"
    if not last.is_file():
        raise UserError(
            f"stage {stage!r} has no checkpoint", str(last), "train it with `vgen fit`, or give its --run_dir"
        )
    resolved = resolve_handoffs(config["stages"][stage], line.stage_names, stage, run_dir)
    cli = StageCLI(stage, resolved, run_dir / stage, line.command)
    run = getattr(cli.trainer, line.command)
    # Predicted clips are written as they come; a set of them need not fit into memory.
    options = {"return_predictions": False} if line.command == "predict" else {}
    results = run(cli.model, datamodule=cli.datamodule, ckpt_path=str(last), weights_only=True, **options)
    if line.command != "predict" and cli.trainer.is_global_zero:
        print(json.dumps(results, indent=2))


def dump(config: dict[str, Any]) -> str:
    """YAML text of a plain configuration, keys in their order."""
    from vgen import __version__

    return f"# vgen=={__version__}\n" + yaml.safe_dump(config, sort_keys=False)


_EXPECTED = (
    "litlogger",  # an advertisement
    "GPU available",  # environment.json says what was used
    "TPU available",
    "on_after_batch_transfer",  # the module converts bytes to floats, by design
    "in eval mode at the start of training",  # frozen codecs
    "does not have many workers",  # tiny recipes read in the main process
    "exists and is not empty",  # checkpoints of the run that is resumed
)


def quiet_expected() -> None:
    """Leaves out the messages that are expected in every run; all others are shown."""
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec")  # lightning 2.6 calling torch 2.13
    warnings.filterwarnings("ignore", message=r"(?s).*instantiate_classes")  # renamed in jsonargparse 5
    for pattern in _EXPECTED:
        warnings.filterwarnings("ignore", message=f".*{pattern}")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not any(p in record.getMessage() for p in _EXPECTED))


def run_command(command: str, args: list[str]) -> int:
    """Runs `fit`, `validate`, `test` or `predict`; returns the exit code."""
    quiet_expected()
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; no effect on CPUs
    if command == "fit":
        fit(args)
    else:
        line = read_command_line(command, args)
        evaluate(line, parse(line)[0])
    return 0
