import math

import pytest
import torch

from tests.unit.diffusion.gaussian_data import MEAN, STD, errors, exact_denoiser, flow_of_ode
from vgen.diffusion import (
    DDIM,
    DDPM,
    ClipNoise,
    DiffusersSampler,
    DPMSolverPP,
    GaussianDiffusion,
    LossWeighting,
    RespacedDDPM,
    Threshold,
    UniPC,
    classifier_free,
    guidance,
    prediction,
    respacing,
    schedules,
    timesteps,
    weighting,
)
from vgen.errors import UserError

# DPM-Solver as first published, which cannot end at noise level zero
ORIGINAL = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}


def process(**arguments):
    return GaussianDiffusion(**({"threshold": Threshold("none"), "schedule": "linear"} | arguments))


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize(
    ("sampler", "mean_error", "std_error"),
    [
        (DDIM(50, eta=0.0), 0.02, 0.05),
        (DDIM(50, eta=0.0, spacing="leading"), 0.03, 0.05),
        (DDIM(200, eta=1.0), 0.02, 0.05),
        (DDIM(100, eta=0.0, rule="official"), 0.02, 0.08),  # its index rule costs some spread
        (DPMSolverPP(20), 0.02, 0.05),
        (DPMSolverPP(100, sde=True), 0.03, 0.06),
        (UniPC(20), 0.02, 0.05),
        (DiffusersSampler("DEISMultistep", 20), 0.02, 0.05),
        (DiffusersSampler("DPMSolverSinglestep", 30), 0.02, 0.05),
        (
            DiffusersSampler(
                "DPMSolverMultistep", 30, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
            ),
            0.02,
            0.05,
        ),
        (DiffusersSampler("PNDM", 30), 0.02, 0.03),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_samplers_reach_the_gaussian(sampler, mean_error, std_error, kind):
    diffusion = process(prediction=kind)
    x = sampler.sample(exact_denoiser(diffusion), (4, 5000), ClipNoise(range(4)), diffusion)
    assert abs(float(x.mean()) - MEAN) < mean_error
    assert abs(float(x.std()) - STD) < std_error


def test_ancestral_sampling_reaches_the_gaussian():
    diffusion = process(steps=250)
    x = DDPM().sample(exact_denoiser(diffusion), (2, 5000), ClipNoise([1, 2]), diffusion)
    assert abs(float(x.mean()) - MEAN) < 0.02
    assert abs(float(x.std()) - STD) < 0.03


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned", "learned_range"])
def test_respaced_ancestral_sampling_reaches_the_gaussian(variance):
    """A network that learned the variance gives that of the exact reverse step, wherever it lies."""
    diffusion = process(variance=variance)
    kept = RespacedDDPM(250).kept(diffusion)
    coarse = diffusion.respaced(kept)

    def denoise(x, t):
        eps = exact_denoiser(diffusion)(x, t)
        index = kept.index(int(t[0]))
        small, large = coarse.schedule.posterior_log_variance[index], coarse.schedule.betas.log()[index]
        inner = coarse.schedule.posterior_mean_coef1[index] ** 2 * STD**2
        alpha, sigma = diffusion.schedule.alpha_sigma(t, x)
        true = (small.exp() + inner * sigma**2 / (alpha**2 * STD**2 + sigma**2)).log()
        value = {"learned": true, "learned_range": 2 * (true - small) / (large - small) - 1}.get(variance)
        return eps if value is None else torch.cat((eps, value.expand_as(eps)), dim=1)

    x = RespacedDDPM(250).sample(denoise, (2, 5000), ClipNoise([1, 2]), diffusion)
    mean, std = errors(x)
    assert mean < 0.02 and std < {"fixed_small": 0.03, "fixed_large": 0.03}.get(variance, 0.015)
    assert RespacedDDPM("ddim100").calls(diffusion) == 100


def test_deterministic_samplers_follow_the_exact_ode():
    diffusion, noise = process(), ClipNoise([3])
    start = noise(0, (1, 500))
    wanted = flow_of_ode(start, 999, diffusion)
    for sampler, tolerance in [
        (DDIM(500, eta=0.0), 0.02),
        (DPMSolverPP(50), 0.01),
        (DiffusersSampler("PNDM", 50), 0.01),
    ]:
        x = sampler.sample(exact_denoiser(diffusion), (1, 500), noise, diffusion)
        torch.testing.assert_close(x, wanted, atol=tolerance, rtol=0)


def test_ddim_there_and_back():
    diffusion, sampler = process(), DDIM(500, eta=0.0)
    x = x0 = MEAN + STD * torch.randn(1, 200)
    denoise = exact_denoiser(diffusion)
    for now, after in [(t, t + 2) for t in range(1, 997, 2)]:
        x = sampler.step(diffusion, denoise(x, diffusion.full(now, x)), x, now, after)
    for now, after in [(t, t - 2) for t in range(997, 1, -2)]:
        x = sampler.step(diffusion, denoise(x, diffusion.full(now, x)), x, now, after)
    torch.testing.assert_close(x, x0, atol=0.03, rtol=0)  # first-order steps


def test_consistency_sampling():
    """A consistency function takes every time to the same end: one call is then enough, and more change nothing."""
    diffusion = process(prediction="x0")

    def exact(x, t):
        return flow_of_ode(x, int(t[0]), diffusion)

    for steps in (1, 4):
        x = DiffusersSampler("LCM", steps).sample(exact, (2, 5000), ClipNoise([1, 2]), diffusion)
        assert max(errors(x)) < 0.02


@pytest.mark.parametrize(
    ("scheduler", "arguments", "message"),
    [
        ("DDPM", {"variance_type": "fixed_large_log"}, "fixed_large_log and learned give NaN"),
        ("DDIMScheduler", {}, "use DDIM"),
        ("FlowMatchEulerDiscrete", {}, "shift twice"),
        ("UniPCMultistep", {"solver_type": "bh1"}, "gives NaN"),
        ("DPMSolverMultistep", {"algorithm_type": "dpmsolver"}, "cannot end at noise level zero"),
        ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver"}, "cannot end at noise level zero"),
        ("DEISMultistep", {"prediction_type": "epsilon"}, "come from the process"),
        ("DEISMultistp", {}, "did you mean 'DEISMultistep'"),
    ],
)
def test_broken_settings_of_diffusers_are_refused(scheduler, arguments, message):
    with pytest.raises(UserError) as caught:
        DiffusersSampler(scheduler, arguments=arguments)
    assert message in f"{caught.value} {caught.value.hint}"
    if scheduler == "UniPCMultistep":
        DiffusersSampler(scheduler, arguments=arguments | {"final_sigmas_type": "sigma_min"})


def test_zero_terminal_snr():
    diffusion = process(prediction="v", zero_snr=True)
    assert float(diffusion.schedule.alphas_cumprod[-1]) == 0 and float(diffusion.schedule.snr[-1]) == 0
    torch.testing.assert_close(diffusion.schedule.alphas_cumprod[0], process().schedule.alphas_cumprod[0])
    x = DDIM(100, eta=0.0).sample(exact_denoiser(diffusion), (2, 5000), ClipNoise([1, 2]), diffusion)
    mean, std = errors(x)
    assert mean < 0.02 and std < 0.04
    with pytest.raises(UserError, match="x0 cannot be had from eps"):
        process(zero_snr=True)


def test_the_bound_is_least_for_the_true_variance():
    """Half of the output's channels set the variance; the bound prefers what the exact reverse step has."""
    diffusion, size = process(variance="learned", vlb_weight=0.5), 400
    x0 = (MEAN + STD * torch.randn(4, 1, size)).clamp(-1, 1)
    noise, t = torch.randn(4, 1, size), torch.tensor([200, 400, 600, 800])
    x_t = diffusion.q_sample(x0, t, noise)
    eps = exact_denoiser(diffusion)(x_t, t)
    best = diffusion.schedule.posterior_log_variance[t].view(-1, 1, 1)
    bounds = []
    for off in (-0.5, 0.0, 0.5):
        output = torch.cat((eps, (best + off).expand_as(eps)), 1).requires_grad_()
        terms = diffusion.terms(output, x0, noise, t)
        torch.testing.assert_close(terms["loss"], terms["distance"] + 0.5 * terms["vlb"])
        bounds.append(float(terms["vlb"].detach().mean()))
    gradient = torch.autograd.grad(terms["vlb"].sum(), output)[0]
    assert not gradient[:, :1].any() and gradient[:, 1:].any()
    assert bounds[1] < bounds[0] and bounds[1] < bounds[2]


def test_every_frame_may_have_its_own_time():
    diffusion = process(loss_type="charbonnier", eta=1e-3, weighting=LossWeighting("p2", gamma=1.0))
    x0, noise, output = torch.randn(3, 2, 3, 4, 5, 5).unbind(0)
    t = torch.randint(0, 1000, (2, 4))
    frames = diffusion.q_sample(x0, t, noise)
    for i in range(4):
        torch.testing.assert_close(frames[:, :, i], diffusion.q_sample(x0[:, :, i], t[:, i], noise[:, :, i]))
    each = torch.stack([diffusion.losses(output[:, :, i], x0[:, :, i], noise[:, :, i], t[:, i]) for i in range(4)], 1)
    torch.testing.assert_close(diffusion.losses(output, x0, noise, t), each.mean(1))
    mask = torch.tensor([[False, True, True, True]] * 2)  # the first frame is a condition
    torch.testing.assert_close(diffusion.losses(output, x0, noise, t, mask), each[:, 1:].mean(1))
    same = t[:, :1].expand(2, 4)
    torch.testing.assert_close(diffusion.losses(output, x0, noise, same), diffusion.losses(output, x0, noise, t[:, 0]))


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "flow", "score", "edm"])
def test_conversions_undo_targets(kind):
    x0, eps = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind(0)
    alpha, sigma = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    if kind == "flow":
        alpha = 1 - sigma
    if kind == "edm":
        alpha = torch.ones_like(sigma)
    x_t = alpha * x0 + sigma * eps
    output = prediction.target(kind, x0, eps, alpha, sigma)
    torch.testing.assert_close(prediction.to_x0(kind, output, x_t, alpha, sigma), x0)
    torch.testing.assert_close(prediction.to_eps(kind, output, x_t, alpha, sigma), eps)


def test_cosine_schedule_of_lfdm():
    beta = schedules.cosine_betas(1000)
    assert float(beta[0]) == pytest.approx(4.128e-5, rel=1e-3)
    assert float(beta[998]) == pytest.approx(0.74999, rel=1e-4)
    assert float(beta[999]) == 0.9999
    assert float((1 - beta).cumprod(0)[-1]) == pytest.approx(2.4e-10, rel=0.02)
    assert float(schedules.betas("cosine_iddpm", 1000).max()) == 0.999


def test_linear_schedules():
    beta = schedules.betas("linear", 500)
    assert (float(beta[0]), float(beta[-1])) == (pytest.approx(2e-4), pytest.approx(0.04))
    scaled = schedules.betas("scaled_linear", 1000)
    assert (float(scaled[0]), float(scaled[-1])) == (pytest.approx(0.00085), pytest.approx(0.012))
    assert not process().state_dict()


def test_official_ddim_times():
    assert [t for t, _ in DDIM(10, rule="official").times(1000)] == [909, 818, 727, 636, 545, 454, 363, 272, 181, 90]
    assert DDIM(10, rule="official").times(1000)[-1] == (90, 0)
    times = DDIM(100, rule="official").times(1000)
    assert times[0] == (990, 980)
    assert len(times) == 100


def test_corrected_ddim_times():
    assert DDIM(10).times(1000)[0] == (999, 899)
    assert DDIM(10).times(1000)[-1] == (99, -1)
    assert DDIM(10, spacing="leading").times(1000)[-1] == (0, -1)
    with pytest.raises(ValueError, match="DDPM takes all"):
        DDIM(1000).times(1000)


def test_ddim_with_thresholding_rederives_eps():
    """With every x0 cut to one value, each step must move towards that value along the noise that explains it."""
    diffusion = process(threshold=Threshold("clamp", 0.2, 0.2), schedule="cosine")
    x = DDIM(5, eta=0.0).sample(lambda x, t: torch.zeros_like(x), (1, 8), ClipNoise([0]), diffusion)
    torch.testing.assert_close(x, torch.full((1, 8), 0.2))


def test_options_change_a_copy():
    sampler = DDIM(50, rule="official")
    assert sampler.changed({"steps": 7}).steps == 7
    assert sampler.changed({"steps": 7}).rule == "official"
    assert sampler.steps == 50
    with pytest.raises(UserError, match="no option 'step'"):
        sampler.changed({"step": 7})
    with pytest.raises(UserError, match="no options"):
        DDPM().changed({"steps": 7})


def test_a_call_may_name_another_sampler():
    own, options = DDIM(50, rule="official"), {"sampler": DDIM(20, eta=0.5), "steps": 7}
    assert (own.chosen({"steps": 7}).rule, own.chosen({"steps": 7}).steps) == ("official", 7)
    chosen = own.chosen(options)
    assert (chosen.eta, chosen.steps, chosen.rule) == (0.5, 7, options["sampler"].rule)
    assert options["sampler"].steps == 20 and len(options) == 2
    with pytest.raises(UserError, match="DDPM has no option 'steps'"):
        own.chosen({"sampler": DDPM(), "steps": 7})


def test_noise_is_a_function_of_seed_and_step():
    together, alone = ClipNoise([5, 6, 7])(3, (3, 2, 4)), ClipNoise([6])(3, (1, 2, 4))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(ClipNoise([6])(4, (1, 2, 4)), alone)
    torch.rand(3)
    assert torch.equal(ClipNoise([6])(3, (1, 2, 4)), alone)
    with pytest.raises(ValueError, match="seeds"):
        ClipNoise([1])(0, (2, 3))


def test_trajectory_does_not_depend_on_batch_mates():
    diffusion = process(schedule="cosine", threshold=Threshold("dynamic"))
    sampler = DDIM(5, eta=1.0, rule="official")
    many = sampler.sample(lambda x, t: 0.5 * x, (3, 2, 6), ClipNoise([1, 2, 3]), diffusion)
    one = sampler.sample(lambda x, t: 0.5 * x, (1, 2, 6), ClipNoise([2]), diffusion)
    assert torch.equal(many[1:2], one)


def test_thresholds():
    x0 = 3 * torch.randn(2, 3, 4, 5)
    bound = torch.quantile(x0.flatten(1).abs(), 0.9, dim=1).clamp(min=1).view(2, 1, 1, 1)
    torch.testing.assert_close(Threshold("dynamic")(x0), x0.clamp(-bound, bound) / bound)
    small = x0 / 100
    assert torch.equal(Threshold("dynamic")(small), small)
    assert torch.equal(Threshold("none")(x0), x0)
    cut = Threshold("clamp", (-1.0, -2.0, -0.5), 0.5)(x0)
    assert cut.amax() == 0.5
    assert cut.amin((0, 2, 3)).tolist() == [-1, -2, -0.5]


def test_weights():
    snr = torch.tensor([0.0, 1.0, 20.0])
    assert weighting.min_snr(snr, "eps").tolist() == [1, 1, 0.25]
    assert weighting.min_snr(snr, "x0").tolist() == [0, 1, 5]
    torch.testing.assert_close(weighting.min_snr(snr, "v"), torch.tensor([0, 0.5, 5 / 21]))
    torch.testing.assert_close(weighting.p2(snr), 1 / (1 + snr))
    assert float(weighting.edm(torch.tensor(0.5))) == pytest.approx(8)
    with pytest.raises(ValueError, match="min-SNR"):
        weighting.min_snr(snr, "flow")


def test_min_snr_of_v_is_that_of_x0():
    """|v error|^2 = (snr + 1) |x0 error|^2, so the two weighted losses agree."""
    x0, noise, output = torch.randn(3, 6, 10).unbind(0)
    diffusion = process(prediction="v", weighting=LossWeighting("min_snr"), schedule="cosine")
    t = torch.tensor([5, 100, 300, 500, 700, 900])
    alpha, sigma = diffusion.schedule.alpha_sigma(t, x0)
    error = (prediction.to_x0("v", output, diffusion.q_sample(x0, t, noise), alpha, sigma) - x0).square().mean(1)
    expected = weighting.min_snr(diffusion.schedule.snr[t], "x0") * error
    torch.testing.assert_close(diffusion.losses(output, x0, noise, t), expected, atol=1e-5, rtol=2e-3)


def test_process_is_rebuilt_from_its_record():
    diffusion = process(prediction="v", weighting=LossWeighting("min_snr"), threshold=Threshold("clamp", (-1.0, -2.0)))
    assert GaussianDiffusion(**diffusion.configuration).configuration == diffusion.configuration


def test_guidance():
    cond, null = torch.randn(2, 3, 4, 5).unbind(0)
    torch.testing.assert_close(classifier_free(cond, null, 1.0), cond)
    torch.testing.assert_close(classifier_free(cond, null, 0.0), null)
    rescaled = classifier_free(cond, null, 7.0, rescale=1.0)
    torch.testing.assert_close(rescaled.std((1, 2)), cond.std((1, 2)))


def test_guidance_of_two_conditions_and_per_frame():
    both, first, neither = torch.randn(3, 2, 3, 4, 5, 5).unbind(0)
    torch.testing.assert_close(guidance.two_conditions(both, first, neither, 1.0, 1.0), both)
    torch.testing.assert_close(guidance.two_conditions(both, first, neither, 1.0, 0.0), first)
    scales = guidance.per_frame(1.0, 2.5, 4)
    guided = classifier_free(both, neither, scales)
    torch.testing.assert_close(guided[:, :, 0], both[:, :, 0])
    torch.testing.assert_close(guided[:, :, 3], classifier_free(both, neither, 2.5)[:, :, 3])


def test_steps_that_are_kept():
    assert respacing.space_timesteps(300, "10,15,20")[9:12] == [99, 100, 107]
    assert respacing.space_timesteps(1000, 3) == [0, 500, 999]
    for wrong, message in [("ddim300", "no whole stride"), ("five", "neither N"), ("2000", "cannot take")]:
        with pytest.raises(UserError, match=message):
            respacing.space_timesteps(1000, wrong)


def test_weights_of_x0_in_other_spaces():
    snr, error = torch.tensor([0.2, 3.0]), 0.7
    alpha, sigma = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    weight = LossWeighting("truncated_snr")
    wanted = weight(snr, "x0") * error**2
    torch.testing.assert_close(weight(snr, "eps") * (error * alpha / sigma) ** 2, wanted)
    torch.testing.assert_close(weight(snr, "v") * (error / sigma) ** 2, wanted)  # v = (alpha x_t - x0)/sigma
    time = 1 / (1 + snr.sqrt())
    torch.testing.assert_close(weight(snr, "flow") * (error / time) ** 2, wanted)
    torch.testing.assert_close(LossWeighting("edm")(snr, "x0"), weighting.edm(snr**-0.5))


def test_timesteps():
    assert timesteps.uniform(1000, 10).unique().tolist() == list(range(10))
    assert timesteps.stratified(10, 10).sort().values.tolist() == list(range(10))
    assert float(timesteps.lognormal_sigmas(4000).log().mean()) == pytest.approx(-1.2, abs=0.1)
    assert math.isclose(float(timesteps.logit_normal(4000).mean()), 0.5, abs_tol=0.02)
