"""SVG: stochastic video generation with a fixed or a learned prior (Denton & Fergus, ICML 2018)."""

from vgen.models.card import FamilyCard
from vgen.models.svg.module import SVG
from vgen.models.svg.networks import SVGNetwork

FAMILY = FamilyCard(
    name="svg",
    title="SVG",
    paper="Denton, Fergus: Stochastic Video Generation with a Learned Prior, ICML 2018, arXiv 1802.07687",
    year=2018,
    status="trains",
    summary="Predicts video frame by frame behind past frames, with a latent of each frame: SVG-FP and SVG-LP.",
    recipe="svg_lp_moving_mnist",
    parameters={
        "SVG-LP of Moving MNIST (dcgan 64)": 12_614_057,
        "SVG-FP of KTH (vgg 64)": 22_206_385,
        "SVG-LP of BAIR (vgg 64)": 22_831_747,
        "SVG-LP of KTH (vgg 128)": 39_302_369,
    },
    parity_vectors=6,
    code="https://github.com/edenton/svg",
    license="none stated",
)

__all__ = ["FAMILY", "SVG", "SVGNetwork"]
