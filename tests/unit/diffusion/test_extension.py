"""VDM's sampler, and frames behind given ones, on Gaussians whose exact denoiser is known."""

import pytest
import torch

from vgen.diffusion import DDIM, DDPM, Ancestral, ClipNoise, Extended, GaussianDiffusion, Threshold

MEAN, STD = 0.3, 0.5
COUNT, FRAMES, CORRELATION = 2000, 4, 0.9


def process(**arguments):
    return GaussianDiffusion(**({"threshold": Threshold("none"), "schedule": "linear"} | arguments))


def independent(diffusion):
    """The exact denoiser of data N(MEAN, STD^2)."""

    def denoise(x, t):
        alpha, sigma = diffusion.schedule.alpha_sigma(t, x)
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        return diffusion.output_of(x0, x, t)

    return denoise


@pytest.mark.parametrize(
    ("sampler", "error"),
    [
        (Ancestral(200), 0.03),
        (Ancestral(100, variance=0.3), 0.03),
        (Ancestral(50, variance=0.3, corrector=0.1), 0.04),
    ],
    ids=["smallest variance", "larger variance", "corrected"],
)
def test_it_reaches_the_gaussian(sampler, error):
    diffusion = process()
    x = sampler.sample(independent(diffusion), (4, 5000), ClipNoise(range(4)), diffusion)
    assert abs(float(x.mean()) - MEAN) < error and abs(float(x.std()) - STD) < error


def test_all_steps_are_ddpm():
    diffusion = process(steps=20, schedule="cosine", threshold=Threshold("clamp"))
    found = [
        sampler.sample(independent(diffusion), (2, 50), ClipNoise([3, 4]), diffusion)
        for sampler in (Ancestral(20), DDPM())
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], Ancestral(20, 0.5).sample(
        independent(diffusion), (2, 50), ClipNoise([3, 4]), diffusion
    ))  # fmt: skip


@pytest.mark.parametrize(("corrector", "calls"), [(0.0, 7), (0.1, 13)])
def test_network_calls(corrector, calls):
    sampler = Ancestral(7, corrector=corrector)
    diffusion, seen = process(), []
    sampler.sample(lambda x, t: seen.append(int(t[0])) or torch.zeros_like(x), (1, 8), ClipNoise([0]), diffusion)
    assert len(seen) == calls == sampler.calls(diffusion)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ancestral(variance=2.0)


def frames_of_one_clip(diffusion):
    """The exact denoiser of clips whose frames are standard normal and correlate by CORRELATION^distance."""
    distance = (torch.arange(FRAMES)[:, None] - torch.arange(FRAMES)).abs()
    covariance = CORRELATION**distance

    def denoise(x, t):
        alpha, sigma = (value[0].item() for value in diffusion.schedule.alpha_sigma(t, x))
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(FRAMES))
        return diffusion.output_of(torch.einsum("st,bct->bcs", gain, x), x, t)

    return denoise


def one_stream(seed):
    """Noise of a whole batch from one generator, quicker than one for each of thousands of clips."""
    return lambda step, shape: torch.randn(shape, generator=torch.Generator().manual_seed(100_000 * seed + step))


def extended(kind, weight, sampler=DDIM(50, eta=1.0)):  # noqa: B008
    """Clips that go on behind two given frames."""
    diffusion = process(prediction=kind, schedule="cosine")
    first = torch.randn(COUNT, 1, 1, generator=torch.Generator().manual_seed(1))
    step = torch.randn(COUNT, 1, 1, generator=torch.Generator().manual_seed(2))
    given = torch.cat((first, CORRELATION * first + (1 - CORRELATION**2) ** 0.5 * step), dim=2)
    noise = one_stream(3)
    denoise = Extended(frames_of_one_clip(diffusion), diffusion, given, weight, lambda t: noise(5000 + t, given.shape))
    return given, sampler.sample(denoise, (COUNT, 1, FRAMES), one_stream(4), diffusion)


def correlation(a, b):
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_guidance_makes_the_next_frame_follow(kind):
    given, replaced = extended(kind, weight=0.0)
    _, guided = extended(kind, weight=2.0)
    torch.testing.assert_close(guided[:, :, :2], given)
    errors = [abs(correlation(given[:, :, 1], clip[:, :, 2]) - CORRELATION) for clip in (replaced, guided)]
    assert errors[1] < 0.03 < errors[0]
    assert abs(float(guided[:, :, 2].std()) - 1) < 0.15


def test_no_parameter_gets_a_gradient():
    diffusion, layer = process(), torch.nn.Linear(FRAMES, FRAMES)
    given, noise = torch.zeros(1, 1, 2), ClipNoise([0])
    denoise = Extended(lambda x, t: layer(x), diffusion, given, 1.0, lambda t: noise(t, given.shape))
    with torch.no_grad():
        out = denoise(torch.randn(1, 1, FRAMES), torch.tensor([500]))
    assert layer.weight.grad is None and not out.requires_grad


def test_an_output_and_what_it_means_are_inverse():
    x_t, x0, t = torch.randn(3, 2, 5), torch.randn(3, 2, 5), torch.tensor([10, 400, 900])
    for kind in ("eps", "x0", "v"):
        diffusion = process(prediction=kind)
        torch.testing.assert_close(
            diffusion.estimate(diffusion.output_of(x0, x_t, t), x_t, t), x0, atol=1e-4, rtol=1e-3
        )


def test_the_ends_of_a_schedule():
    betas = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0155)).schedule.betas
    torch.testing.assert_close(betas[[0, -1]], torch.tensor([0.0015, 0.0155]))
    torch.testing.assert_close(betas.sqrt().diff(), betas.sqrt().diff().mean().expand(999), atol=1e-6, rtol=1e-3)
    with pytest.raises(ValueError, match="cosine schedule"):
        GaussianDiffusion("cosine", beta_ends=(0.1, 0.2))
