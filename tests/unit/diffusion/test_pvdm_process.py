"""What PVDM asks of the diffusion core: its schedule, the bound that it logs, its sampler's times."""

import pytest
import torch

from vgen.diffusion import DDIM, ClipNoise, GaussianDiffusion


def test_ends_of_a_schedule():
    process = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0195))
    beta = process.schedule.betas
    assert (float(beta[0]), float(beta[-1])) == (pytest.approx(0.0015), pytest.approx(0.0195))
    middle = ((0.0015**0.5 + 0.0195**0.5) / 2) ** 2
    assert float(beta[499:501].mean()) == pytest.approx(middle, rel=1e-3)
    assert GaussianDiffusion(**process.configuration).schedule.betas.equal(beta)
    with pytest.raises(ValueError, match="no ends to choose"):
        GaussianDiffusion("cosine", beta_ends=(0.1, 0.2))


def test_weights_of_the_bound():
    """They turn the error of eps into the divergence of two Gaussians of equal variance (Ho et al. 2020, eq. 8)."""
    schedule = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0195)).schedule
    x0, eps, wrong = torch.randn(3, 1, 6)
    t = torch.tensor([300])
    alpha, sigma = schedule.alpha_sigma(t, x0)
    x_t = alpha * x0 + sigma * eps
    means = [schedule.posterior((x_t - sigma * noise) / alpha, x_t, t)[0] for noise in (eps, wrong)]
    divergence = (means[0] - means[1]).square() / (2 * schedule.posterior_variance[t])
    torch.testing.assert_close(schedule.vlb_weights[t] * (eps - wrong).square(), divergence, rtol=1e-3, atol=1e-6)
    assert schedule.vlb_weights.isfinite().all() and schedule.vlb_weights[0] == schedule.vlb_weights[1]


def test_times_of_the_released_sampler():
    assert DDIM(5, rule="pvdm").times(1000) == [(999, 799), (799, 599), (599, 399), (399, 199), (199, -1)]
    found = DDIM(400, rule="pvdm").times(1000)
    assert len(found) == 400 and found[0] == (999, 996) and found[-1] == (1, -1)


def test_it_keeps_the_networks_noise_where_x0_is_cut():
    """Unlike the corrected rule: the first step goes along eps although x0 was moved."""
    process = GaussianDiffusion("scaled_linear", 10, beta_ends=(0.05, 0.5))
    noise, table = ClipNoise([0]), process.schedule.alphas_cumprod
    (first, second), _ = DDIM(2, 0.0, "pvdm").times(10)
    seen = []

    def denoise(x, t):
        seen.append(x)
        return torch.full_like(x, 0.5)

    DDIM(2, 0.0, "pvdm").sample(denoise, (1, 6), noise, process)
    x0 = ((seen[0] - (1 - table[first]).sqrt() * 0.5) / table[first].sqrt()).clamp(-1, 1)
    assert (x0.abs() == 1).any()
    torch.testing.assert_close(seen[1], table[second].sqrt() * x0 + (1 - table[second]).sqrt() * 0.5)
