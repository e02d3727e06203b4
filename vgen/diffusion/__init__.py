"""The diffusion core: schedules, prediction types, weights, noise, guidance and samplers. It knows no network."""

from vgen.diffusion.ancestral import Ancestral
from vgen.diffusion.extension import Extended
from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.guidance import classifier_free, guided
from vgen.diffusion.noise import ClipNoise, NoiseSource, mixed_noise
from vgen.diffusion.samplers import DDIM, DDPM, RespacedDDPM, Sampler
from vgen.diffusion.schedules import DiffusionSchedule
from vgen.diffusion.solvers import DPMSolverPP, UniPC
from vgen.diffusion.thresholding import Threshold
from vgen.diffusion.weighting import LossWeighting

__all__ = [
    "DDIM",
    "DDPM",
    "Ancestral",
    "ClipNoise",
    "DPMSolverPP",
    "DiffusionSchedule",
    "Extended",
    "GaussianDiffusion",
    "LossWeighting",
    "NoiseSource",
    "RespacedDDPM",
    "Sampler",
    "Threshold",
    "UniPC",
    "classifier_free",
    "guided",
    "mixed_noise",
]
