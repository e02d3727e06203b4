import copy
import math

import pytest
import torch
from jsonargparse import ArgumentParser

from tests.unit.diffusion.gaussian_data import MEAN, STD, errors, exact_denoiser, flow_of_ode
from vgen.configurable import describe
from vgen.diffusion import (
    VE,
    VP,
    ClipNoise,
    ContinuousDiffusion,
    Flow,
    FlowSampler,
    Karras,
    KarrasSampler,
    Levels,
    LossWeighting,
    PredictorCorrector,
    ProbabilityFlow,
    SubVP,
    Threshold,
    TimeSampling,
)
from vgen.diffusion.ode import divergence, log_likelihood_bits
from vgen.diffusion.runge_kutta import solve
from vgen.diffusion.time_sampling import frame_times
from vgen.errors import UserError

SCHEDULES = [VP(), SubVP(), VE(), Karras(), Flow()]
PROCESSES = {
    "vp": ContinuousDiffusion(VP()),
    "subvp": ContinuousDiffusion(SubVP()),
    "ve": ContinuousDiffusion(VE(sigma_max=20.0), "score"),
    "edm": ContinuousDiffusion(Karras(), "x0", label="sigma"),
    "flow": ContinuousDiffusion(Flow(), "flow", label="time"),
}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_are_their_own_inverse_and_solve_their_sde(schedule):
    t = torch.linspace(schedule.first + 1e-3, 0.97 * schedule.last, 40, dtype=torch.float64)
    back = schedule.t_from_log_snr(schedule.log_snr(t))
    torch.testing.assert_close(back, t, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(schedule.log_alpha(t).exp(), schedule.alpha(t))
    # d log alpha/dt = f, and d sigma^2/dt = 2 f sigma^2 + g^2
    step = 1e-6 * schedule.last
    ahead, behind = t + step, t - step
    slope = (schedule.log_alpha(ahead) - schedule.log_alpha(behind)) / (2 * step)
    torch.testing.assert_close(slope, schedule.drift(t), atol=1e-6, rtol=1e-5)
    variance = (schedule.sigma(ahead) ** 2 - schedule.sigma(behind) ** 2) / (2 * step)
    expected = 2 * schedule.drift(t) * schedule.sigma(t) ** 2 + schedule.diffusion(t) ** 2
    torch.testing.assert_close(variance, expected, atol=1e-6, rtol=1e-5)


def rebuilt(process):
    """As a checkpoint does: from its description, by the parser of recipes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(torch.nn.Module, "process")
    return parser.instantiate(parser.parse_object({"process": describe(process)})).process


CASES = [
    ("vp", PredictorCorrector(300, "euler_maruyama", "none", end=1e-3), 0.03, 0.03),
    ("vp", PredictorCorrector(300, "reverse_diffusion", "langevin", end=1e-3), 0.03, 0.04),
    ("vp", PredictorCorrector(300, "ancestral", "none", end=1e-3), 0.03, 0.03),
    ("subvp", PredictorCorrector(300, "euler_maruyama", "none", end=1e-3), 0.03, 0.03),
    ("subvp", PredictorCorrector(300, "reverse_diffusion", "annealed_langevin", end=1e-3), 0.03, 0.04),
    ("ve", PredictorCorrector(300, "reverse_diffusion", "langevin"), 0.03, 0.04),
    ("ve", PredictorCorrector(300, "ancestral", "none"), 0.03, 0.03),
    ("ve", PredictorCorrector(200, "none", "annealed_langevin", 0.3, 5), 0.05, 0.05),
    ("vp", ProbabilityFlow(1e-4), 0.02, 0.02),
    ("subvp", ProbabilityFlow(1e-4), 0.02, 0.02),
    ("ve", ProbabilityFlow(1e-4, end=1e-5), 0.02, 0.02),
    ("edm", KarrasSampler(36), 0.02, 0.02),
    ("edm", KarrasSampler(64, "euler"), 0.02, 0.05),
    ("edm", KarrasSampler(256, churn=40.0, churn_min=0.05, churn_max=50.0, churn_noise=1.003), 0.02, 0.03),
    ("edm", KarrasSampler(150, levels=Levels("ve", 0.002, 80.0, schedule="ve")), 0.02, 0.03),
    ("vp", KarrasSampler(36), 0.02, 0.02),
    ("ve", KarrasSampler(30, levels=Levels("vp", schedule="vp", scaling="vp")), 0.02, 0.03),
    ("flow", FlowSampler(60), 0.02, 0.03),
    ("flow", FlowSampler(20, "heun"), 0.02, 0.02),
    ("flow", FlowSampler(30, "heun", shift=3.0), 0.02, 0.02),
]


@pytest.mark.parametrize(("name", "sampler", "mean", "std"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_samplers_reach_the_gaussian(name, sampler, mean, std):
    process = PROCESSES[name]
    x = sampler.sample(exact_denoiser(process), (4, 5000), ClipNoise(range(4)), process)
    off = errors(x)
    assert off[0] < mean and off[1] < std, off
    assert sampler.calls(process) > 0


@pytest.mark.parametrize(
    ("name", "sampler", "tolerance"),
    [
        ("vp", ProbabilityFlow(1e-5, end=1e-4), 3e-3),
        ("edm", KarrasSampler(160), 2e-3),
        ("flow", FlowSampler(40, "heun"), 5e-3),
    ],
    ids=["vp", "edm", "flow"],
)
def test_deterministic_samplers_follow_the_exact_ode(name, sampler, tolerance):
    """Every start ends where the ODE takes it, not only all together."""
    process, noise = PROCESSES[name], ClipNoise([1, 2])
    x = sampler.sample(exact_denoiser(process), (2, 500), noise, process)
    last = process.schedule.last
    start = noise(0, (2, 500)) * process.schedule.prior_std
    torch.testing.assert_close(x, flow_of_ode(start, last, process), atol=tolerance, rtol=0)


def test_trajectories_do_not_depend_on_batch_mates():
    for name, sampler in [
        ("ve", PredictorCorrector(5)),
        ("vp", ProbabilityFlow(1e-3)),
        ("edm", KarrasSampler(4, churn=2.0)),
    ]:
        process = PROCESSES[name]
        both = sampler.sample(exact_denoiser(process), (2, 3, 4), ClipNoise([5, 6]), process)
        one = sampler.sample(exact_denoiser(process), (1, 3, 4), ClipNoise([6]), process)
        torch.testing.assert_close(both[1:], one, atol=1e-6, rtol=1e-5)


def test_runge_kutta_takes_the_steps_of_scipy():
    from scipy.integrate import solve_ivp

    matrix = torch.tensor([[-0.3, 2.0], [-2.0, -0.1]], dtype=torch.float64)

    def field(t, y):
        return y @ matrix.T + torch.sin(3 * t)[:, None]

    start = torch.tensor([[1.0, 0.5], [-4.0, 30.0]], dtype=torch.float64)
    for span in ((0.0, 5.0), (2.0, -1.0)):
        found, calls = solve(field, start, *span, 1e-6)
        singles = []
        for row in start:
            theirs = solve_ivp(
                lambda t, y: field(torch.tensor([t]), torch.from_numpy(y)[None])[0].numpy(),
                span, row.numpy(), rtol=1e-6, atol=1e-6,
            )  # fmt: skip
            singles.append(theirs)
        for ours, theirs in zip(found, singles, strict=True):
            torch.testing.assert_close(ours, torch.from_numpy(theirs.y[:, -1]), rtol=1e-9, atol=1e-9)
        assert calls == max(theirs.nfev for theirs in singles)
    with pytest.raises(ArithmeticError, match="step size"):
        solve(lambda t, y: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0, 1e-6)  # goes to infinity at t = 1


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_likelihood_of_the_gaussian(name):
    process = PROCESSES[name]
    x0 = MEAN + STD * torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    probe = torch.randint(0, 2, x0.shape).float() * 2 - 1
    score = process.score_fn(exact_denoiser(process))
    found, latent, _ = log_likelihood_bits(process.sde(), score, x0, probe, offset=0.0)
    nats = 0.5 * ((x0 - MEAN) / STD).square() + math.log(STD * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, nats.mean(1) / math.log(2), atol=4e-3, rtol=0)
    assert latent.shape == x0.shape
    alone, _, _ = log_likelihood_bits(process.sde(), score, x0[:1], probe[:1], offset=0.0)
    torch.testing.assert_close(found[:1], alone, atol=1e-5, rtol=0)


def test_divergence_of_a_linear_field():
    matrix = torch.randn(6, 6)
    probes = torch.eye(6)
    traces = [
        divergence(lambda x, t: x @ matrix.T, torch.randn(1, 6), torch.zeros(1), p[None] * 6**0.5)[1] for p in probes
    ]
    torch.testing.assert_close(torch.cat(traces).mean(), matrix.trace())


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_denoiser_has_the_least_loss(name):
    process, generator = PROCESSES[name], torch.Generator().manual_seed(1)
    x0 = MEAN + STD * torch.randn(64, 100, generator=generator)
    noise, t = torch.randn(64, 100, generator=generator), process.draw(64).clamp(max=0.95 * process.schedule.last)
    output = exact_denoiser(process)(process.q_sample(x0, t, noise), t)
    best = process.losses(output, x0, noise, t).mean()
    for change in (0.9, 1.1):
        assert process.losses(change * output, x0, noise, t).mean() > best
    again = rebuilt(process)
    assert again.configuration == process.configuration
    torch.testing.assert_close(again.losses(output, x0, noise, t).mean(), best)


def test_losses_of_score_sde_and_of_edm():
    x0, noise, output = torch.randn(3, 4, 6).unbind(0)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9])
    ve = ContinuousDiffusion(VE(), "score", reduction="half_sum", likelihood_weighting=True)
    sigma = VE().sigma(t)[:, None]
    expected = (output + noise / sigma).square().sum(1) / 2 * VE().diffusion(t) ** 2
    torch.testing.assert_close(ve.losses(output, x0, noise, t), expected)
    vp = ContinuousDiffusion(VP())
    torch.testing.assert_close(vp.losses(output, x0, noise, t), (output - noise).square().mean(1))
    edm = ContinuousDiffusion(Karras(), "x0", weighting=LossWeighting("edm"), label="sigma")
    weight = (t**2 + 0.25) / (t * 0.5) ** 2
    torch.testing.assert_close(edm.losses(output, x0, noise, t), weight * (output - x0).square().mean(1))
    eps = ContinuousDiffusion(Karras(), "eps", weighting=LossWeighting("edm"), label="sigma")
    x_t = eps.q_sample(x0, t, noise)
    as_eps = (x_t - output) / t[:, None]
    torch.testing.assert_close(eps.losses(as_eps, x0, noise, t), edm.losses(output, x0, noise, t))


def test_labels():
    t = torch.tensor([0.0, 0.25, 1.0])
    assert ContinuousDiffusion(VP()).label(t).tolist() == [0, 249.75, 999]
    assert ContinuousDiffusion(VP(), steps=101, continuous=False).label(t).tolist() == [0, 25, 100]
    assert ContinuousDiffusion(VE(), "score", continuous=False).label(t).tolist() == [999, 749, 0]
    torch.testing.assert_close(ContinuousDiffusion(VE(), "score").label(t), VE().sigma(t))
    assert PROCESSES["edm"].label(t).tolist() == [0, 0.25, 1]
    assert PROCESSES["flow"].label(t).tolist() == [0, 250, 1000]
    with pytest.raises(UserError, match="not Flow"):
        ContinuousDiffusion(Flow(), "flow")


def test_times():
    lognormal = TimeSampling("lognormal")(Karras(), 4000).log()
    assert float(lognormal.mean()) == pytest.approx(-1.2, abs=0.1)
    assert float(lognormal.std()) == pytest.approx(1.2, abs=0.1)
    even = TimeSampling(stratified=True)(VP(), 50).sort().values
    torch.testing.assert_close(even[1:] - even[:-1], torch.full((49,), (1 - 1e-5) / 50), atol=1e-5, rtol=0)
    middle = TimeSampling("logit_normal", 0.0, 1.0)(Flow(), 4000)
    moved = TimeSampling("logit_normal", 0.0, 1.0, shift=3.0)(Flow(), 4000)
    assert 0.45 < float(middle.mean()) < 0.55 < 0.65 < float(moved.mean())
    frames = frame_times(200, 3, 1000)
    assert frames.shape == (200, 3) and 0 <= frames.min() < 20 and 980 <= frames.max() < 1000
    assert not torch.equal(frames[:, 0], frames[:, 1])


def test_wrong_settings_are_refused():
    with pytest.raises(UserError, match="neither predictor nor corrector"):
        PredictorCorrector(5, "none", "none")
    with pytest.raises(UserError, match="no Markov chain"):
        process = PROCESSES["subvp"]
        PredictorCorrector(5, "ancestral").sample(exact_denoiser(process), (1, 2), ClipNoise([0]), process)
    with pytest.raises(UserError, match="straight lines"):
        FlowSampler(5).sample(exact_denoiser(PROCESSES["vp"]), (1, 2), ClipNoise([0]), PROCESSES["vp"])


def test_thresholds_act_in_every_sampler():
    cut, euler = Threshold("clamp", 0.2, 0.2), PredictorCorrector(4, "euler_maruyama", "none", end=1e-3)
    for kind, sampler in [("edm", KarrasSampler(4)), ("flow", FlowSampler(4)), ("vp", euler)]:
        process = copy.copy(PROCESSES[kind])
        process.threshold = cut
        x = sampler.sample(lambda x, t: torch.zeros_like(x), (1, 8), ClipNoise([0]), process)
        torch.testing.assert_close(x, torch.full((1, 8), 0.2), atol=1e-5, rtol=0)
