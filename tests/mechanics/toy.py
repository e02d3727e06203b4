"""A two-stage family of a few hundred weights, and its data: everything but the size is as in a real family."""

import json
import os
import signal
import time
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import Dataset

from vgen.callbacks import EMA
from vgen.codecs import open_codec
from vgen.configurable import Configurable
from vgen.data.clips import ClipRecord
from vgen.data.datamodules import VideoDataModule
from vgen.data.dataset import ClipTransform
from vgen.data.sampling import ClipRequest, clip_rng
from vgen.data.whole_clips import WholeClips
from vgen.training import SamplesClips, SingleLossModule
from vgen.training.sharding import gather, local
from vgen.video import ClipSpec
from vgen.weights import Handoff


class Activation(Configurable, nn.Module):
    """A network inside a network.

    Args:
        kind: Which function.
        slope: Slope of the leaky one.
    """

    def __init__(self, kind: Literal["relu", "leaky"] = "leaky", slope: float = 0.1) -> None:
        super().__init__()
        self.function = nn.ReLU() if kind == "relu" else nn.LeakyReLU(slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class ToyNetwork(Configurable, nn.Module):
    """Acts on every pixel alone; has a buffer (BatchNorm) and draws random numbers (dropout).

    Args:
        dim: Width.
        dropout: Share of dropped features.
        activation: Non-linearity.
    """

    def __init__(self, dim: int = 4, dropout: float = 0.1, activation: Activation | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.encoder = nn.Sequential(nn.Conv3d(3, dim, 1), nn.BatchNorm3d(dim), nn.Dropout(dropout))
        self.activation = activation or Activation()
        self.decoder = nn.Conv3d(dim, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.activation(self.encoder(x)))


class ToyAutoencoder(SingleLossModule):
    """First stage: a denoising auto-encoder.

    Args:
        clip_spec: The clips.
        network: Encoder and decoder.
        noise: Standard deviation of what is added to the input.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: ToyNetwork,
        noise: float = 0.1,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network, self.noise = network, noise

    def encode(self, video: Tensor, reference: Tensor | None = None) -> dict[str, Tensor]:
        return {"z": self.network.encoder(video)}

    def decode(self, latent: dict[str, Tensor]) -> Tensor:
        return self.network.decoder(self.network.activation(latent["z"]))

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        return {"z": (self.network.dim, clip_spec.frames, clip_spec.height, clip_spec.width)}

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        video = batch["video"]
        output = self.decode(self.encode(video + self.noise * torch.randn_like(video)))
        error = (output - video).square().mean()
        return {"loss": error, "mse": error}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        return self.decode(self.encode(batch["video"])).clamp(-1, 1)


class ToyDiffusion(SamplesClips, SingleLossModule):
    """Second stage: predicts noise that was added to the frozen codec's latent.

    Args:
        clip_spec: The clips.
        denoiser: Works on the codec's latent, decoded to 3 channels.
        codec: Trained first stage.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        denoiser: ToyNetwork,
        codec: Handoff | nn.Module | None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.denoiser = denoiser
        self.codec = open_codec(codec, "codec")

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            clean = self.codec.network.decode(self.codec.network.encode(batch["video"]))
        noise = torch.randn_like(clean)
        return {"loss": (self.denoiser(clean + noise) - noise).square().mean()}

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        shape = (3, frames, self.clip_spec.height, self.clip_spec.width)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = torch.stack(noise).to(self.device)
        return (x - self.denoiser(x)).clamp(-1, 1)


class _Clips(Dataset[dict[str, Any]]):
    """Answers requests with clips that are a pure function of (seed, epoch, position)."""

    def __init__(self, clips: int, frames: int, size: int, seed: int, training: bool) -> None:
        self.clips, self.shape, self.seed, self.training = clips, (3, frames, size, size), seed, training

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        epoch, position = request
        rng = clip_rng(self.seed + (not self.training), epoch if self.training else 0, position)
        label = position % 2
        video = torch.from_numpy(rng.integers(0, 256, self.shape, dtype="uint8"))
        item = {"video": video, "label": label, "text": ("left", "right")[label]}
        return {**item, "subject": "s", "path": f"clip{position}", "_unreadable": []}


class ToyClips(VideoDataModule):
    """Noise as clips, through the real loaders and samplers.

    Args:
        root: A folder; nothing is read from it.
        size: Side of the frames.
        frames: Frames of a clip.
        clips: Number of training clips.
        batch_size: Clips per batch on each rank.
        num_workers: Reading processes.
        seed: Decides clips and order.
    """

    class_names = ("left", "right")
    fingerprint = "toy"  # type: ignore[assignment]

    def __init__(
        self,
        root: str = ".",
        size: int = 8,
        frames: int = 2,
        clips: int = 10,
        batch_size: int = 2,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(root, size, frames, batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.clips = clips

    def prepare_data(self) -> None:
        """There is no index."""

    def dataset(self, split: str) -> _Clips:  # type: ignore[override]
        training = split == "train"
        return _Clips(self.clips if training else 4, self.frames, self.height, self.seed, training)

    def whole_clips(self, split: str) -> WholeClips:
        clips = self.dataset(split)
        names = [f"clip{number}" for number in range(len(clips))]
        records = [ClipRecord(name, i % 2, "s", frames=self.frames) for i, name in enumerate(names)]
        transform = ClipTransform((self.height, self.width), "stretch")
        return WholeClips(records, _Videos(clips), transform, 3, "toy", "toy", split, 8.0)


class _Videos:
    """Reads the clips as stored videos."""

    def __init__(self, clips: _Clips) -> None:
        self.clips = clips

    def read(self, record: ClipRecord, indices: Any) -> Any:
        video = self.clips[ClipRequest(0, int(record.path.removeprefix("clip")))]["video"]
        return video.permute(1, 2, 3, 0).numpy()[indices]


class Trap(Callback):
    """Ends a run where the environment variable TOY_TRAP says: `<stage>:<step>:kill|raise|interrupt[:<rank>]`.

    The step is the number of optimiser steps that are done when the next batch has arrived.
    """

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        stage, step, how, *rank = os.environ.get("TOY_TRAP", "::").split(":")
        if stage != pl_module.stage_name or trainer.global_step != int(step):
            return
        if rank and trainer.global_rank != int(rank[0]):
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if how == "interrupt" else RuntimeError("the trap")


class Witness(Callback):
    """Keeps what validation hooks see: the first weight of the trained network, at each validation."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        weight = next(p for p in pl_module.parameters() if p.requires_grad)
        self.seen.append((trainer.global_step, float(weight.detach().flatten()[0])))


class RankRecorder(Callback):
    """Writes `<stage>/rank<r>.pt` at the end of a training: what this process holds and has seen."""

    def __init__(self) -> None:
        self.clips: list[str] = []
        self.draw = 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.clips += [f"{trainer.current_epoch}:{path}" for path in batch["path"]]
        with torch.random.fork_rng(devices=[]):
            self.draw = float(torch.rand(()))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        average = next((c.shadow for c in trainer.callbacks if isinstance(c, EMA)), {})
        facts = {
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "pid": os.getpid(),
            "weights": gather(pl_module.state_dict()),
            "average": gather(average),
            "clips": self.clips,
            "draw": self.draw,
        }
        torch.save(facts, os.path.join(trainer.default_root_dir, f"rank{trainer.global_rank}.pt"))


class SlowSteps(Callback):
    """Takes its time, and says where it is."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        print(f"toy: step {trainer.global_step}", flush=True)
        time.sleep(0.3 * (trainer.global_step >= 3))


class SlowStart(Callback):
    """Takes its time before the training."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        print("toy: before the training", flush=True)
        time.sleep(60)


class Shares(Callback):
    """Writes `<stage>/shares<r>.json`: how many numbers of the trained network this process holds."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        parameters = [p for p in pl_module.parameters() if p.requires_grad]
        states = [s for entries in trainer.optimizers[0].state.values() for k, s in entries.items() if k != "step"]
        average = next(c.shadow for c in trainer.callbacks if isinstance(c, EMA))
        facts = {
            "whole": sum(p.numel() for p in parameters),
            "local": sum(local(p).numel() for p in parameters),
            "optimizer": sum(local(s).numel() for s in states),
            "average": sum(local(a).numel() for a in average.values()),
        }
        with open(os.path.join(trainer.default_root_dir, f"shares{trainer.global_rank}.json"), "w") as file:
            json.dump(facts, file)
