"""What goes with every training: averages, seeds, checkpoints, pictures, numbers."""

from vgen.callbacks.checkpoint import AtomicCheckpointIO, Checkpoint
from vgen.callbacks.clock import Clock
from vgen.callbacks.collapse import CollapseAlarm
from vgen.callbacks.compile import Compile
from vgen.callbacks.divergence import DivergenceGuard
from vgen.callbacks.ema import EMA
from vgen.callbacks.evaluate import Evaluate
from vgen.callbacks.metrics_csv import MetricsCSV
from vgen.callbacks.non_finite import NonFinite
from vgen.callbacks.optimizer_stats import OptimizerStats
from vgen.callbacks.preemption import Preempted, Preemption
from vgen.callbacks.progress import LineProgress, TerminalProgress
from vgen.callbacks.provenance import Provenance
from vgen.callbacks.replaced_clips import ReplacedClips
from vgen.callbacks.sample_logger import SampleLogger
from vgen.callbacks.step_seed import StepSeed
from vgen.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "Checkpoint",
    "Clock",
    "CollapseAlarm",
    "Compile",
    "DivergenceGuard",
    "Evaluate",
    "LineProgress",
    "MetricsCSV",
    "NonFinite",
    "OptimizerStats",
    "Preempted",
    "Preemption",
    "Provenance",
    "ReplacedClips",
    "SampleLogger",
    "StepSeed",
    "TerminalProgress",
    "Throughput",
]
