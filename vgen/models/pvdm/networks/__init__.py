"""Networks of PVDM: the autoencoder of planes, the discriminators of its last phase, the plane U-Net."""

from vgen.models.pvdm.networks.autoencoder import ViTAutoencoder
from vgen.models.pvdm.networks.discriminators import PatchDiscriminator
from vgen.models.pvdm.networks.unet import PlaneUNet

__all__ = ["PatchDiscriminator", "PlaneUNet", "ViTAutoencoder"]
