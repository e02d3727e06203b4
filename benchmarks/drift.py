"""How far bf16 autocast takes the networks' outputs away from fp32, on the same weights and inputs."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Precision, Variant, autocast
from benchmarks.rows import ROWS
from vgen.models.lfdm import LFDM

_BOTH: tuple[Precision, Precision] = ("32", "bf16")
#: Largest accepted deviation of freshly initialised networks: root mean square of the difference / of the fp32 output.
BOUNDS = {"flow": 0.02, "occlusion": 0.02, "prediction": 0.02, "z0": 0.02, "denoiser": 0.03}


def relative(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of what is wanted."""
    found, wanted = found.double(), wanted.double()
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@torch.no_grad()
def outputs(model: LFDM, batch: dict[str, Any], variant: Variant) -> dict[str, Tensor]:
    """What both stages compute in a step and in a reconstruction; the denoiser's noise is the same every time."""
    with autocast(variant):
        latent = model.autoencoder.encode(batch["video"])
        z0 = model.autoencoder.features(batch["video"][:, :, 0])
        prediction = (model.autoencoder.decode(latent) + 1) / 2  # of an untrained decoder grey, which would be 0
        generator = torch.Generator().manual_seed(2)
        shape = latent["flow"].shape
        noisy = torch.randn(shape[0], 3, *shape[2:], generator=generator).to(z0.device)
        time = torch.linspace(50, 950, len(noisy)).long().to(z0.device)
        denoised = model.denoiser(noisy, time, model.conditioner(model.conditions(batch)), z0)
    found = {"flow": latent["flow"], "occlusion": latent["occlusion"], "prediction": prediction}
    return {name: value.float() for name, value in {**found, "z0": z0, "denoiser": denoised}.items()}


def drift(row: str, device: str) -> dict[str, float]:
    """Deviation of each output of a DM row under bf16 autocast."""
    torch.manual_seed(0)
    case = ROWS[row]
    model = case.module(False).to(device).eval()
    if not isinstance(model, LFDM):
        raise ValueError(f"{row} is no row of the second stage")
    batch = model.on_after_batch_transfer(case.batch(2, device), 0)
    exact, rounded = (outputs(model, batch, Variant(device, precision)) for precision in _BOTH)
    return {name: relative(rounded[name], exact[name]) for name in exact}
