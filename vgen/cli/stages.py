"""The plan of a run: which stages are done, where each one's files lie, and what one stage takes over from another."""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vgen.errors import UserError, did_you_mean
from vgen.files import sha256, write_json, write_text
from vgen.weights.checkpoint import RUN_ID

STAGE = "stage://"
_PLAN_VARIABLE = "VGEN_PLAN"  # how processes that a launcher starts learn what the first one decided
_LAUNCH = ".launch"  # in a run directory: the launch that began what lies there
_GENERATED = ("config.yaml", "report.html", "evaluation", "generated")
_STOPPING = ("max_steps", "max_epochs", "max_time")


@dataclass
class Plan:
    """What a `fit` is going to do, decided once by the first process.

    Args:
        run_dir: Absolute run directory.
        stages: All stages of the recipe in order.
        pending: Stages that are to be trained now.
        resume: Stages whose `last.ckpt` is to be continued.
        delete: Files and folders that make room (`--overwrite`) once the first stage is known to start.
        launch: What tells a launcher's use of this command from its next one (see `vgen.cli.launch`).
        ids: Which training each pending stage is; None for one that an earlier vgen began.
    """

    run_dir: str
    stages: list[str]
    pending: list[str]
    resume: list[str]
    delete: list[str] = field(default_factory=list)
    launch: str | None = None
    ids: dict[str, str | None] = field(default_factory=dict)

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage."""
        return Path(self.run_dir) / stage

    def finished(self, stage: str) -> None:
        """Takes a stage off the plan, also for processes that are started from now on."""
        self.pending.remove(stage)
        if stage in self.resume:
            self.resume.remove(stage)
        self.publish()

    def make_room(self) -> None:
        """Deletes what the new run replaces; late, so that a mistake in a recipe costs no finished run."""
        for path in map(Path, self.delete):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.delete = []
        if self.launch is not None:
            write_text(Path(self.run_dir, _LAUNCH), self.launch)
        self.publish()

    def to_json(self) -> str:
        """Text for other processes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that another process has made."""
        return cls(**json.loads(text))

    def publish(self) -> None:
        """Leaves the plan where the ranks that Lightning starts find it; it starts none from any but the first."""
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            os.environ[_PLAN_VARIABLE] = self.to_json()


def inherited_plan() -> Plan | None:
    """The plan of the process that started this one as a further rank, or None in a first process."""
    text = os.environ.get(_PLAN_VARIABLE)
    return Plan.from_json(text) if text and int(os.environ.get("LOCAL_RANK", "0")) > 0 else None


def begun_by(launch: str | None, run_dir: Path) -> bool:
    """Whether it was this launch (see `Plan`) that began what lies in the run directory."""
    mark = run_dir / _LAUNCH
    return launch is not None and mark.is_file() and mark.read_text(encoding="utf-8") == launch


def run_directory(config: dict[str, Any], recipe: Path) -> Path:
    """`run_dir` of the configuration, or runs/<name of the recipe>."""
    return Path(config.get("run_dir") or Path("runs") / recipe.stem).absolute()


def make_plan(
    config: dict[str, Any], run_dir: Path, only: str | None = None, resume: bool = False, overwrite: bool = False
) -> Plan:
    """Decides what to train.

    Args:
        config: Plain configuration of the command.
        run_dir: Absolute run directory.
        only: The one stage to train.
        resume: Skip finished stages, continue the interrupted one.
        overwrite: Delete the files of the stages to train.

    Raises:
        UserError: When the run directory is not empty and neither option is given, when a stage needs another one
            that is not trained, or when pending stages want different numbers of processes.
    """
    stages = list(config["stages"])
    if only is not None and only not in stages:
        raise UserError(
            f"unknown stage {only!r}", "--only", did_you_mean(only, stages) or f"there: {', '.join(stages)}"
        )
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other", "vgen fit")
    chosen = [only] if only else stages
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError("the run directory is a file", str(run_dir), "choose another --run_dir")
    used = [run_dir / name for name in chosen if (run_dir / name).is_dir() and any((run_dir / name).iterdir())]
    stray = [] if only or not run_dir.is_dir() else [p for p in run_dir.iterdir() if not p.name.startswith(".")]
    if (used or stray) and not (resume or overwrite):
        raise UserError(
            "the run directory is not empty",
            str(used[0] if used else run_dir),
            "add --resume to go on, --overwrite to begin anew, or choose another --run_dir",
        )
    if overwrite:
        pending, going_on = list(chosen), []
        delete = [*used, *(run_dir / name for name in ([] if only else _GENERATED) if (run_dir / name).exists())]
    else:
        pending = [name for name in chosen if not _is_done(run_dir / name, config["stages"][name])]
        going_on = [name for name in pending if _last(run_dir, name).is_file()]
        delete = []
        _check_inputs(config, chosen, pending, run_dir)
    _check_handoffs(config, pending, run_dir)
    _check_processes(config, pending)
    ids = {name: _known_id(run_dir / name) if name in going_on else uuid.uuid4().hex[:12] for name in pending}
    return Plan(str(run_dir), stages, pending, going_on, [str(path) for path in delete], ids=ids)


def _known_id(stage_dir: Path) -> str | None:
    note = stage_dir / RUN_ID
    return note.read_text().strip() if note.is_file() else None


def _last(run_dir: Path, stage: str) -> Path:
    return run_dir / stage / "checkpoints" / "last.ckpt"


def _stage_hash(stage_config: dict[str, Any], keys: tuple[str, ...]) -> str:
    trainer = stage_config.get("trainer") or {}
    chosen = {key: trainer.get(key) for key in keys}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _is_done(stage_dir: Path, stage_config: dict[str, Any]) -> bool:
    """A stage is done when its file says so and the recipe asks for no more steps than it did then."""
    record = stage_dir / "done.json"
    if not record.is_file():
        return False
    return json.loads(record.read_text()).get("stopping") == _stage_hash(stage_config, _STOPPING)


def write_done(stage_dir: Path, stage_config: dict[str, Any], step: int, clips: int, seconds: float) -> None:
    """Writes done.json after a stage's training has ended."""
    last, best = stage_dir / "checkpoints" / "last.ckpt", stage_dir / "checkpoints" / "best.ckpt"
    facts = {
        "stage": stage_dir.name,
        "step": step,
        "clips": clips,
        "seconds": round(seconds, 1),
        "last": "checkpoints/last.ckpt",
        "best": "checkpoints/best.ckpt" if best.is_file() else None,
        "sha256": sha256(last),
        "stopping": _stage_hash(stage_config, _STOPPING),
        "inputs": {v: sha256(_handoff_file(v, stage_dir.parent)) for _, v in _handoffs(stage_config)},
    }
    write_json(stage_dir / "done.json", facts)


def resolve_handoffs(value: Any, plan_stages: list[str], stage: str, run_dir: Path, key: str = "") -> Any:
    """Replaces `stage://<stage>/last|best` by the path of that checkpoint.

    Raises:
        UserError: When the stage does not exist or comes later, or has no such checkpoint.
    """
    if isinstance(value, dict):
        return {k: resolve_handoffs(v, plan_stages, stage, run_dir, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [resolve_handoffs(v, plan_stages, stage, run_dir, f"{key}[{i}]") for i, v in enumerate(value)]
    if not (isinstance(value, str) and value.startswith(STAGE)):
        return value
    source, which = _parse_handoff(value, plan_stages, stage, f"stages.{stage}{key}")
    path = run_dir / source / "checkpoints" / f"{which}.ckpt"
    if not path.is_file():
        hint = (
            f"train it first: --only {source}" if which == "last" else f"stage {source} monitors no metric: use /last"
        )
        raise UserError(f"{value} is not there", str(path), hint)
    return str(path)


def _parse_handoff(value: str, stages: list[str], stage: str, where: str) -> tuple[str, str]:
    source, _, which = value.removeprefix(STAGE).partition("/")
    earlier = stages[: stages.index(stage)]
    if source not in stages:
        raise UserError(
            f"unknown stage in {value!r}", where, did_you_mean(source, stages) or f"there: {', '.join(stages)}"
        )
    if source not in earlier:
        raise UserError(f"{value!r} names a stage that is not trained before {stage!r}", where)
    if which not in ("last", "best"):
        raise UserError(f"{value!r} must end in /last or /best", where, did_you_mean(which, ("last", "best")))
    return source, which


def _handoffs(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _handoffs(v, f"{key}.{k}")]
    if isinstance(value, list):
        return [found for i, v in enumerate(value) for found in _handoffs(v, f"{key}[{i}]")]
    return [(key, value)] if isinstance(value, str) and value.startswith(STAGE) else []


def _handoff_file(value: str, run_dir: Path) -> Path:
    source, _, which = value.removeprefix(STAGE).partition("/")
    return run_dir / source / "checkpoints" / f"{which}.ckpt"


def _check_inputs(config: dict[str, Any], chosen: list[str], pending: list[str], run_dir: Path) -> None:
    """Refuses to go on with a stage whose first stage is another one now: it would fit neither."""
    for stage in chosen:
        if not _last(run_dir, stage).is_file():
            continue
        record = run_dir / stage / "done.json"
        inputs = json.loads(record.read_text()).get("inputs", {}) if record.is_file() else {}
        for _, value in _handoffs(config["stages"][stage]):
            source = value.removeprefix(STAGE).partition("/")[0]
            file = _handoff_file(value, run_dir)
            if source in pending:
                what = f"stage {stage!r} was trained on stage {source!r}, which is to be trained further"
                first = f"--resume --only {source}, then "
            elif value in inputs and file.is_file() and sha256(file) != inputs[value]:
                what, first = f"stage {stage!r} was trained on another {source!r} than there is now", ""
            else:
                continue
            raise UserError(what, str(run_dir / stage), f"{first}--overwrite --only {stage}; or another --run_dir")


def _check_handoffs(config: dict[str, Any], pending: list[str], run_dir: Path) -> None:
    stages = list(config["stages"])
    for stage in pending:
        for key, value in _handoffs(config["stages"][stage]):
            source, which = _parse_handoff(value, stages, stage, f"stages.{stage}{key}")
            there = (run_dir / source / "checkpoints" / f"{which}.ckpt").is_file()
            if source in pending and (config["stages"][source].get("trainer") or {}).get("fast_dev_run"):
                raise UserError(
                    f"stage {stage!r} needs a checkpoint of stage {source!r}, and fast_dev_run writes none",
                    f"stages.{source}.trainer.fast_dev_run",
                    f"use --all_stages.trainer.max_steps=1 instead, or add --only {source}",
                )
            if source not in pending and not there:
                raise UserError(
                    f"stage {stage!r} needs stage {source!r}, which is not trained",
                    str(run_dir / source),
                    f"run it first (--only {source}), or both (without --only)",
                )


def _processes(stage_config: dict[str, Any]) -> tuple[Any, ...]:
    trainer = stage_config.get("trainer") or {}
    devices = trainer.get("devices", "auto")
    devices = len(devices) if isinstance(devices, list) else devices
    devices = int(devices) if str(devices).lstrip("-").isdigit() else devices
    return (devices, int(trainer.get("num_nodes") or 1), trainer.get("accelerator", "auto"))


def _check_processes(config: dict[str, Any], pending: list[str]) -> None:
    """Stages of one command share their processes: a second stage on fewer ranks would run several times at once."""
    wanted = {stage: _processes(config["stages"][stage]) for stage in pending}
    if len(set(wanted.values())) > 1:
        (a, first), (b, second) = next((x, y) for x in wanted.items() for y in wanted.items() if x[1] != y[1])
        names = ("devices", "num_nodes", "accelerator")
        differ = ", ".join(f"{n}: {x} and {y}" for n, x, y in zip(names, first, second, strict=True) if x != y)
        raise UserError(
            f"stages {a!r} and {b!r} differ in their processes ({differ})",
            f"stages.{b}.trainer",
            f"train them by two commands: --only {a}, then --only {b}",
        )


def recorded_recipe(run_dir: Path) -> dict[str, Any]:
    """The stages of the run's config.yaml as plain data; empty where there is none."""
    path = run_dir / "config.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return dict((content or {}).get("stages") or {})


def recipe_of_run(plan: Plan, wanted: dict[str, Any]) -> dict[str, Any]:
    """Content of the run's config.yaml: the command's, but for stages that are trained already what these were."""
    recorded = recorded_recipe(Path(plan.run_dir))
    trained = [
        name for name in recorded if name not in plan.pending and (plan.stage_dir(name) / "checkpoints").is_dir()
    ]
    stages = {name: recorded[name] if name in trained else config for name, config in wanted["stages"].items()}
    return {"run_dir": wanted.get("run_dir"), "stages": stages}


def changed_keys(recorded: Any, wanted: Any, key: str = "") -> list[str]:
    """Keys at which a configuration differs from the recorded one; a key without a record counts as unchanged."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        return [k for n in recorded for k in changed_keys(recorded[n], wanted.get(n), f"{key}.{n}" if key else n)]
    return [] if recorded == wanted else [key]
