"""VGAN: generating videos with scene dynamics (Vondrick et al., NIPS 2016)."""

from vgen.models.card import FamilyCard
from vgen.models.vgan.module import VGAN
from vgen.models.vgan.networks import Discriminator, FutureGenerator, VideoGenerator

FAMILY = FamilyCard(
    name="vgan",
    title="VGAN",
    paper="Vondrick, Pirsiavash, Torralba: Generating Videos with Scene Dynamics, NIPS 2016",
    year=2016,
    status="trains",
    summary="Generates a moving foreground and its mask over a background that stands still, by noise or a picture.",
    recipe="vgan_ucf101",
    parameters={
        "VideoGenerator, two streams": 16_245_383,
        "VideoGenerator, one stream": 12_663_619,
        "Discriminator": 11_057_858,
        "FutureGenerator": 68_216_455,
        "Discriminator of futures": 44_135_810,
    },
    parity_vectors=1,
    code="https://github.com/cvondrick/videogan",
    license="permissive, in the manner of MIT",
)

__all__ = ["FAMILY", "VGAN", "Discriminator", "FutureGenerator", "VideoGenerator"]
