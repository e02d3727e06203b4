"""Networks of PVDM: the autoencoder of planes, and the plane U-Net."""

from vgen.models.pvdm.networks.autoencoder import ViTAutoencoder
from vgen.models.pvdm.networks.unet import PlaneUNet

__all__ = ["PlaneUNet", "ViTAutoencoder"]
