"""TGAN: temporal generative adversarial nets (Saito et al., ICCV 2017)."""

from vgen.models.card import FamilyCard
from vgen.models.tgan.module import TGAN
from vgen.models.tgan.networks import Critic, VideoGenerator

FAMILY = FamilyCard(
    name="tgan",
    title="TGAN",
    paper="Saito, Matsumoto, Saito: Temporal Generative Adversarial Nets with Singular Value Clipping, ICCV 2017",
    year=2017,
    status="trains",
    summary="Codes of frames come from a code of the clip, frames from both; a Wasserstein critic is kept Lipschitz.",
    recipe="tgan_ucf101",
    parameters={"FrameSeedGenerator": 825_444, "ImageGenerator": 3_622_691, "Critic": 11_032_449},
    parity_vectors=4,
    code="https://github.com/pfnet-research/tgan",
    license="permissive, in the manner of MIT",
)

__all__ = ["FAMILY", "TGAN", "Critic", "VideoGenerator"]
