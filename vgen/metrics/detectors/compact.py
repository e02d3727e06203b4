"""A compact video classifier, trained in under a minute on two CPU cores, for metrics on small clips.

It stands where no published classifier fits: fake data, small sizes, own classes. It is trained on the training
subjects' real clips and judged on the held-out subjects' before it judges generated clips, and a twin that sees only
the first frame shows what can be read without motion.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vgen.errors import UserError
from vgen.files import write_atomic, write_json
from vgen.video import to_float

View = Literal["clip", "first_frame"]
_STILL = 4  # frames of a still clip; more of the same tell the network nothing, but cost as much as real ones


class CompactClassifier(nn.Module):
    """Small (2+1)D convolution stages over frames and their differences (to the frame before, and to the first).

    Args:
        num_classes: Number of classes K.
        width: Channels of the first stage.
        channels: Colour channels of a clip.
        patch: Side of the non-overlapping patches that the first stage reads; 4 turns 64 pixels into 16 positions.
    """

    def __init__(self, num_classes: int, width: int = 32, channels: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.settings = {"num_classes": num_classes, "width": width, "channels": channels, "patch": patch}
        self.patch = patch
        self.stem = nn.Conv3d(3 * channels, width, (1, patch + 2, patch + 2), (1, patch, patch), (0, 1, 1))
        self.stages = nn.ModuleList(
            [
                _Stage(width, width, 1, 1),
                _Stage(width, 2 * width, 2, 2),
                _Stage(2 * width, 3 * width, 2, 2),
            ]
        )
        self.norm = nn.GroupNorm(1, 3 * width)
        self.head = nn.Linear(3 * width, num_classes)

    def forward(self, video: Tensor) -> Tensor:
        """Scores clips.

        Args:
            video: (B, C, T, H, W) in [-1, 1].

        Returns:
            (B, K) logits.
        """
        scores: Tensor = self.head(self.features(video))
        return scores

    def features(self, video: Tensor) -> Tensor:
        """What the scores are read from, (B, 3 width); the features of `frechet_small`."""
        step = F.pad(video[:, :, 1:] - video[:, :, :-1], (0, 0, 0, 0, 1, 0))
        moved = video - video[:, :, :1]
        # Differences are several times smaller than the pictures; 4 brings them to about the same size.
        x = self.stem(torch.cat([video, 4 * step, 4 * moved], 1))
        for stage in self.stages:
            x = stage(x)
        return F.silu(self.norm(x)).mean((2, 3, 4))


class _Stage(nn.Module):
    """A (2+1)D residual stage (Tran et al. 2018): convolution over space, then over time."""

    def __init__(self, inner: int, outer: int, space: int, time: int) -> None:
        super().__init__()
        self.space, self.time = space, time
        self.norm1, self.norm2 = nn.GroupNorm(8, inner), nn.GroupNorm(8, outer)
        self.conv1 = nn.Conv3d(inner, outer, (1, 3, 3), (1, space, space), (0, 1, 1))
        self.conv2 = nn.Conv3d(outer, outer, (3, 1, 1), (time, 1, 1), (1, 0, 0))
        self.skip = nn.Conv3d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inner, T, H, W) to (B, outer, T / time, H / space, W / space)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        if self.space > 1 or self.time > 1:
            window = [
                min(step, size) for step, size in zip((self.time, self.space, self.space), x.shape[2:], strict=True)
            ]
            x = F.avg_pool3d(x, window, ceil_mode=True)
        out: Tensor = y + self.skip(x)
        return out


@dataclass(frozen=True)
class TrainingSettings:
    """How the compact classifier is trained.

    Args:
        steps: Optimiser steps.
        batch: Clips per step.
        learning_rate: Peak of AdamW's rate (a tenth of the steps up, then a cosine down to zero).
        weight_decay: AdamW's decay.
        width: See `CompactClassifier`.
        shift: Largest random shift of a clip, in pixels of a 64-pixel picture.
        brightness: Largest random change of brightness and of contrast, as a share of the value range.
        label_smoothing: Of the cross-entropy.
        seed: Decides initialisation, order and augmentation.
        view: What the network sees: the `clip`, or its `first_frame` as a short still clip.
    """

    steps: int = 200
    batch: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    width: int = 32
    shift: int = 4
    brightness: float = 0.15
    label_smoothing: float = 0.05
    seed: int = 0
    view: View = "clip"


def repeat_first_frame(video: Tensor, frames: int | None = None) -> Tensor:
    """Shows the first frame of a clip (B, C, T, H, W) `frames` (default: T) times: what can be read without motion."""
    return video[:, :, :1].expand(-1, -1, frames or video.shape[2], -1, -1)


def collect(loader: Iterable[Mapping[str, Any]], clips: int | None = None) -> tuple[Tensor, Tensor, list[str]]:
    """Gathers clips of a loader in memory.

    Args:
        loader: Yields batches with `video` uint8 and `label`, and `subject` where the data has it.
        clips: Stop after so many; None takes all.

    Returns:
        Videos (N, C, T, H, W) uint8, labels (N,) int64, subjects (N; empty strings where unknown).
    """
    videos: list[Tensor] = []
    labels: list[Tensor] = []
    subjects: list[str] = []
    count = 0
    for batch in loader:
        videos.append(batch["video"].cpu())
        labels.append(batch["label"].cpu().long())
        subjects.extend(batch.get("subject") or [""] * len(batch["video"]))
        count += len(batch["video"])
        if clips is not None and count >= clips:
            break
    if not videos:
        raise ValueError("the loader yields no clips")
    return torch.cat(videos)[:clips], torch.cat(labels)[:clips], subjects[:clips]


def train_classifier(
    videos: Tensor, labels: Tensor, num_classes: int, settings: TrainingSettings | None = None
) -> CompactClassifier:
    """Trains a compact classifier; the result is a function of the arguments (and of the number of threads).

    Args:
        videos: (N, C, T, H, W) uint8.
        labels: (N,) int64.
        num_classes: K.
        settings: None takes the defaults.

    Returns:
        The network, in evaluation mode, on the device of `videos`.
    """
    settings = settings or TrainingSettings()
    device = videos.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = CompactClassifier(num_classes, settings.width, videos.shape[1]).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    chance = torch.Generator().manual_seed(settings.seed)
    warm_up = max(settings.steps // 10, 1)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(settings.steps):
        rate = min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        while len(order) < settings.batch:
            order = torch.cat([order, torch.randperm(len(videos), generator=chance)])
        rows, order = order[: settings.batch], order[settings.batch :]
        rows = rows.to(device)
        clips = to_float(videos[rows])
        if settings.view == "first_frame":
            clips = repeat_first_frame(clips, _STILL)
        loss = F.cross_entropy(
            model(_augment(clips, settings, chance)), labels[rows].to(device), label_smoothing=settings.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def _augment(clips: Tensor, settings: TrainingSettings, chance: torch.Generator) -> Tensor:
    """Shifts each clip as a whole (edges repeated) and changes its brightness and contrast."""
    n, _, _, height, width = clips.shape
    most = max(round(settings.shift * max(height, width) / 64), 0)
    padded = F.pad(clips, (most, most, most, most, 0, 0), mode="replicate") if most else clips
    offsets = torch.randint(0, 2 * most + 1, (n, 2), generator=chance).tolist()
    clips = torch.stack([padded[i, :, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)])
    light = (torch.rand(2, n, 1, 1, 1, 1, generator=chance) * 2 - 1).to(clips.device) * settings.brightness
    return clips * (1 + light[0]) + light[1]


@torch.no_grad()
def classify(model: nn.Module, videos: Tensor, view: View = "clip", batch: int = 32) -> Tensor:
    """Scores clips in pieces.

    Args:
        model: A classifier of clips (B, C, T, H, W) in [-1, 1].
        videos: (N, C, T, H, W), uint8 or in [-1, 1].
        view: What the network is shown.
        batch: Clips at once.

    Returns:
        (N, K) scores.
    """
    scores = []
    for piece in torch.split(videos, batch):
        clips = to_float(piece) if piece.dtype == torch.uint8 else piece
        scores.append(model(repeat_first_frame(clips, _STILL) if view == "first_frame" else clips))
    return torch.cat(scores)


def accuracy(model: nn.Module, videos: Tensor, labels: Tensor, view: View = "clip") -> float:
    """Share of clips (N, C, T, H, W) that the classifier reads as their label (N,)."""
    return float((classify(model, videos, view).argmax(1) == labels.to(videos.device)).double().mean())


def trained_classifier(
    videos: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    folder: str | Path,
    settings: TrainingSettings | None = None,
) -> CompactClassifier:
    """Opens the classifier that `kept_classifier` finds or makes, on the device of `videos`, in evaluation mode."""
    return open_classifier(kept_classifier(videos, labels, class_names, folder, settings)).to(videos.device)


def kept_classifier(
    videos: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    folder: str | Path,
    settings: TrainingSettings | None = None,
) -> Path:
    """Finds the classifier of these clips and settings in a folder, or trains it and keeps it there.

    Writes `classifier_<fingerprint>.safetensors` and a `.json` beside it that says what it was trained on. The
    fingerprint covers every pixel, label and setting.

    Args:
        videos: (N, C, T, H, W) uint8.
        labels: (N,) int64.
        class_names: Name of each class; their number is K.
        folder: Where classifiers are kept.
        settings: None takes the defaults.

    Returns:
        The file, which `open_classifier` opens.
    """
    settings = settings or TrainingSettings()
    fingerprint = data_fingerprint(videos, labels, {**asdict(settings), "class_names": list(class_names)})
    path = Path(folder) / f"classifier_{fingerprint}.safetensors"
    try:
        open_classifier(path)
        return path
    except UserError:  # not there, or damaged
        pass
    model = train_classifier(videos, labels, len(class_names), settings)
    record = {
        "network": model.settings,
        "settings": asdict(settings),
        "class_names": list(class_names),
        "clips": len(videos),
        "clip_shape": list(videos.shape[1:]),
        "clips_per_class": torch.bincount(labels.cpu(), minlength=len(class_names)).tolist(),
        "fingerprint": fingerprint,
    }
    keep_classifier(model, path, record)
    return path


def open_classifier(path: str | Path) -> CompactClassifier:
    """Opens a classifier that `trained_classifier` has kept.

    Raises:
        UserError: It is missing, damaged, or the `.json` beside it is.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    try:
        settings = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["network"]
        model = CompactClassifier(**settings)
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "a classifier_*.safetensors with its .json, as `vgen evaluate` keeps them under evaluation/classifier"
        raise UserError(f"no compact classifier: {what}", str(path), hint) from error
    return model.eval()


def load_classifier(model: CompactClassifier, path: Path) -> bool:
    """Gives a network the weights of a file and puts it into evaluation mode; False where they are not there, whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path, device=str(next(model.parameters()).device)))
    except (OSError, SafetensorError, RuntimeError, KeyError):  # not there, or damaged
        return False
    model.eval()
    return True


def keep_classifier(model: CompactClassifier, path: Path, record: Mapping[str, Any]) -> None:
    """Writes the weights, and `record` as JSON beside them; the weights last, so that they never lie there alone."""
    from safetensors.torch import save_file

    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_json(path.with_suffix(".json"), dict(record))
    write_atomic(path, lambda temporary: save_file(weights, temporary))


def data_fingerprint(videos: Tensor, labels: Tensor, settings: Mapping[str, Any]) -> str:
    """Hash of clips, labels and settings, 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([list(videos.shape), dict(settings)], sort_keys=True).encode())
    for clip in videos:
        digest.update(clip.cpu().contiguous().numpy().tobytes())
    digest.update(labels.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
