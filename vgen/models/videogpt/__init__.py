"""VideoGPT: a VQ-VAE with axial attention and a transformer over its codes (Yan et al. 2021)."""

from vgen.models.card import FamilyCard
from vgen.models.videogpt.module import VideoGPT
from vgen.models.videogpt.networks import VQVAE, CodeTransformer
from vgen.models.videogpt.vqvae_module import VideoVQVAE

FAMILY = FamilyCard(
    name="videogpt",
    title="VideoGPT",
    paper="Yan, Zhang, Abbeel, Srinivas: VideoGPT: Video Generation using VQ-VAE and Transformers, 2021, "
    "arXiv 2104.10157",
    year=2021,
    status="trains",
    summary="Generates the codes of a clip one by one: without conditions, of a class, or behind first frames.",
    recipe="videogpt_ucf101",
    parameters={
        "VQ-VAE": 21_141_619,
        "prior, 8 layers": 33_238_464,
        "prior, 8 layers, 101 classes": 35_196_864,
        "prior, 8 layers, one given frame (with its ResNet-34)": 72_471_920,
        "prior, 16 layers": 65_135_040,
    },
    parity_vectors=6,
    code="https://github.com/wilson1yan/VideoGPT",
    license="MIT",
)

__all__ = ["FAMILY", "VQVAE", "CodeTransformer", "VideoGPT", "VideoVQVAE"]
