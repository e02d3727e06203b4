"""Cases of PVDM: the autoencoder of planes, the plane U-Net and its diffusion process, the discriminators, the rest."""

import re
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from parity.registry import Vector, case
from vgen.callbacks import EMA
from vgen.data.transforms import resize
from vgen.diffusion import DDIM, DDPM, GaussianDiffusion, classifier_free
from vgen.metrics.detectors import i3d
from vgen.metrics.frechet import frechet_distance, gaussian
from vgen.models.pvdm import weights
from vgen.models.pvdm.losses import (
    LossWeights,
    discriminator_terms,
    generator_terms,
    reconstruction_terms,
)
from vgen.models.pvdm.networks import PlaneUNet, ViTAutoencoder
from vgen.models.pvdm.planes import PlaneGrid, join
from vgen.nn.patch_discriminator import PatchDiscriminator
from vgen.training.schedules import LinearWarmup
from vgen.video import ClipSpec, frame_of_each

# The constants of the official U-Net: planes of 16 frames of 256x256 pixels.
OFFICIAL = PlaneGrid(16, 32, 32)


@case("pvdm", "autoencoder")
@torch.no_grad()
def autoencoder(vector):
    arguments, inputs, theirs = vector.constructor, vector.tensors("in"), vector.tensors("out")
    config = arguments["ddconfig"]
    splits, side = config.get("splits", 1), config["resolution"]
    frames = config["timesteps"] // splits
    depth = arguments.get("encoder_decoder_depth", 8)
    network = ViTAutoencoder(config["channels"], arguments["embed_dim"], depth=depth)
    network.prepare(ClipSpec(frames, side, side))
    weights.load(weights.AUTOENCODER_KEYS, network, weights.autoencoder_state(vector.tensors("param")), vector.name)
    network.eval()
    whole = inputs["video"]
    video = whole.unflatten(2, (splits, frames)).transpose(1, 2).flatten(0, 1)
    planes = network.encode(video)
    reconstruction = network.decode(planes)
    summed = network.lifted(planes).permute(1, 4, 0, 2, 3)
    out = {
        "latent": join(planes),
        "recon": folded(reconstruction),
        "encode_sum": summed[: len(theirs["encode_sum"])] if "encode_sum" in theirs else summed,
        "rec_loss": reconstruction_terms(video, reconstruction, torch.zeros(0), None, LossWeights())["pixel"],
    }
    if "latent" in inputs:
        grid = PlaneGrid(frames, side // 8, side // 8)
        out["decode_from_sample"] = folded(network.decode(grid.split(inputs["latent"])))
    return out


def folded(video: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B T, C, H, W)."""
    return video.transpose(1, 2).flatten(0, 1)


# Arguments of the official class that change no number of ours: constants, dropout, memory, what is never switched on.
INERT = {"image_size", "dropout", "use_checkpoint", "use_fp16", "legacy", "dims", "num_classes", "cond_model"}
INERT |= {"num_heads_upsample", "use_spatial_transformer", "transformer_depth", "context_dim", "n_embed"}


def build_unet(arguments: dict, vector: Vector) -> PlaneUNet:
    given = {"num_heads": -1, "num_head_channels": -1, "use_scale_shift_norm": False, "resblock_updown": False}
    given |= {"channel_mult": (1, 2, 4, 8), **arguments}
    ours = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if ours["num_head_channels"] == -1:
        ours.pop("num_head_channels")
    else:
        ours.pop("num_heads")
    conditional = ours.get("cond_model", False)
    network = PlaneUNet(**{k: v for k, v in ours.items() if k not in INERT}, conditional=conditional)
    weights.load(weights.UNET_KEYS, network, weights.unet_state(vector.tensors("param")), vector.name)
    return network.eval()


def predict(network: PlaneUNet, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
    """On flat latents, as the official wrapper is called."""
    condition = OFFICIAL.split(cond) if cond is not None and network.conditional else None
    return join(network(OFFICIAL.split(x), t, condition))


@case("pvdm", "unet")
@torch.no_grad()
def unet(vector):
    inputs, theirs = vector.tensors("in"), vector.tensors("out")
    network = build_unet(vector.constructor, vector)
    x, t = inputs["x"], inputs["t"]
    out = {"zeros_buffer_is_zero": theirs.get("zeros_buffer_is_zero")}  # a constant that ours does not have
    for name in theirs:
        if name.startswith("eps"):
            out[name] = predict(network, x, t, inputs.get("cond") if name == "eps_cond" else None)
    return out


SCHEDULES = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine_iddpm"}


@case("pvdm", "ddpm")
@torch.no_grad()
def ddpm(vector):
    arguments, inputs, theirs = vector.constructor, vector.tensors("in"), vector.tensors("out")
    sibling = Vector.read((vector.path.parent / arguments["network"]).with_suffix(".json"))
    network = build_unet(sibling.constructor, sibling)
    schedule = SCHEDULES[arguments.get("beta_schedule", "linear")]
    ends = (arguments.get("linear_start", 0.0015), arguments.get("linear_end", 0.0195))
    process = GaussianDiffusion(
        schedule,
        arguments.get("timesteps", 1000),
        prediction=arguments.get("parameterization", "eps"),
        loss_type=arguments.get("loss_type", "l2"),
        beta_ends=None if schedule == "cosine_iddpm" else ends,
    )
    x0, noise, t, cond = (inputs.get(name) for name in ("x0", "noise", "t", "cond"))
    x_t = process.q_sample(x0, t, noise)
    out = {"x_t": x_t}
    for name in theirs:
        if match := re.fullmatch(r"loss_(vlb_)?(cond|zero_cond)", name):
            given = cond if match[2] == "cond" or cond is None else torch.zeros_like(cond)
            each = process.losses(predict(network, x_t, t, given), x0, noise, t)
            out[name] = (each * process.schedule.vlb_weights[t] if match[1] else each).mean()
        elif name == "p_sample":
            given = theirs["x_t"]
            out[name] = torch.cat(
                [
                    DDPM().step(process, output[None], x[None], int(time), z[None] if time else None)
                    for output, x, time, z in zip(
                        predict(network, given, t, cond), given, t, inputs["p_sample_noise"], strict=True
                    )
                ]
            )
        elif match := re.match(r"ddim_eta([\d.]+)(_uncond)?", name):
            steps = len(vector.sidecar["ddim_times"]) - 1
            sampler = DDIM(steps, float(match[1]), rule="pvdm")
            expected = vector.sidecar["ddim_times"]
            found = sampler.times(process.steps)
            assert [first for first, _ in found] == expected[:-1] and found[-1][1] == expected[-1]
            recorded = inputs[f"ddim_noise{match[2] or ''}"]
            given = None if match[2] or cond is None else cond[: recorded.shape[1]]
            out[name] = sampled(network, process, sampler, recorded, given, arguments.get("w", 1.0))
        elif hasattr(process.schedule, name):
            out[name] = getattr(process.schedule, name)
    return out


def sampled(
    network: PlaneUNet,
    process: GaussianDiffusion,
    sampler: DDIM,
    recorded: Tensor,
    cond: Tensor | None,
    w: float,
) -> Tensor:
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        output = predict(network, x, t, cond)
        if cond is None or w == 0:
            return output
        return classifier_free(output, predict(network, x, t, torch.zeros_like(cond)), 1 + w)

    return sampler.sample(denoise, recorded[0].shape, lambda step, _shape: recorded[step], process)


@case("pvdm", "discriminators")
def discriminators(vector):
    arguments, inputs, out = vector.constructor, vector.tensors("in"), {}
    real, fake, index = inputs["real"], inputs["fake"], inputs["frame_idx"]
    terms = LossWeights(
        arguments.get("pixelloss_weight", 4.0),
        arguments.get("perceptual_weight", 4.0),
        arguments.get("disc_weight", 1.0),
        arguments.get("feature_weight", 4.0),
    )
    for name in vector.tensors("out"):
        mode, _, what = name.partition("/")
        # running statistics of its own for each output
        judges = {
            part: build_discriminator(vector, dims, mode == "train") for part, dims in (("image", 2), ("video", 3))
        }
        if match := re.fullmatch(r"d([23])_(logits|feat)(\d*)", what):
            seen = ("image", frame_of_each(real, index)) if match[1] == "2" else ("video", real)
            logits, features = judges[seen[0]](seen[1])
            out[name] = logits if match[2] == "logits" else features[int(match[3])]
            continue
        kind, step = re.fullmatch(r"(ae|d)_loss_step(-?\d+)", what).groups()
        adversarial = int(step) >= arguments["disc_start"]
        if kind == "ae":
            found = reconstruction_terms(real, fake, index, stub, terms)
            found |= generator_terms(real, fake, index, judges, terms) if adversarial else {}
        elif adversarial:
            found = discriminator_terms(real, fake, index, judges, terms, arguments.get("disc_loss", "hinge"))
        else:
            found = {"none": torch.zeros(())}
        out[name] = torch.stack(list(found.values())).sum()
    return out


def stub(a: Tensor, b: Tensor) -> Tensor:
    """What stands in for LPIPS in the vector."""
    return (a - b).square().flatten(1).mean(1).mean()


def build_discriminator(vector: Vector, dims: int, training: bool) -> PatchDiscriminator:
    arguments = vector.constructor
    channels, layers = arguments.get("disc_ndf", 64), arguments.get("disc_num_layers", 3)
    network = PatchDiscriminator(dims, channels, layers, arguments.get("disc_in_channels", 3))
    state = weights.discriminator_state(vector.tensors("param"), dims)
    weights.load(weights.DISCRIMINATOR_KEYS, network, state, vector.name)
    return network.train(training)


@case("pvdm", "misc")
@torch.no_grad()
def misc(vector):
    inputs, out = vector.tensors("in"), {}
    for name in vector.tensors("out"):
        if name == "ema_seq":
            out[name] = averages(inputs, vector.constructor["ema_decay"])
        elif name == "lr_factor":
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
            factor = LinearWarmup(optimizer, warmup_steps=10_000, start=1e-6).lr_lambdas[0]
            out[name] = torch.tensor([factor(int(step)) for step in inputs["lr_steps"]])
        elif match := re.fullmatch(r"fvd_preprocess_(\d+)", name):
            pixels = inputs["fvd_video_u8"].permute(0, 4, 1, 2, 3).float()
            out[name] = i3d.resize(pixels, "crop", int(match[1])) / 127.5 - 1
        elif name == "fd":
            sides = (gaussian(inputs[f"fd_{side}"].double(), "unbiased") for side in "ab")
            out[name] = frechet_distance(*sides)
        elif match := re.fullmatch(r"resize_crop_(\d+)(_tall)?", name):
            side = int(match[1])
            clip = np.ascontiguousarray(inputs[f"clip_tchw{match[2] or ''}"].permute(0, 2, 3, 1).numpy())
            scaled = resize(clip, (side, side), "crop_first", "bilinear_no_antialias")
            out[name] = torch.from_numpy(scaled).permute(3, 0, 1, 2)
    return out


def averages(inputs: dict[str, Tensor], decay: float) -> Tensor:
    """The callback's average after each of the recorded optimiser steps."""
    weight, bias = inputs["ema_init_weight"], inputs["ema_init_bias"]
    module = nn.Linear(weight.shape[1], weight.shape[0])
    callback, rows = EMA(decay, warmup_from=1), []
    trainer = SimpleNamespace(global_step=0, callbacks=[callback])
    module.weight.copy_(weight)
    module.bias.copy_(bias)
    callback.on_fit_start(trainer, module)
    for row in inputs["ema_seq"]:
        module.weight.copy_(row[: weight.numel()].view_as(weight))
        module.bias.copy_(row[weight.numel() :])
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, None, 0)
        rows.append(torch.cat([callback.shadow[name].flatten() for name in ("weight", "bias")]))
    return torch.stack(rows)
