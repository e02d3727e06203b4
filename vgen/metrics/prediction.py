"""Predictions behind past frames against what really followed: the best of several draws (Denton & Fergus 2018).

A model that draws cannot know which of the possible futures a clip took. So it draws N for each clip, and its best one
is measured: whether the real future is among those that it holds possible.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.files import write_atomic
from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.frames import psnr, ssim
from vgen.metrics.image_to_video import clip_seed
from vgen.video import Samples, to_float

Batch = dict[str, Any]
Similarity = Literal["svg", "finn"]
Score = Callable[[Tensor, Tensor], Tensor]
_CEILING = 100.0  # dB, of equal frames, which have no bound


def scores(similarity: Similarity) -> dict[str, Score]:
    """The scores of each frame, of clips in [0, 1].

    Args:
        similarity: `svg`: SSIM as SVG's released code has it, with 7x7 windows and a data range of 2 for frames in
            [0, 1], which raises it. `finn`: 11x11 Gaussian windows and a range of 1.
    """

    def similar(a: Tensor, b: Tensor) -> Tensor:
        return ssim(a, b, "uniform", 2.0) if similarity == "svg" else ssim(a, b)

    def signal(a: Tensor, b: Tensor) -> Tensor:
        return psnr(a, b, "channel").clamp(max=_CEILING)

    return {"ssim": similar, "psnr": signal}


@dataclass(frozen=True)
class Predictions:
    """Scores of predicted frames.

    Args:
        past: Past frames P.
        drawn: Of each score, (clips, draws, frames) float64.
        copied: The same of the last past frame in place of a prediction, (clips, frames).
        subjects: Subject of each clip, or None.
    """

    past: int
    drawn: Mapping[str, Tensor]
    copied: Mapping[str, Tensor]
    subjects: list[str] | None = None

    def best(self, score: str) -> Tensor:
        """The draw of each clip with the highest mean over its frames, (clips, frames); each score has its own."""
        drawn = self.drawn[score]
        chosen = drawn.mean(2).argmax(1)
        return drawn[torch.arange(len(drawn)), chosen]

    def summary(self, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Means over frames and clips with 95 % intervals (bootstrap over subjects, or clips where there are none)."""
        figures = {}
        for score, drawn in self.drawn.items():
            unit = "dB" if score == "psnr" else ""
            rows = {
                f"{score}_best_of_{drawn.shape[1]}": self.best(score),
                f"{score}_of_a_draw": drawn.mean(1),
                f"{score}_last_frame_copied": self.copied[score],
            }
            for name, values in rows.items():
                each = values.mean(1)
                low, high = bootstrap_interval(each, self.subjects, seed=seed)
                figures[name] = {"value": float(each.mean()), "low": low, "high": high, "n": len(each), "unit": unit}
        return figures

    def curves(self, seed: int = 0) -> dict[str, dict[str, list[float]]]:
        """Each score over time: mean, `low` and `high` of the best draw, and the mean of the copied frame."""
        found = {}
        for score in self.drawn:
            best = self.best(score)
            ends = [bootstrap_interval(values, self.subjects, seed=seed) for values in best.unbind(1)]
            found[score] = {
                "best": best.mean(0).tolist(),
                "low": [low for low, _ in ends],
                "high": [high for _, high in ends],
                "last_frame_copied": self.copied[score].mean(0).tolist(),
            }
        return found


@torch.no_grad()
def predict_and_score(
    model: Samples,
    batches: Iterable[Batch],
    past: int,
    draws: int,
    similarity: Similarity = "svg",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    report: Callable[[int], None] = lambda clips: None,
) -> Predictions:
    """Lets a model predict held-out clips, several times each.

    Args:
        model: Generates from `{"video": (n, C, P, H, W) in [-1, 1]}` clips that begin with these frames.
        batches: Held-out clips, each batch generated at once: `video` (B, C, T, H, W), uint8 or in [-1, 1], T more than
            P; `subject` where known.
        past: Past frames P.
        draws: Draws N for each clip.
        similarity: See `scores`.
        seed: Decides the noise.
        options: Sampler settings passed to the model.
        device: Where the model is.
        report: Called with the number of clips that are done.
    """
    measured = scores(similarity)
    drawn: dict[str, list[Tensor]] = {name: [] for name in measured}
    copied: dict[str, list[Tensor]] = {name: [] for name in measured}
    subjects: list[str | None] = []
    done = 0
    for batch in batches:
        video = batch["video"].to(device)
        video = to_float(video) if video.dtype == torch.uint8 else video
        clips, length = len(video), video.shape[2]
        subjects += batch.get("subject") or [None] * clips
        real = (video[:, :, past:] + 1) / 2
        still = ((video[:, :, past - 1 : past] + 1) / 2).expand_as(real)
        for name, score in measured.items():
            copied[name].append(score(still, real).cpu())
        parts: dict[str, list[Tensor]] = {name: [] for name in measured}
        # Different clips at once, never draws of one: a model may normalise by statistics of its batch.
        for number in range(draws):
            seeds = [clip_seed(seed, (done + clip) * draws + number) for clip in range(clips)]
            given = {"video": video[:, :, :past]}
            made = model.sample(given, clips, frames=length, seeds=seeds, options=dict(options or {}))
            made = (made[:, :, past:].clamp(-1, 1) + 1) / 2
            for name, score in measured.items():
                parts[name].append(score(made.to(real), real).cpu())
        for name, found in parts.items():
            drawn[name].append(torch.stack(found, 1))
        done += clips
        report(done)
    known = [name for name in subjects if name]
    return Predictions(
        past,
        {name: torch.cat(found) for name, found in drawn.items()},
        {name: torch.cat(found) for name, found in copied.items()},
        known if len(known) == len(subjects) else None,
    )


def plot_curves(path: Path, curves: Mapping[str, Mapping[str, list[float]]], past: int, label: str) -> None:
    """Draws SSIM and PSNR over time as a picture (PNG), with the 95 % interval of the best draw.

    Args:
        path: The file.
        curves: `Predictions.curves`.
        past: Past frames; the first predicted frame has this number.
        label: What the curve of the best draw is called.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    for column, (score, curve) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), column)
        frames = range(past, past + len(curve["best"]))
        axes.fill_between(frames, curve["low"], curve["high"], alpha=0.25, linewidth=0)
        axes.plot(frames, curve["best"], label=label)
        axes.plot(frames, curve["last_frame_copied"], color="0.5", linestyle="--", label="last frame copied")
        axes.set_xlabel("frame")
        axes.set_ylabel("PSNR in dB" if score == "psnr" else score.upper())
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
