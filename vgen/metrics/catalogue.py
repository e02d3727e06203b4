"""The metrics that `vgen.metrics.evaluation` knows by name: what each needs, and what its number is called."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from vgen.errors import UserError, did_you_mean
from vgen.metrics.consistency import FrameConsistency, PixelScore, SubjectConsistency
from vgen.metrics.detectors.base import Kind
from vgen.metrics.distribution import (
    FVD,
    KVD,
    ConditionalFVD,
    ContentDebiasedFVD,
    FrameFID,
    ReconstructionFVD,
    VideoInceptionScore,
)
from vgen.metrics.features import FeatureMetric
from vgen.metrics.pairs import PAIR_SCORES
from vgen.metrics.protocols import Protocol

Role = Literal["i3d", "c3d", "inception", "videomae", "clip", "dino", "flickering", "dynamics", "smoothness"]


@dataclass(frozen=True)
class MetricCard:
    """One metric of two sets of clips.

    Args:
        name: Of the published number.
        plain: What it is called with another network than the published one, followed by `_small` or `_random`.
        role: Which detector it reads.
        build: Makes it for a protocol.
        compares: Whether it looks at real clips: then it has a real-against-real floor.
        paired: Whether generated clips have to be reconstructions of the real ones, as for `PAIR_SCORES`.
    """

    name: str
    plain: str
    role: Role
    build: Callable[[Protocol], FeatureMetric]
    compares: bool = True
    paired: bool = False

    def called(self, kind: Kind) -> str:
        """The name that a number deserves which rests on such a detector."""
        return self.name if kind == "published" else f"{self.plain}_{kind}"


def _isv(protocol: Protocol) -> FeatureMetric:
    return VideoInceptionScore(protocol.isv_splits)


# Needs the prompts beside the frames, so that its number is read by the evaluation itself.
CLIPSIM = MetricCard("clipsim", "text_agreement", "clip", lambda protocol: PixelScore(), compares=False)
METRICS = {
    card.name: card
    for card in (
        CLIPSIM,
        MetricCard("fvd", "frechet", "i3d", lambda protocol: FVD(protocol.cov)),
        MetricCard("kvd", "kernel", "i3d", lambda protocol: KVD()),
        MetricCard("cfvd", "frechet_by_class", "i3d", lambda protocol: ConditionalFVD("label", protocol.cov)),
        MetricCard("sfvd", "frechet_by_subject", "i3d", lambda protocol: ConditionalFVD("subject", protocol.cov)),
        MetricCard(
            "rfvd",
            "frechet_reconstruction",
            "i3d",
            lambda protocol: ReconstructionFVD(protocol.cov),
            paired=True,
        ),
        MetricCard("isv", "inception_score", "c3d", _isv, compares=False),
        MetricCard("fid_frames", "frechet_frames", "inception", lambda protocol: FrameFID(protocol.cov)),
        MetricCard("cd_fvd", "frechet_content_debiased", "videomae", lambda protocol: ContentDebiasedFVD(protocol.cov)),
        MetricCard("clip_frame", "frame_consistency", "clip", lambda protocol: FrameConsistency(), compares=False),
        MetricCard(
            "vb_subject_consistency",
            "subject_consistency",
            "dino",
            lambda protocol: SubjectConsistency(),
            compares=False,
        ),
        MetricCard(
            "vb_background_consistency",
            "background_consistency",
            "clip",
            lambda protocol: SubjectConsistency(),
            compares=False,
        ),
        MetricCard(
            "vb_temporal_flickering", "temporal_flickering", "flickering", lambda protocol: PixelScore(), compares=False
        ),
        MetricCard("vb_dynamic_degree", "dynamic_degree", "dynamics", lambda protocol: PixelScore(), compares=False),
        # VBench interpolates by AMT-S: along the flow it is another number, and has another name.
        MetricCard(
            "motion_smoothness_flow", "motion_smoothness", "smoothness", lambda protocol: PixelScore(), compares=False
        ),
    )
}


def chosen_metrics(names: Iterable[str], protocol: Protocol) -> tuple[list[MetricCard], list[str]]:
    """The metrics of two sets of clips, and the scores of single pairs of clips, among some names.

    Raises:
        UserError: No such metric; one of reconstructions where the protocol compares other clips.
    """
    cards, scores = list[MetricCard](), list[str]()
    for name in names:
        if name not in METRICS and name not in PAIR_SCORES:
            known = (*METRICS, *PAIR_SCORES)
            hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
            raise UserError(f"no metric {name!r}", where="metrics", hint=hint)
        if (name in PAIR_SCORES or METRICS[name].paired) and protocol.made != "reconstructions":
            raise UserError(
                f"{name} compares reconstructions with what they were made from",
                f"protocol {protocol.name}",
                "take a protocol that has made: reconstructions",
            )
        if name in METRICS:
            cards.append(METRICS[name])
        else:
            scores.append(name)
    return cards, scores
