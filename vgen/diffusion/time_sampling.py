"""Which time each sample of a training batch gets in continuous diffusion."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vgen.diffusion import timesteps
from vgen.diffusion.continuous_schedules import ContinuousSchedule
from vgen.diffusion.flow import shifted


@dataclass(frozen=True)
class TimeSampling:
    """The density of training times.

    Args:
        kind: uniform between the schedule's first and last time (VP, sub-VP; VE: log sigma is uniform); lognormal:
            ln(sigma/alpha) ~ N(mean, std^2) (EDM); logit_normal: logit t ~ N(mean, std^2) (flows).
        mean: Of lognormal and logit_normal.
        std: Likewise.
        shift: Moves times in [0, 1] towards noise (`shifted`); 1 does not.
        stratified: Spread uniform draws evenly over the batch (Kingma et al. 2021, appendix I.1).
    """

    kind: Literal["uniform", "lognormal", "logit_normal"] = "uniform"
    mean: float = -1.2
    std: float = 1.2
    shift: float = 1.0
    stratified: bool = False

    def __call__(self, schedule: ContinuousSchedule, batch: int, device: torch.device | None = None) -> Tensor:
        """(batch,) fp32, from the device's global generator."""
        if self.kind == "lognormal":
            sigma = timesteps.lognormal_sigmas(batch, self.mean, self.std, device)
            return schedule.t_from_log_snr(-2 * sigma.log())
        if self.kind == "logit_normal":
            u = timesteps.logit_normal(batch, self.mean, self.std, device)
        elif self.stratified:
            u = (torch.rand(1, device=device) + torch.randperm(batch, device=device) / batch) % 1
        else:
            u = torch.rand(batch, device=device)
        return schedule.first + (schedule.last - schedule.first) * shifted(u, self.shift)


def frame_times(batch: int, frames: int, steps: int, device: torch.device | None = None) -> Tensor:
    """An integer time of its own for every frame (Chen et al. 2024, "Diffusion Forcing", section 3.2): (batch, frames).

    Args:
        batch: Clips.
        frames: Frames T.
        steps: Steps of the schedule.
        device: Whose global generator draws.
    """
    return torch.randint(0, steps, (batch, frames), device=device)
