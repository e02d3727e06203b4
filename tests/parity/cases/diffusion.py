"""Cases of the diffusion core: schedules, losses, and steps of guided diffusion. Networks are in score.py."""

import re

import torch
from torch import Tensor

from parity.registry import Vector, case
from vgen.diffusion import DDIM, GaussianDiffusion, LossWeighting, RespacedDDPM, Threshold, classifier_free
from vgen.diffusion import prediction as predict
from vgen.diffusion.distances import charbonnier
from vgen.diffusion.flow import shifted
from vgen.diffusion.respacing import respaced_betas, space_timesteps
from vgen.diffusion.schedules import DiffusionSchedule, betas, broadcast, zero_terminal_snr
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
            out[name] = shifted(
                torch.linspace(0, 1, len(vector.tensors("out")[name]), dtype=torch.float64), float(rest[0])
            )
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
