"""Networks of VIDM: content generator, motion generator and their U-Net."""

from vgen.models.vidm.networks.generators import ContentGenerator, MotionGenerator
from vgen.models.vidm.networks.unet import Encoder2d, Layout, UNet2d

__all__ = ["ContentGenerator", "Encoder2d", "Layout", "MotionGenerator", "UNet2d"]
