"""Networks of latent video diffusion: auto-encoders of single frames and of clips, and LVDM's U-Net."""

from vgen.models.video_ldm.networks.autoencoder3d import Autoencoder3D
from vgen.models.video_ldm.networks.frame_autoencoder import FrameAutoencoder
from vgen.models.video_ldm.networks.unet import LVDMUnet

__all__ = ["Autoencoder3D", "FrameAutoencoder", "LVDMUnet"]
