"""Cases of VDM: the public 3D U-Net in both normalisations, and its diffusion process."""

import torch
from torch import Tensor

from parity.registry import Vector, case
from vgen.diffusion import DDPM, GaussianDiffusion, Threshold, guided
from vgen.models.vdm import weights
from vgen.models.vdm.networks import Unet3D


def build(vector: Vector) -> Unet3D:
    """The network of a U-Net vector; the official versions differ in their norm, which the weights show."""
    arguments = {key: value for key, value in vector.constructor.items() if key != "block_type"}  # stored, unused
    state = vector.tensors("param")
    network = Unet3D(**arguments, norm=weights.norm_of(state))
    weights.load_unet(network, state, vector.name)
    return network.eval()


@case("vdm", "unet3d")
@torch.no_grad()
def unet3d(vector):
    network, inputs = build(vector), vector.tensors("in")
    x, t, cond = inputs["x"], inputs["t"], inputs.get("cond")
    everything = torch.ones(len(x), dtype=torch.bool)
    alone = inputs["focus_present_mask"].bool()
    out = {
        "eps": network(x, t, cond),
        "eps_focus_mask": network(x, t, cond, alone=alone),
        "eps_focus_all": network(x, t, cond, alone=everything),
        "rel_pos_bias": network.time_rel_pos_bias(x.shape[2]),
        "time_emb": network.time_mlp(t),
    }
    if cond is not None:
        out["eps_null_cond"] = network(x, t, cond, null_mask=everything)
        for name in vector.tensors("out"):
            if name.startswith("eps_cond_scale_"):
                scale = float(name.removeprefix("eps_cond_scale_").replace("_", "."))
                out[name] = guided(network, x, t, cond, scale)
    return out


@case("vdm", "gaussian_diffusion")
@torch.no_grad()
def gaussian_diffusion(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    sidecar = (vector.path.parent / arguments["network"]).with_suffix(".json")
    network, cond = build(Vector.read(sidecar)), inputs.get("cond")
    dynamic = arguments.get("use_dynamic_thres", False)
    threshold = Threshold("dynamic" if dynamic else "clamp", percentile=arguments.get("dynamic_thres_percentile", 0.9))

    def process(steps: int, loss: str = "l2") -> GaussianDiffusion:
        return GaussianDiffusion(steps=steps, loss_type=loss, threshold=threshold)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return guided(network, x, t, cond if cond is None else cond[: len(x)], scale=2.0)

    steps, t, noise = arguments.get("timesteps", 1000), inputs["t"], inputs["noise"]
    full, x0 = process(steps), inputs["video01"] * 2 - 1
    x_t = full.q_sample(x0, t, noise)
    eps = network(x_t, t, cond)
    out = {name: getattr(full.schedule, name) for name in vector.tensors("out") if hasattr(full.schedule, name)}
    out |= {f"loss_{name}": process(steps, name).losses(eps, x0, noise, t).mean() for name in ("l1", "l2")}
    step_noise = inputs["p_sample_noise"]
    each = [step(full, denoise, x_t, step_noise, t, i) for i in range(len(t))]
    short = process(arguments["short_timesteps"])
    drawn = inputs["sample_noise"]
    sample = DDPM().sample(denoise, drawn[0].shape, lambda i, _shape: drawn[i], short)
    out |= {"x_t": x_t, "p_sample": torch.cat(each), "betas_short": short.schedule.betas, "sample": (sample + 1) / 2}
    return out


def step(process: GaussianDiffusion, denoise, x: Tensor, noise: Tensor, t: Tensor, row: int) -> Tensor:
    """One ancestral step of one sample: ours takes one time for a batch, the vector has one for each sample."""
    output = denoise(x, t)[row : row + 1]
    time = int(t[row])
    return DDPM().step(process, output, x[row : row + 1], time, noise[row : row + 1] if time else None)
