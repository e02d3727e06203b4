"""VIDM: video implicit diffusion models (Mei & Patel, AAAI 2023)."""

from vgen.models.card import FamilyCard
from vgen.models.vidm.content_module import VIDMContent
from vgen.models.vidm.flow_module import FlowModel
from vgen.models.vidm.motion_module import VIDMMotion
from vgen.models.vidm.networks import ContentGenerator, Layout, MotionGenerator

FAMILY = FamilyCard(
    name="vidm",
    title="VIDM",
    paper="Mei, Patel: VIDM: Video Implicit Diffusion Models, AAAI 2023, arXiv 2212.00235",
    year=2023,
    status="trains",
    summary="Makes a frame by diffusion, then every next one from it, the frame before and their optical flow.",
    recipe="vidm_ucf101",
    parameters={
        "MotionGenerator": 194_178_226,
        "MotionGenerator.encoder": 44_122_880,
        "MotionGenerator.unet": 148_615_046,
        "SpyNet": 1_440_300,
    },
    parity_vectors=9,
    code="https://github.com/MKFMIKU/VIDM",
)

__all__ = ["FAMILY", "ContentGenerator", "FlowModel", "Layout", "MotionGenerator", "VIDMContent", "VIDMMotion"]
