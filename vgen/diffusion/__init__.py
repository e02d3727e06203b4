"""The diffusion core: schedules, prediction types, weights, noise, guidance and samplers. It knows no network."""

from vgen.diffusion.ancestral import Ancestral
from vgen.diffusion.continuous import ContinuousDiffusion
from vgen.diffusion.continuous_schedules import VE, VP, ContinuousSchedule, Flow, Karras, SubVP
from vgen.diffusion.extension import Extended
from vgen.diffusion.flow_samplers import FlowSampler
from vgen.diffusion.gaussian import GaussianDiffusion
from vgen.diffusion.guidance import classifier_free, guided
from vgen.diffusion.karras import KarrasSampler, Levels
from vgen.diffusion.noise import ClipNoise, NoiseSource, mixed_noise
from vgen.diffusion.picard import Picard
from vgen.diffusion.preconditioning import Preconditioning
from vgen.diffusion.predictor_corrector import PredictorCorrector, ProbabilityFlow
from vgen.diffusion.samplers import DDIM, DDPM, RespacedDDPM, Sampler
from vgen.diffusion.schedules import DiffusionSchedule
from vgen.diffusion.solvers import DiffusersSampler, DPMSolverPP, UniPC
from vgen.diffusion.thresholding import Threshold
from vgen.diffusion.time_sampling import TimeSampling
from vgen.diffusion.weighting import LossWeighting

__all__ = [
    "DDIM",
    "DDPM",
    "VE",
    "VP",
    "Ancestral",
    "ClipNoise",
    "ContinuousDiffusion",
    "ContinuousSchedule",
    "DPMSolverPP",
    "DiffusersSampler",
    "DiffusionSchedule",
    "Extended",
    "Flow",
    "FlowSampler",
    "GaussianDiffusion",
    "Karras",
    "KarrasSampler",
    "Levels",
    "LossWeighting",
    "NoiseSource",
    "Picard",
    "Preconditioning",
    "PredictorCorrector",
    "ProbabilityFlow",
    "RespacedDDPM",
    "Sampler",
    "SubVP",
    "Threshold",
    "TimeSampling",
    "UniPC",
    "classifier_free",
    "guided",
    "mixed_noise",
]
