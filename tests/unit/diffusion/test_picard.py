"""Parallel sampling finds what its sequential sampler finds."""

import pytest
import torch

from tests.unit.diffusion.gaussian_data import errors, exact_denoiser
from vgen.diffusion import DDIM, DDPM, ClipNoise, GaussianDiffusion, Picard, RespacedDDPM, Threshold, UniPC
from vgen.diffusion.picard import rows
from vgen.errors import UserError


def process(**more):
    return GaussianDiffusion("linear", threshold=Threshold("none"), **more)


def curved(diffusion):
    """A network whose path is no straight line, and whose rows do not see each other."""
    exact = exact_denoiser(diffusion)
    return lambda x, t: exact(x, t) + 0.3 * torch.sin(3 * x)


@pytest.mark.parametrize(
    "sampler", [DDIM(20, eta=0.0), DDIM(20, eta=1.0), RespacedDDPM(20), DDPM()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("window", [1, 7, 1000])
def test_without_tolerance_it_is_the_sequential_sampler(sampler, window):
    if isinstance(sampler, DDPM) and not isinstance(sampler, RespacedDDPM):
        diffusion = process(steps=30)
    else:
        diffusion = process()
    noise, seen = ClipNoise([3, 4]), []

    def denoise(x, t):
        seen.append(len(x))
        return curved(diffusion)(x, t)

    expected = sampler.sample(curved(diffusion), (2, 3, 5), noise, diffusion)
    found = Picard(sampler, window, tolerance=0.0).sample(denoise, (2, 3, 5), noise, diffusion)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert len(seen) <= sampler.calls(diffusion) == Picard(sampler).calls(diffusion)
    assert set(seen) == {2 * window}


def test_a_tolerance_saves_rounds_and_costs_little():
    diffusion, sampler, rounds = process(), DDIM(100, eta=0.0), []

    def denoise(x, t):
        rounds.append(1)
        return curved(diffusion)(x, t)

    expected = sampler.sample(curved(diffusion), (2, 50), ClipNoise([1, 2]), diffusion)
    found = Picard(sampler, 32, 1e-3).sample(denoise, (2, 50), ClipNoise([1, 2]), diffusion)
    assert len(rounds) <= 40
    assert (found - expected).square().mean().sqrt() < 2e-2


def test_the_analytic_gaussian():
    diffusion = process()
    for sampler in (DDIM(50, eta=0.0), RespacedDDPM(100)):
        x = Picard(sampler, 16).sample(exact_denoiser(diffusion), (2, 5000), ClipNoise([1, 2]), diffusion)
        mean, std = errors(x)
        assert mean < 0.03 and std < 0.05


def test_a_clip_does_not_depend_on_its_batch():
    diffusion, sampler = process(), Picard(DDIM(30, eta=1.0), 8, 1e-2)
    both = sampler.sample(curved(diffusion), (2, 40), ClipNoise([1, 2]), diffusion)
    alone = sampler.sample(curved(diffusion), (1, 40), ClipNoise([2]), diffusion)
    torch.testing.assert_close(both[1:], alone)


def test_options_and_mistakes():
    changed = Picard(DDIM(50)).changed({"window": 4, "steps": 10})
    assert (changed.window, changed.sampler.steps, changed.tolerance) == (4, 10, 1e-3)
    with pytest.raises(UserError, match="no option"):
        Picard().changed({"stepps": 3})
    with pytest.raises(UserError, match="UniPC is no chain"):
        Picard(UniPC())
    with pytest.raises(UserError, match="at least one step"):
        Picard(window=0)


def test_rows_of_a_condition():
    condition = torch.arange(2)[:, None]
    assert rows(condition, torch.zeros(2, 5)) is condition
    assert rows(condition, torch.zeros(6, 5)).flatten().tolist() == [0, 1, 0, 1, 0, 1]
