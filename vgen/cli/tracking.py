"""Weights & Biases: one run per stage in one group, the same after a resume, and never in the way of the training."""

import netrc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

# Seconds that a training waits for the service at its start and at the end of a stage. What is not uploaded by then
# lies in the stage's folder, for `wandb sync`. Both can be set from outside by the same variables.
_PATIENCE = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "600"}


def key_source() -> str | None:
    """Where a W&B key is set: `WANDB_API_KEY`, the netrc file that `wandb login` writes, or None."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]:
        try:
            if host is not None and netrc.netrc(path).authenticators(host):
                return str(path)
        except (OSError, netrc.NetrcParseError):
            continue
    return None


def wanted_unasked() -> bool:
    """Whether runs are logged although the recipe names no W&B logger: where the environment holds a key."""
    return bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE") != "disabled"


def wandb_arguments(given: dict[str, Any], stage_dir: Path, fresh: bool) -> dict[str, Any]:
    """Arguments of a stage's `WandbLogger`.

    Args:
        given: What the recipe says; it wins over the names chosen here.
        stage_dir: Folder of the stage, where the run's id is kept beside the checkpoints.
        fresh: Whether what is in the folder is about to be deleted: then it is another run.
    """
    run, stage = stage_dir.parent.name, stage_dir.name
    id_file = stage_dir / "wandb_id"
    known = id_file.read_text() if id_file.is_file() and not fresh else None
    defaults = {
        "project": os.environ.get("WANDB_PROJECT", "vgen"),
        "name": f"{run}/{stage}",
        "group": run,
        "id": known or f"{run}-{stage}-{int(time.time())}",
        "resume": "allow",
    }
    chosen = {k: given.get(k) if given.get(k) not in (None, "lightning_logs") else v for k, v in defaults.items()}
    offline = bool(given.get("offline")) or key_source() is None  # never a prompt for a key
    return chosen | {"save_dir": str(stage_dir), "offline": offline}


@rank_zero_only
def open_runs(loggers: Sequence[Logger]) -> None:
    """Opens the W&B runs of a stage now; one that the service does not answer for is written offline instead."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        for name, seconds in _PATIENCE.items():
            os.environ.setdefault(name, seconds)
        try:
            _ = logger.experiment
        except (wandb.Error, OSError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            print(f"W&B does not answer ({reason}): this run is written offline, `wandb sync` uploads it", flush=True)
            wandb.teardown()  # its settings are read anew from the environment
            os.environ["WANDB_MODE"] = "offline"
            _ = logger.experiment


@rank_zero_only
def end_runs(loggers: Sequence[Logger]) -> None:
    """Ends the W&B run of a stage: the next stage's logger would go on in it."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish()
