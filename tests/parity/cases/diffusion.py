"""Cases of the diffusion core: schedules, losses, and steps of guided diffusion. Networks are in score.py."""

import re

import torch
from torch import Tensor

from parity.registry import Vector, case
from vgen.diffusion import DDIM, GaussianDiffusion, LossWeighting, RespacedDDPM, Threshold, classifier_free
from vgen.diffusion import prediction as predict
from vgen.diffusion.continuous import ContinuousDiffusion
from vgen.diffusion.continuous_schedules import VE, VP, SubVP
from vgen.diffusion.distances import charbonnier
from vgen.diffusion.flow import shifted
from vgen.diffusion.karras import KarrasSampler, Levels
from vgen.diffusion.ode import divergence, log_likelihood_bits, ode_sample
from vgen.diffusion.preconditioning import Preconditioning, iddpm_sigmas, vp_sigma
from vgen.diffusion.predictor_corrector import PredictorCorrector
from vgen.diffusion.respacing import respaced_betas, space_timesteps
from vgen.diffusion.schedules import DiffusionSchedule, betas, broadcast, zero_terminal_snr
from vgen.diffusion.sde import SDE
from vgen.diffusion.weighting import edm as edm_weight
from vgen.diffusion.weighting import min_snr, p2

KINDS = {"linear": "linear", "cosine": "cosine_iddpm", "scaled_linear_sd": "scaled_linear"}
NONE = Threshold("none")


@case("diffusion", "schedules_guided_diffusion")
def schedules(vector):
    out = {}
    for name in vector.tensors("out"):
        first, second, *_ = name.split("/")
        if match := re.fullmatch(r"(linear|cosine)(\d+)", first):
            schedule = DiffusionSchedule(KINDS[match[1]], int(match[2]))
            ours = {"posterior_log_variance_clipped": "posterior_log_variance"}.get(second, second)
            out[name] = getattr(schedule, ours)
            continue
        spacing, total = second.split("_of_")
        kept = space_timesteps(int(total), spacing)
        abar = DiffusionSchedule("linear", int(total)).exact_alphas_cumprod
        out[name] = torch.tensor(kept) if first == "respace" else respaced_betas(abar, kept)
    return out


@case("diffusion", "losses_and_targets")
def losses_and_targets(vector):
    inputs, out = vector.tensors("in"), {}
    for name in vector.tensors("out"):
        kind, *rest = name.split("/")
        if kind in ("betas", "ztsnr_betas", "snr") or kind.startswith(("min_snr", "p2")):
            out[name] = of_schedule(kind, rest)
        elif kind.startswith("charbonnier"):
            output = inputs["pred"].double().requires_grad_()
            value = charbonnier(output, inputs["target"], float(rest[0]))
            out[name] = torch.autograd.grad(value.sum(), output)[0] if kind.endswith("grad") else value.detach()
        elif kind.startswith("cfg"):
            phi = float(kind.removeprefix("cfg_rescale")) if "rescale" in kind else 0.0
            out[name] = classifier_free(inputs["cfg_cond"], inputs["cfg_uncond"], float(rest[0]), phi)
        elif kind == "flow_shift":
            points = len(vector.tensors("out")[name])
            out[name] = shifted(torch.linspace(1, 0, points, dtype=torch.float64), float(rest[0]))
    return out | targets(inputs)


def of_schedule(kind: str, rest: list[str]) -> Tensor:
    beta = betas(KINDS[rest[-1]], 1000)
    abar = (1 - beta).cumprod(0)
    snr = abar / (1 - abar)
    if kind.startswith("min_snr"):
        return min_snr(snr, rest[0], float(kind.removeprefix("min_snr")))
    if match := re.fullmatch(r"p2_g(\d+)_k(\d+)", kind):
        return p2(snr, float(match[2]), float(match[1]))
    return {"betas": beta, "ztsnr_betas": zero_terminal_snr(beta), "snr": snr}[kind]


def targets(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    process, x0, eps, t = GaussianDiffusion("linear"), inputs["x0"], inputs["eps"], inputs["t"]
    alpha, sigma = process.schedule.alpha_sigma(t, x0)
    x_t, v = process.q_sample(x0, t, eps), predict.target("v", x0, eps, alpha, sigma)
    time = broadcast(inputs["flow_t"], x0)
    line, flow = (1 - time) * x0 + time * eps, predict.target("flow", x0, eps, 1 - time, time)
    return {
        "x_t": x_t,
        "v": v,
        "x0_from_v": predict.to_x0("v", v, x_t, alpha, sigma),
        "eps_from_v": predict.to_eps("v", v, x_t, alpha, sigma),
        "x_t_per_frame": process.q_sample(x0, inputs["t_per_frame"], eps),
        "flow_x_t": line,
        "flow_target": flow,
        "flow_x0": predict.to_x0("flow", flow, line, 1 - time, time),
    }


MEANS = {"EPSILON": "eps", "START_X": "x0", "PREVIOUS_X": "mean"}


def process(vector: Vector, mean: str, variance: str = "FIXED_SMALL", **more: object) -> GaussianDiffusion:
    kind, steps = KINDS[vector.sidecar["schedule"]], vector.sidecar["T"]
    return GaussianDiffusion(kind, steps, MEANS[mean], variance=variance.lower(), **more)


@case("diffusion", "steps_guided_diffusion")
def steps_guided_diffusion(vector):
    inputs, out = vector.tensors("in"), {}
    x0, noise, t = inputs["x0"], inputs["noise"], inputs["t"]
    plain = process(vector, "EPSILON")
    x_t = plain.q_sample(x0, t, noise)
    out["q_sample"], out["prior_bpd"] = x_t, plain.prior_bits(x0)
    out["q_posterior_mean"] = plain.schedule.posterior(x0, x_t, t)[0]
    out["q_posterior_var"] = broadcast(plain.schedule.posterior_variance[t], x0).expand_as(x0)
    out["q_posterior_logvar"] = broadcast(plain.schedule.posterior_log_variance[t], x0).expand_as(x0)
    for name in vector.tensors("out"):
        mean, *rest = name.split("/")
        if mean == "loss":
            out[name] = loss(vector, *rest, inputs=inputs)
        elif mean in MEANS and rest[0].startswith("ddim"):
            out[name] = ddim(vector, mean, rest[0], inputs, x_t)
        elif mean in MEANS:
            variance, *what = rest
            clip = what[0] != "clip0"
            one = process(vector, mean, variance, threshold=Threshold() if clip else NONE)
            output = inputs["model_out6" if one.learns_variance else "model_out3"]
            found = one.p_mean_variance(output, x_t, t)
            if what[0] == "p_sample":
                moving = broadcast(t > 0, x_t)
                out[name] = found[0] + moving * torch.exp(found[1] / 2) * inputs["step_noise"]
            else:
                out[name] = found[("mean", "log_variance", "pred_xstart").index(what[1])]
    return out | trajectory(vector, inputs)


def loss(vector: Vector, mean: str, variance: str, kind: str, gamma: str, what: str, inputs: dict) -> Tensor:
    steps, power = vector.sidecar["T"], float(gamma.removeprefix("p2gamma"))
    scale = {"KL": 1.0, "RESCALED_KL": steps, "MSE": 1.0, "RESCALED_MSE": steps / 1000}[kind]
    one = process(
        vector,
        mean,
        variance,
        loss_type="kl" if kind.endswith("KL") else "l2",
        weighting=LossWeighting("p2", gamma=power, k=1.0) if power else None,
        vlb_weight=scale,
    )
    output = inputs["model_out6" if one.learns_variance else "model_out3"]
    terms = one.terms(output, inputs["x0"], inputs["noise"], inputs["t"])
    if what == "vb":
        return terms["vlb"] * scale
    return terms[{"loss": "loss", "mse": "distance"}[what]]


def ddim(vector: Vector, mean: str, name: str, inputs: dict[str, Tensor], x_t: Tensor) -> Tensor:
    """One step of every sample; ours takes a time for the batch."""
    clip = not name.endswith("noclip")
    one = process(vector, mean, threshold=Threshold() if clip else NONE)
    back = "reverse" in name
    eta = 0.0 if back else float(re.match(r"ddim_eta([\d.]+)", name)[1])
    rows = []
    for i, time in enumerate(inputs["t"].tolist()):
        row = slice(i, i + 1)
        noise = inputs["step_noise"][row] if eta and time else None
        following = time + 1 if back else time - 1
        rows.append(DDIM(eta=eta).step(one, inputs["model_out3"][row], x_t[row], time, following, noise))
    return torch.cat(rows)


def trajectory(vector: Vector, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    settings, states = vector.sidecar["traj_config"], []
    threshold = Threshold() if settings["clip_denoised"] else NONE
    one = GaussianDiffusion(
        KINDS[settings["schedule"]],
        settings["T"],
        MEANS[settings["mean_type"]],
        variance=settings["var_type"].lower(),
        threshold=threshold,
    )

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        states.append(x)
        mean = 0.4 * x + 0.1 * torch.sin(broadcast(t.float(), x) / 150)
        return torch.cat((mean, 0.2 * torch.tanh(x)), dim=1)

    def recorded(step: int, _shape: object) -> Tensor:
        return inputs["traj_noise"][step - 1] if step else inputs["traj_xT"]

    sampler = RespacedDDPM(settings["section_counts"])
    last = sampler.sample(denoise, inputs["traj_xT"].shape, recorded, one)
    return {"traj": torch.stack([*states[1:], last]), "traj_timesteps": torch.tensor(sampler.kept(one))}


# Score SDE ------------------------------------------------------------------------------------------------------------


def toy_ve(x: Tensor, label: Tensor) -> Tensor:
    label = broadcast(label.float(), x)
    return (-x + 0.2 * torch.tanh(x) * torch.cos(0.01 * label)) / (1 + label**2)


def toy_vp(x: Tensor, label: Tensor) -> Tensor:
    label = broadcast(label.float(), x)
    return -0.3 * x + 0.2 * torch.tanh(x) * torch.cos(0.01 * label) + 0.05 * torch.sin(label)


def sde_of(vector: Vector, name: str, steps: int | None = None, continuous: bool = True) -> SDE:
    facts = vector.sidecar
    schedule = {
        "vp": VP(facts["beta_min"], facts["beta_max"]),
        "subvp": SubVP(facts["beta_min"], facts["beta_max"]),
        "ve": VE(facts["sigma_min"], facts["sigma_max"]),
    }[name]
    return SDE(schedule, steps or facts["N"], continuous)


def continuous(sde: SDE, name: str, likelihood: bool = False, average: bool = False) -> ContinuousDiffusion:
    return ContinuousDiffusion(
        sde.schedule,
        "score" if name == "ve" else "eps",
        likelihood_weighting=likelihood,
        reduction="mean" if average else "half_sum",
        steps=sde.steps,
        continuous=sde.continuous,
    )


@case("diffusion", "steps_score_sde")
def steps_score_sde(vector):
    inputs, out = vector.tensors("in"), {}
    for name in ("vp", "subvp", "ve"):
        found = of_sde(vector, name, inputs)
        out |= {f"{name}/{key}": value for key, value in found.items()}
    return {key: value for key, value in out.items() if key in vector.tensors("out")}


def of_sde(vector: Vector, name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    x0, t, z = inputs["x0"], inputs["t"], inputs["z"]
    sde, model = sde_of(vector, name), toy_ve if name == "ve" else toy_vp
    mean, std = sde.marginal(x0, t)
    x = mean + broadcast(std, x0) * z
    scale, g = sde.discretised(t)
    out = {
        "marginal_mean": mean,
        "marginal_std": std,
        "x_t": x,
        "drift": broadcast(sde.schedule.drift(t), x) * x,
        "diffusion": sde.schedule.diffusion(t),
        "discretize_f": broadcast(scale, x) * x,
        "discretize_G": g,
        "prior_logp": sde.prior_log_density(z),
    }
    for kind in ("continuous", "discrete"):
        steps = one_step(sde_of(vector, name, continuous=kind == "continuous"), model, x, t, inputs)
        out |= {f"{kind}/{key}": value for key, value in steps.items()}
    score_fn = sde.score_fn(model)

    def flow(x: Tensor, t: Tensor) -> Tensor:
        return sde.reverse_drift(score_fn, x, t, ode=True)

    out["pf_ode_divergence"] = divergence(flow, x, t, inputs["hutchinson"])[1]
    time = inputs["u"] * (1 - 1e-5) + 1e-5
    for likelihood in (0, 1):
        for average in (0, 1):
            process = continuous(sde, name, bool(likelihood), bool(average))
            raw = model(process.q_sample(x0, time, z), process.label(time))
            out[f"loss_lw{likelihood}_mean{average}"] = process.losses(raw, x0, z, time).mean()
    if name == "vp":
        out |= {"discrete_betas": sde.betas, "alphas_cumprod": sde.abar}
        process = GaussianDiffusion("linear", vector.sidecar["N"])
        noisy = process.q_sample(x0, inputs["labels"], z)
        out["ddpm_loss"] = process.losses(model(noisy, inputs["labels"]), x0, z, inputs["labels"]).mean()
    if name == "ve":
        out["discrete_sigmas"] = sde.sigmas
        levels = continuous(sde_of(vector, name, continuous=False), name)
        time = 1 - inputs["labels"] / (levels.steps - 1)
        raw = model(levels.q_sample(x0, time, z), levels.label(time))
        out["smld_loss"] = levels.losses(raw, x0, z, time).mean()
    return out | trajectories(vector, name, inputs)


def one_step(sde: SDE, model: object, x: Tensor, t: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    score_fn, z = sde.score_fn(model), inputs["z"]
    out = {"score": score_fn(x, t)}
    for ode in (0, 1):
        out[f"reverse_drift_pf{ode}"] = sde.reverse_drift(score_fn, x, t, bool(ode))
        disc = sde.reverse_discretised(score_fn, x, t, bool(ode))
        out[f"reverse_disc_f_pf{ode}"], out[f"reverse_disc_G_pf{ode}"] = disc
    steps = {"euler_maruyama": sde.euler_maruyama, "reverse_diffusion": sde.reverse_diffusion}
    if sde.has_table:
        steps["ancestral_sampling"] = sde.ancestral
    for key, step in steps.items():
        out[f"{key}/x"], out[f"{key}/x_mean"] = step(score_fn, x, t, z)
    if sde.has_table:
        for key, corrector in (("langevin", sde.langevin), ("ald", sde.annealed_langevin)):
            state = x
            for noise in inputs["corrector_noise"]:
                state, mean = corrector(score_fn, state, t, noise, 0.16)
            out[f"{key}/x"], out[f"{key}/x_mean"] = state, mean
    return out


def trajectories(vector: Vector, name: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    model, exploding = (toy_ve, True) if name == "ve" else (toy_vp, False)
    first = 1e-5 if exploding else 1e-3
    noises, start = inputs[f"{name}/pc_noise"], inputs[f"{name}/pc_xT"]

    def recorded(step: int, _shape: object) -> Tensor:
        return noises[step - 1] if step else start / sde.schedule.prior_std

    sde = sde_of(vector, name, steps=6)
    process = ContinuousDiffusion(sde.schedule, "score" if exploding else "eps")
    sampler = PredictorCorrector(
        6,
        "reverse_diffusion" if exploding else "euler_maruyama",
        "langevin" if exploding else "none",
        end=first,
        joint_norms=True,
    )
    sample = sampler.sample(lambda x, t: model(x, process.label(t)), start.shape, recorded, process)
    sde = sde_of(vector, name)
    score_fn = sde.score_fn(model)
    ode, calls = ode_sample(sde, score_fn, start, first, joint=True)
    bits, latent, evaluations = log_likelihood_bits(
        sde, score_fn, inputs["x0"], inputs["hutchinson"], offset=8.0, joint=True
    )
    return {
        "pc_sample": sample,
        "ode_sample": ode,
        "ode_nfe": torch.tensor(calls),
        "bpd": bits,
        "bpd_latent": latent,
        "bpd_nfe": torch.tensor(evaluations),
    }


# EDM ------------------------------------------------------------------------------------------------------------------


def toy_edm(x: Tensor, noise: Tensor) -> Tensor:
    return 0.6 * x + 0.2 * torch.tanh(x + 0.1 * broadcast(noise, x))


def denoised(kind: str, x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) as EDM's wrappers compute it: in fp32."""
    x, sigma = x.float(), broadcast(sigma.float().reshape(-1), x)
    skip, out, scale, noise = Preconditioning(kind).coefficients(sigma)
    return skip * x + out * toy_edm(scale * x, noise.flatten())


def level_bounds(kind: str) -> tuple[float, float]:
    """The levels between which EDM's wrapper of each kind works."""
    table = iddpm_sigmas()
    ends = vp_sigma(torch.tensor([1e-5, 1.0], dtype=torch.float64)).tolist()
    return {"vp": tuple(ends), "ve": (0.02, 100.0), "iddpm": (float(table[-2]), float(table[0]))}.get(kind, (0.0, 1e9))


def karras(discretization: str, schedule: str, scaling: str, kind: str, **arguments: object) -> KarrasSampler:
    low, high = Levels(discretization).bounds
    least, most = level_bounds(kind)
    levels = Levels(discretization, max(low, least), min(high, most), schedule=schedule, scaling=scaling)
    return KarrasSampler(levels=levels, **arguments)


@case("diffusion", "steps_edm")
def steps_edm(vector):
    inputs, steps = vector.tensors("in"), vector.sidecar["num_steps"]
    table = iddpm_sigmas()

    def rounded(sigma: Tensor) -> Tensor:
        return table[(sigma.float().reshape(-1, 1) - table).abs().argmin(1)].view(sigma.shape).to(sigma.dtype)

    def sampled(sampler: KarrasSampler, kind: str) -> Tensor:
        move = rounded if kind == "iddpm" else lambda sigma: sigma
        noise = inputs["churn_noise"]
        return sampler.run(lambda x, s: denoised(kind, x, s), inputs["latents"], lambda i: noise[i], move)

    churned = {"churn": 40.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003}
    plain = ("edm", "linear", "none", "edm")
    out = {
        "edm_sampler/heun": sampled(karras(*plain, steps=steps), "edm"),
        "edm_sampler/heun_churn": sampled(karras(*plain, steps=steps, **churned), "edm"),
        "iddpm_u": table,
    }
    for name in vector.tensors("out"):
        kind, _, what = name.partition("/")
        if kind == "precond":
            out[name] = denoised(what, inputs["x"], inputs["sigma"])
        elif kind == "loss":
            out[name] = edm_loss(what, inputs)
        elif kind == "t_steps":
            out[name] = Levels().sigmas(int(what))
        elif kind == "ablation":
            solver, *design = what.split("_")
            out[name] = sampled(karras(*design, steps=steps, solver=solver), design[-1])
    return out


def edm_loss(kind: str, inputs: dict[str, Tensor]) -> Tensor:
    """Every pixel's weighted loss."""
    uniform, normal = inputs["rnd_uniform"], inputs["rnd_normal"]
    sigma = {
        "edm": torch.exp(-1.2 + 1.2 * normal),
        "vp": vp_sigma(1 + uniform * (1e-5 - 1)),
        "ve": VE(0.02, 100.0).sigma(uniform),
    }[kind]
    noisy = inputs["y"] + sigma * inputs["noise"]
    error = denoised(kind, noisy, sigma) - inputs["y"]
    weight = edm_weight(sigma) if kind == "edm" else sigma**-2
    return weight * error**2
