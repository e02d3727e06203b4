"""Cases of LFDM: the flow auto-encoder, the 3D U-Net and its diffusion process."""

import re

import torch
from torch import Tensor

from parity.registry import Vector, case
from vgen.diffusion import DDIM, DDPM, GaussianDiffusion, Threshold
from vgen.losses import ImagePyramid, RandomTransform, equivariance_affine, equivariance_shift
from vgen.models.lfdm import weights
from vgen.models.lfdm.networks import (
    LFAE,
    BGMotionPredictor,
    Generator,
    PixelwiseFlowPredictor,
    RegionPredictor,
    Unet3D,
)
from vgen.models.lfdm.networks.flow_predictor import region_gaussian
from vgen.nn.antialias import gaussian_kernel
from vgen.nn.warp import coordinate_grid


def same_sign(ours: Tensor, theirs: Tensor, columns: bool = False) -> Tensor:
    """Ours with the sign that fits: of each matrix, or of each column. LAPACK's sign is a convention."""
    agreement = (ours * theirs).sum(-2, keepdim=True)
    if not columns:
        agreement = agreement.sum(-1, keepdim=True)
    return torch.where(agreement < 0, -ours, ours)


def build(network: type, vector: Vector) -> torch.nn.Module:
    module = network(**vector.constructor)
    weights.LFAE_KEYS.load(module, vector.tensors("param"), vector.name)
    return module.eval()


def build_lfae(vector: Vector) -> LFAE:
    """The three official constructors; through our classes, as an official YAML may say more than LFAE's groups."""
    arguments = vector.constructor
    lfae = LFAE.__new__(LFAE)
    torch.nn.Module.__init__(lfae)
    lfae.generator = Generator(**arguments["generator"])
    lfae.region_predictor = RegionPredictor(**arguments["region_predictor"])
    lfae.bg_predictor = BGMotionPredictor(**arguments["bg_predictor"])
    lfae.num_channels = arguments["generator"]["num_channels"]
    weights.load_lfae(lfae, vector.tensors("param"), vector.name)
    return lfae.eval()


@case("lfdm", "region_predictor")
@torch.no_grad()
def region_predictor(vector):
    out, theirs = build(RegionPredictor, vector)(vector.tensors("in")["x"]), vector.tensors("out")
    for name, columns in (("affine", False), ("u", True)):
        if name in out and "u" in theirs:
            out[name] = same_sign(out[name], theirs[name], columns)
    return out


@case("lfdm", "bg_predictor")
@torch.no_grad()
def bg_predictor(vector):
    inputs = vector.tensors("in")
    return {"bg_params": build(BGMotionPredictor, vector)(inputs["source"], inputs["driving"])}


@case("lfdm", "pixelwise_flow_predictor")
@torch.no_grad()
def pixelwise_flow_predictor(vector):
    network, inputs = build(PixelwiseFlowPredictor, vector), vector.tensors("in")
    source, driving = (
        {name.removeprefix(f"{who}_"): value for name, value in inputs.items() if name.startswith(f"{who}_")}
        for who in ("source", "driving")
    )
    small, background = network.small(inputs["source"]), inputs.get("bg_params")
    size = tuple(small.shape[2:])
    motion = network.create_sparse_motions(size, driving, source, background)
    return network(inputs["source"], driving, source, bg_params=background) | {
        "source_small": small,
        "heatmap_representation": network.create_heatmap_representations(size, driving, source),
        "sparse_motion": motion,
        "deformed_source": network.create_deformed_source_image(small, motion),
    }


@case("lfdm", "generator_with_flow")
@torch.no_grad()
def generator_with_flow(vector):
    network, inputs = build(Generator, vector), vector.tensors("in")
    out = {"bottle_neck_feat": network.compute_fea(inputs["source"])}
    for suffix in ("", "_half"):
        if f"flow{suffix}" in inputs:
            occlusion = inputs.get(f"occlusion{suffix}")
            decoded = network.forward_with_flow(inputs["source"], inputs[f"flow{suffix}"], occlusion)
            out |= {f"{name}{suffix}": decoded[name] for name in ("deformed", "prediction")}
    return out


@case("lfdm", "lfae_full")
@torch.no_grad()
def lfae_full(vector):
    network, inputs = build_lfae(vector), vector.tensors("in")
    out = network(inputs["source"], inputs["driving"])
    flow, occlusion = network.flow(inputs["source"], inputs["video"])
    decoded = network.decode(inputs["source"], flow, occlusion, chunk=4)
    start = flow if occlusion is None else torch.cat((flow, occlusion * 2 - 1), dim=1)
    return out | {"x_start": start, "video_prediction": decoded}


@case("lfdm", "lfae_train_equivariance")
def lfae_train_equivariance(vector):
    network, inputs = build_lfae(vector).train(), vector.tensors("in")
    loss_weights = vector.constructor["train_params"]["loss_weights"]
    transform = RandomTransform(inputs["theta"], inputs.get("tps_control_params"))
    out = network(inputs["source"], inputs["driving"])
    driving = out["driving_region_params"]
    transformed = network.regions(transform.transform_frame(inputs["driving"]))
    shift = loss_weights["equivariance_shift"] * equivariance_shift(driving["shift"], transform, transformed["shift"])
    affine = loss_weights["equivariance_affine"] * equivariance_affine(
        driving["affine"], transform, transformed["shift"], transformed["affine"], network.revert_axis_swap
    )
    (shift + affine).backward()
    found = {"loss_equivariance_shift": shift, "loss_equivariance_affine": affine, "prediction": out["prediction"]}
    found["optical_flow"] = out["optical_flow"]
    return found | trained(network.region_predictor, vector)


def trained(predictor: RegionPredictor, vector: Vector) -> dict[str, Tensor | None]:
    """Gradients and running statistics by the vector's names."""
    gradients = {name: value.grad for name, value in predictor.named_parameters()}
    state = predictor.state_dict()
    norms = torch.stack([gradient.norm() for gradient in gradients.values() if gradient is not None])
    found: dict[str, Tensor | None] = {"grad_global_norm_region_predictor": norms.norm()}
    for name in vector.tensors("out"):
        kind, _, key = name.partition("/")
        if kind == "grad":
            # a bias before BatchNorm or a softmax over pixels has gradient zero; what is left is round-off
            found[name] = None if re.search(r"(\.conv|^regions)\.bias$", key) else gradients[key]
        elif kind.startswith("running_"):
            found[name] = state[f"{key}.norm.{kind.removesuffix('_after')}"]
    return found


@case("lfdm", "equivariance_and_pyramid")
@torch.no_grad()
def equivariance_and_pyramid(vector):
    inputs, theirs = vector.tensors("in"), vector.tensors("out")
    transform = RandomTransform(inputs["theta"], inputs.get("tps_control_params"))
    scales = vector.constructor["scales"]
    height, width = theirs["gaussian"].shape[-2:]
    shift = equivariance_shift(inputs["driving_shift"], transform, inputs["coords"])
    affine = equivariance_affine(
        inputs["driving_affine"], transform, inputs["coords"], inputs["transformed_affine"], revert_axis_swap=True
    )
    out = {
        "warped_coords": transform.warp_coordinates(inputs["coords"]),
        "jacobian": transform.jacobian(inputs["coords"]),
        "transformed_frame": transform.transform_frame(inputs["frame"]),
        "loss_equivariance_shift_w10": 10 * shift,
        "loss_equivariance_affine_w10": 10 * affine,
        "gaussian": region_gaussian(inputs["driving_shift"], inputs["covar"], (height, width)),
    }
    levels = ImagePyramid(scales, inputs["frame"].shape[1])(inputs["frame"])
    out |= {f"pyramid_{scale:g}": level for scale, level in zip(scales, levels, strict=True)}
    out |= {f"kernel_{scale:g}": gaussian_kernel(scale)[None, None] for scale in scales if scale != 1}
    for name in theirs:
        if match := re.fullmatch(r"grid_(\d+)x(\d+)", name):
            out[name] = coordinate_grid(int(match[1]), int(match[2]))
    return out


def build_unet(constructor: dict, vector: Vector) -> Unet3D:
    network = Unet3D(**constructor)
    weights.load_unet(network, vector.tensors("param"), vector.name)
    return network.eval()


@case("lfdm", "unet3d")
@torch.no_grad()
def unet3d(vector):
    network, inputs = build_unet(vector.constructor, vector), vector.tensors("in")
    x, t, cond, fea = (inputs.get(name) for name in ("x_t", "t", "cond", "fea"))
    everything = torch.ones(len(x), dtype=torch.bool)
    out = {
        "eps_cond": network(x, t, cond, fea),
        "eps_null": network(x, t, cond, fea, everything),
        "eps_mixed": network(x, t, cond, fea, inputs.get("null_mask")),
        "rel_pos_bias": network.time_rel_pos_bias(x.shape[2]),
    }
    for name in vector.tensors("out"):
        if match := re.fullmatch(r"eps_scale_([\d_]+)", name):
            scale = float(match[1].replace("_", "."))
            out[name] = network.forward_with_guidance(x, t, cond, fea, scale=scale)
    return out


@case("lfdm", "gaussian_diffusion")
def gaussian_diffusion(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    network = build_unet(arguments["unet"], vector)
    dynamic = arguments.get("use_dynamic_thres", False)
    threshold = Threshold("dynamic" if dynamic else "clamp", percentile=arguments.get("dynamic_thres_percentile", 0.9))
    processes = {
        loss: GaussianDiffusion(steps=arguments.get("timesteps", 1000), loss_type=loss, threshold=threshold)
        for loss in ("l1", "l2")
    }
    process = processes["l2"]
    x0, t, noise, cond, fea = (inputs.get(name) for name in ("x_start", "t", "noise", "cond", "fea"))
    x_t = process.q_sample(x0, t, noise)
    eps = network(x_t, t, cond, fea, inputs.get("null_mask"))
    losses = {f"loss_{name}": each.losses(eps, x0, noise, t).mean() for name, each in processes.items()}
    losses["loss_l2"].backward()
    out = {"x_noisy": x_t, "pred_x0": process.x0_eps(eps, x_t, t)[0], **losses}
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    out["grad_l2_global_norm"] = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    with torch.no_grad():
        for name in vector.tensors("out"):
            if name.startswith("grad_l2/"):
                out[name] = gradients[weights.UNET_KEYS.rename(name.removeprefix("grad_l2/"))]
            elif name.startswith("buf_"):
                out[name] = getattr(process.schedule, name.removeprefix("buf_"))
            elif name.startswith(("ddim", "ddpm_step_")):
                out[name] = sampled(name, process, network, inputs)
    return out


def sampled(name: str, process: GaussianDiffusion, network: Unet3D, inputs: dict[str, Tensor]) -> Tensor:
    """The recorded trajectory or step that the name describes: ddim6_eta1_s1.75, ddpm_step_t700_s1_5."""
    cond, fea = inputs.get("cond"), inputs.get("fea")
    scale = float(name.rpartition("_s")[2].replace("_", "."))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return network.forward_with_guidance(x, t, cond, fea, scale=scale)

    def recorded(step: int, _shape: object) -> Tensor:
        return inputs["step_noise"][step - 1] if step else inputs["ddim_init_noise"]

    if match := re.match(r"ddim(\d+)_eta([\d.]+)_s", name):
        sampler = DDIM(steps=int(match[1]), eta=float(match[2]), rule="official")
        return sampler.sample(denoise, inputs["ddim_init_noise"].shape, recorded, process)
    time = int(re.match(r"ddpm_step_t(\d+)_s", name)[1])
    x = 0.3 * inputs["x_start"] + 0.7 * inputs["noise"] if time else inputs["x_start"]
    output = denoise(x, process.full(time, x))
    return DDPM().step(process, output, x, time, inputs["step_noise"][0] if time else None)
