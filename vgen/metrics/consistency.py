"""How well frames agree with each other and with a text, from the embeddings of frames."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vgen.metrics.features import FeatureMetric, Features
from vgen.metrics.per_clip import PerClipMetric


def clip_similarity(frames: Tensor, text: Tensor) -> Tensor:
    """CLIPSIM of each clip: mean over frames of cos(image, text), not scaled, not clamped (Wu et al. 2021, GODIVA).

    Args:
        frames: (B, T, D) embeddings of the frames.
        text: (B, D) embeddings of the prompts.

    Returns:
        (B,) float64 in [-1, 1].
    """
    return F.cosine_similarity(frames.double(), text.double()[:, None], dim=-1).mean(1)


def frame_consistency(frames: Tensor, pairs: Literal["adjacent", "all"] = "adjacent") -> Tensor:
    """Mean cosine between the embeddings of frames of each clip.

    Args:
        frames: (B, T, D), T >= 2.
        pairs: `adjacent` frames (Gen-1, Tune-A-Video) or `all` pairs.

    Returns:
        (B,) float64.
    """
    unit = F.normalize(frames.double(), dim=-1)
    if pairs == "adjacent":
        return (unit[:, 1:] * unit[:, :-1]).sum(-1).mean(1)
    count = unit.shape[1]
    cosines = unit @ unit.transpose(1, 2)
    return (cosines.sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def subject_consistency(frames: Tensor) -> Tensor:
    """VBench's consistency: each frame against the one before and the first, negative cosines as 0 (Huang et al. 2024).

    Subject consistency on DINO's features, background consistency on CLIP's.

    Args:
        frames: (B, T, D), T >= 2.

    Returns:
        (B,) float64 in [0, 1].
    """
    unit = F.normalize(frames.double(), dim=-1)
    before = (unit[:, 1:] * unit[:, :-1]).sum(-1).clamp_min(0)
    first = (unit[:, 1:] * unit[:, :1]).sum(-1).clamp_min(0)
    return ((before + first) / 2).mean(1)


class EmbeddingMetric(FeatureMetric):
    """A mean over generated clips of a number that each clip's embeddings (B, T, D) have.

    Attributes:
        clip_values: (N,) float64, the value of each clip, set by `compute`.
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.clip_values: Tensor | None = None

    @abstractmethod
    def per_clip(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N,)."""

    def score(self, real: Features | None, fake: Features | None) -> Tensor:
        """See `FeatureMetric`; real clips do not count."""
        self.clip_values = self.per_clip(self.need(fake, "fake").values)
        return self.clip_values.mean()


class FrameConsistency(EmbeddingMetric):
    """Mean cosine between frames in CLIP's embedding; see `frame_consistency`.

    Args:
        pairs: Which pairs of frames.
    """

    def __init__(self, pairs: Literal["adjacent", "all"] = "adjacent") -> None:
        super().__init__()
        self.pairs: Literal["adjacent", "all"] = pairs

    def per_clip(self, frames: Tensor) -> Tensor:
        """See `EmbeddingMetric`."""
        return frame_consistency(frames, self.pairs)


class SubjectConsistency(EmbeddingMetric):
    """VBench's subject consistency (DINO), or background consistency (CLIP); see `subject_consistency`."""

    def per_clip(self, frames: Tensor) -> Tensor:
        """See `EmbeddingMetric`."""
        return subject_consistency(frames)


class PixelScore(EmbeddingMetric):
    """A mean over generated clips of a number that was read from their pixels, given as features (B, 1)."""

    def per_clip(self, frames: Tensor) -> Tensor:
        """See `EmbeddingMetric`."""
        return frames.double().flatten(1).mean(1)


class CLIPSIM(PerClipMetric):
    """Mean agreement of clips with their prompts; see `clip_similarity`."""

    def update(self, frames: Tensor, text: Tensor, groups: Sequence[str] | Tensor | None = None) -> None:
        """Adds frame embeddings (B, T, D) and prompt embeddings (B, D), with the group of each for the interval."""
        self.add(clip_similarity(frames, text), groups)


def relative_clip_similarity(generated: Tensor, real: Tensor) -> Tensor:
    """Mean CLIPSIM of generated clips over that of the real ones (relative match of GODIVA and NUWA).

    Args:
        generated: (N,) values of clips.
        real: (M,) values of clips.
    """
    return generated.double().mean() / torch.as_tensor(real).double().mean()
