"""Measures a model under a named protocol while it trains."""

from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng

from vgen.callbacks.ema import averaged_weights
from vgen.callbacks.sample_logger import evaluating
from vgen.errors import UserError
from vgen.metrics.cache import DEFAULT_FOLDER
from vgen.metrics.catalogue import Role, chosen_metrics
from vgen.metrics.detectors import Detector
from vgen.metrics.detectors.choice import OPENED, chosen_detectors
from vgen.metrics.evaluation import compare
from vgen.metrics.generated import ClipMaker, SampleStore, StoredClips, generate
from vgen.metrics.pairs import Distances, lpips_distances
from vgen.metrics.protocols import load_protocol
from vgen.metrics.reconstructed import Reconstructions, StoredReconstructions
from vgen.metrics.record import EvaluationRecord
from vgen.metrics.selection import Selection
from vgen.metrics.sources import ClipSource, RecordClips
from vgen.video import Reconstructs, Samples


class Evaluate(Callback):
    """Every N steps: clips are generated with the averaged weights and measured, on all ranks.

    Under a protocol of reconstructions (`made: reconstructions`), they are what the model makes of the real clips.

    The numbers go to the loggers by the names that they have everywhere (`fvd/stylegan_v_16`), and the whole record to
    `<run>/<stage>/evaluation/<protocol>/step_*.json`. Real clips come from the data of the stage, conditions from its
    validation set. Training goes on as if nothing had been: random state, modes, statistics and weights are what they
    were. Clips that cannot be measured (NaN, as of a training that diverges) are warned of and cost one evaluation.

    Numbers of few clips are far from those of the whole protocol, and their names say so
    (`fvd/stylegan_v_16+n_real=256+n_fake=256`): the full number is what `vgen evaluate` gives.

    Args:
        protocol: A name, or a YAML file of one's own.
        every_n_steps: Optimiser steps between two evaluations; one is always made at the end.
        clips: Generated clips; None: as many as the protocol takes. There is one reconstruction for each real clip.
        real_clips: Real clips; None: as many as the protocol takes.
        metrics: Instead of the protocol's.
        detectors: Other networks than the published ones, by role: `{i3d: random}`, or a file (see `vgen evaluate
            --detector`).
        batch: Clips at once on each rank.
        seed: Of conditions and noise: the same at every evaluation.
        options: Sampler settings that differ from the model's.
        conditions: Which set gives first frames, classes and captions.
        floor: Also measure real against real clips, once.
        cache: Folder for the features of real clips; None: they are read anew each time.
    """

    def __init__(
        self,
        protocol: str,
        every_n_steps: int,
        clips: int | None = None,
        real_clips: int | None = None,
        metrics: list[str] | None = None,
        detectors: dict[str, str] | None = None,
        batch: int = 8,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        conditions: Literal["train", "val", "test"] = "val",
        floor: bool = True,
        cache: str | None = DEFAULT_FOLDER,
    ) -> None:
        for name, value, least in (("every_n_steps", every_n_steps, 1), ("clips", clips, 2), ("batch", batch, 1)):
            if value is not None and value < least:
                raise UserError(f"must be at least {least}, got {value}", f"Evaluate.{name}")
        changes = {name: value for name, value in (("n_real", real_clips), ("n_fake", clips)) if value is not None}
        self.protocol = load_protocol(protocol).but(**changes)
        self.metrics = tuple(metrics or self.protocol.metrics)
        cards, self.scores = chosen_metrics(self.metrics, self.protocol)
        self.roles = [card.role for card in cards]
        self.every_n_steps, self.batch, self.seed, self.options = every_n_steps, batch, seed, options
        self.choices = cast(dict[Role, str], dict(detectors or {}))
        if unknown := [role for role in self.choices if role not in OPENED]:
            raise UserError(f"no detector {unknown[0]!r} that could be another", "Evaluate.detectors")
        self.conditions, self.floor, self.cache = conditions, floor, cache
        self._detectors: dict[Role, Detector] = {}
        self._lpips: Distances = {}
        self._real: RecordClips | None = None
        self._last = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the networks and looks for real clips, while a mistake is cheap."""
        samples = self.protocol.made == "samples"
        if not isinstance(pl_module, Samples if samples else Reconstructs):
            does = "generate" if samples else "reconstruct"
            rank_zero_info(f"Evaluate: {type(pl_module).__name__} does not {does} clips; nothing to measure")
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise UserError("nothing real to compare with: the training has no data module", "Evaluate")
        name = data.whole_clips("train").data
        self.protocol = self.protocol.of(name)
        self._real = RecordClips.of(data.whole_clips(self.protocol.split))
        found = len(Selection(self._real, self.protocol).usable()) if len(self._real) else 0
        if found < 2:
            what = f"{found} real clips of the split {self.protocol.split}: a distribution needs more"
            raise UserError(what, f"Evaluate, protocol {self.protocol.name}")
        with isolate_rng():  # networks are built with random weights before theirs are loaded
            self._detectors = chosen_detectors(self.roles, self.choices, self.protocol, self.batch)
            self._lpips = lpips_distances(self.scores)
        for detector in self._detectors.values():
            detector.check_frames(self.protocol.n_frames)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures at multiples of `every_n_steps`."""
        step = trainer.global_step
        if step and step % self.every_n_steps == 0 and step != self._last:
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures a last time."""
        if trainer.global_step != self._last and trainer.global_step > 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._measure(trainer, pl_module)

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = trainer.global_step
        if self._real is None:
            return
        folder = Path(trainer.default_root_dir) / "evaluation" / self.protocol.name
        # `isolate_rng` restores torch (all devices), numpy and python.
        with isolate_rng(), torch.no_grad():
            try:
                record = self._record(trainer, pl_module, folder)
            except UserError as error:  # on all ranks alike
                rank_zero_warn(f"Evaluate: no numbers at step {self._last}: {error}")
                return
            finally:
                for network in (*self._detectors.values(), *self._lpips.values()):
                    network.cpu()  # the training needs the device's memory
        if trainer.is_global_zero:
            record.write(folder / f"step_{self._last:08d}.json")
        for logger in trainer.loggers:
            logger.log_metrics(record.numbers(), self._last - 1)  # Lightning counts the step under way from zero

    def _record(self, trainer: Trainer, pl_module: LightningModule, folder: Path) -> EvaluationRecord:
        protocol, real = self.protocol, self._real
        assert real is not None
        make: ClipMaker | Reconstructions
        if protocol.made == "reconstructions":
            make = Reconstructions(pl_module, real, protocol)
            count = len(make.clips)
        else:
            span = (protocol.n_frames - 1) * protocol.fake_stride + 1
            frames = max(span, protocol.least_frames or 0) if protocol.fake_stride > 1 else span
            count = (protocol.n_fake or len(Selection(real, protocol).real())) * protocol.trials
            data = trainer.datamodule  # type: ignore[attr-defined]
            make = ClipMaker(pl_module, frames, self.seed, self.options, data, self.conditions)
        facts = {"model": {"class": type(pl_module).__name__, "step": self._last, "weights": "ema where there are any"}}
        settings = {**facts, "options": self.options or {}, **make.settings}
        store = SampleStore(folder, settings, protocol.quantise)
        try:
            with evaluating(trainer, pl_module), averaged_weights(trainer, pl_module):
                generate(store, count, self.batch, make, in_step=True)
            made: ClipSource
            if isinstance(make, Reconstructions):
                made = StoredReconstructions(store, make)
            else:
                made = StoredClips(store, count)
            return compare(
                real,
                made,
                protocol,
                self.metrics,
                self._detectors,
                pl_module.device,
                batch=self.batch,
                lpips=self._lpips,
                floor=self.floor,
                cache=self.cache,
            )
        finally:
            trainer.strategy.barrier("vgen: clips have been read")
            if trainer.is_global_zero:
                store.delete()
