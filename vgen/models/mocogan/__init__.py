"""MoCoGAN: motion and content decomposed (Tulyakov et al., CVPR 2018)."""

from vgen.models.card import FamilyCard
from vgen.models.mocogan.module import MoCoGAN
from vgen.models.mocogan.networks import Discriminator, VideoGenerator

FAMILY = FamilyCard(
    name="mocogan",
    title="MoCoGAN",
    paper="Tulyakov, Liu, Yang, Kautz: MoCoGAN: Decomposing Motion and Content for Video Generation, CVPR 2018",
    year=2018,
    status="trains",
    summary="A content code and a recurrent path of motion codes make a clip, judged by its frames and as a whole.",
    recipe="mocogan_mug",
    parameters={
        "VideoGenerator, 6 categories": 3_298_836,
        "Discriminator of frames, patches": 663_296,
        "Discriminator of frames": 2_765_568,
        "Discriminator of clips, 6 categories": 11_253_504,
        "Discriminator of clips, patches": 2_650_880,
    },
    parity_vectors=5,
    code="https://github.com/sergeytulyakov/mocogan",
    license="CC BY-NC-ND 4.0",
)

__all__ = ["FAMILY", "Discriminator", "MoCoGAN", "VideoGenerator"]
