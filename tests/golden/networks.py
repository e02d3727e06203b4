"""Small networks of ours with weights from a formula, and what they compute: the content of the golden vectors.

The weights of a module: entry i (row-major) of the tensor named n is sin(0.37 i + crc32(n) mod 997) in fp64, times
1.7/sqrt(fan-in) for weights of two and more dimensions, times 0.1 otherwise; weights of normalisation layers and
running variances have 1 added. Inputs are made alike and brought to [0, 1] where they are images.
"""

import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vgen.diffusion import DDIM, GaussianDiffusion, LossWeighting, Threshold, guided
from vgen.losses import RandomTransform, equivariance_affine, equivariance_shift
from vgen.losses.regularisers import clip_singular_values
from vgen.models import mocogan, tgan, vdm, vgan, video_ldm
from vgen.models.lfdm.networks import (
    LFAE,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.models.pvdm import PatchDiscriminator, PlaneUNet, ViTAutoencoder
from vgen.models.pvdm.planes import PlaneGrid, join
from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet
from vgen.models.svg.networks import SVGNetwork
from vgen.models.videogpt.networks import VQVAE, CodeTransformer
from vgen.models.vidm.networks import ContentGenerator, Layout, MotionGenerator
from vgen.nn.flow import SpyNet
from vgen.video import ClipSpec

Vectors = dict[str, Tensor]


def wave(name: str, shape: tuple[int, ...]) -> Tensor:
    """sin(0.37 i + crc32(name) mod 997), fp64."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.37 * index + zlib.crc32(name.encode()) % 997).view(shape)


def image(name: str, *shape: int) -> Tensor:
    return (wave(name, shape) * 0.5 + 0.5).float()


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Gives a module the weights of the recipe; other buffers (kernels, counters) stay."""
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or name.endswith("down.weight"):
            continue
        numbers = wave(name, tuple(value.shape))
        numbers = numbers * (1.7 / math.sqrt(value[0].numel()) if value.ndim > 1 else 0.1)
        if name.endswith(("running_var", "norm.weight", "norm0.weight", "norm1.weight", "norm2.weight", "gamma")):
            numbers = 1 + 0.1 * wave(name, tuple(value.shape))
        value.copy_(numbers)
    return module.eval()


def small_lfae() -> LFAE:
    return LFAE(
        num_regions=3,
        region_predictor=RegionPredictorConfig(4, 16, 2, pad=0, scale_factor=0.5),
        bg_predictor=BackgroundConfig(4, 16, 2, bg_type="perspective"),
        generator=GeneratorConfig(4, 16, 2, 1, flow_predictor=FlowPredictorConfig(4, 16, 2)),
    )


def lfdm_lfae(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Flow, reconstruction and equivariance losses."""
    if inputs is None:
        inputs = {"source": image("source", 1, 3, 32, 32), "video": image("video", 1, 3, 2, 32, 32)}
        inputs["theta"] = (torch.eye(2, 3, dtype=torch.float64) + 0.05 * wave("theta", (1, 2, 3))).float()
        inputs["tps"] = (0.005 * wave("tps", (1, 1, 9))).float()
    network = fill(small_lfae())
    flow, occlusion = network.flow(inputs["source"], inputs["video"])
    transform = RandomTransform(inputs["theta"], inputs["tps"])
    driving = inputs["video"][:, :, 0]
    here, there = network.regions(driving), network.regions(transform.transform_frame(driving))
    return inputs, {
        "flow": flow,
        "occlusion": occlusion,
        "prediction": network.decode(inputs["source"], flow, occlusion)[:, :, :1],
        "shift": here["shift"],
        "covar": here["covar"],
        "loss_shift": equivariance_shift(here["shift"], transform, there["shift"]),
        "loss_affine": equivariance_affine(here["affine"], transform, there["shift"], there["affine"]),
    }


def lfdm_unet3d(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """The NATOPS variant with guidance, and the v-prediction loss with min-SNR weights."""
    if inputs is None:
        shapes = {"x": (2, 3, 3, 8, 8), "fea": (2, 4, 8, 8), "cond": (2, 5), "noise": (2, 3, 3, 8, 8)}
        inputs = {name: wave(name, shape).float() for name, shape in shapes.items()}
        inputs["t"] = torch.tensor([20, 700])
    variant = {"learn_null_cond": True, "use_deconv": False, "padding_mode": "reflect", "attn_dim_head": 48}
    network = Unet3D(8, 5, dim_mults=(1, 2), channels=7, attn_heads=2, resnet_groups=4, **variant)
    fill(network)
    process = GaussianDiffusion(prediction="v", weighting=LossWeighting("min_snr"))
    x_t = process.q_sample(inputs["x"], inputs["t"], inputs["noise"])
    output = network(x_t, inputs["t"], inputs["cond"], inputs["fea"], torch.tensor([False, True]))
    guided = network.forward_with_guidance(x_t, inputs["t"], inputs["cond"], inputs["fea"], scale=2.0)
    losses = process.losses(output, inputs["x"], inputs["noise"], inputs["t"])
    return inputs, {"output": output, "guided": guided, "losses": losses}


def diffusion_ddim(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Both DDIM rules with recorded noise and dynamic thresholds, on a denoiser that is a formula."""
    if inputs is None:
        inputs = {"noise": wave("ddim", (6, 2, 3, 4, 4)).float() * 1.4}
    process = GaussianDiffusion(threshold=Threshold("dynamic"))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x * 1.3 + 0.1 * torch.cos(t.float() / 100).view(-1, 1, 1, 1))

    def recorded(step: int, _shape: object) -> Tensor:
        return inputs["noise"][step]

    outputs = {}
    for rule in ("official", "corrected"):
        sampler = DDIM(steps=5, eta=0.7, rule=rule)
        outputs[rule] = sampler.sample(denoise, (2, 3, 4, 4), recorded, process)
    return inputs, outputs


def vdm_unet3d(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Both normalisations, the self-focus mask, guidance, and the paper's variant with pictures."""
    if inputs is None:
        inputs = {"x": wave("x", (2, 3, 4, 8, 8)).float(), "cond": wave("cond", (2, 5)).float()}
        inputs["t"] = torch.tensor([20, 700])
    common = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8, "resnet_groups": 4}
    rms, group = fill(vdm.Unet3D(**common, cond_dim=5)), fill(vdm.Unet3D(**common, norm="group"))
    variant = {"norm": "group", "spatial_attention": "full", "attention_levels": (1,), "positions": "shaw"}
    paper = fill(vdm.Unet3D(**common, **variant, modulation="add"))
    x, t, cond = inputs["x"], inputs["t"], inputs["cond"]
    return inputs, {
        "rms": rms(x, t, cond, alone=torch.tensor([False, True])),
        "guided": guided(rms, x, t, cond, 2.0),
        "group": group(x, t),
        "paper": paper(x, t, images=1),
    }


def video_ldm_networks(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """LVDM's U-Net and 3D auto-encoder."""
    if inputs is None:
        inputs = {"x": wave("latent", (1, 2, 3, 4, 4)).float(), "t": torch.tensor([300])}
        inputs["video"] = wave("video", (1, 3, 4, 8, 8)).float()
    unet = video_ldm.LVDMUnet(
        2, 32, 2, 1, (1, 2), (1, 1), num_heads=4, use_scale_shift_norm=True, padding_t=0, temporal_length=2,
        use_relative_position=True,
    )  # fmt: skip
    autoencoder = fill(video_ldm.Autoencoder3D(16, (2, 4, 4), z_channels=2, embed_dim=2))
    moments = autoencoder.encode(inputs["video"])
    decoded = autoencoder.decode(moments.chunk(2, dim=1)[0])
    return inputs, {"output": fill(unet)(inputs["x"], inputs["t"]), "moments": moments, "decoded": decoded}


def pvdm_autoencoder(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Planes and reconstruction of a clip that is not square, and what both discriminators say of it."""
    if inputs is None:
        inputs = {"video": wave("clip", (2, 3, 3, 8, 12)).float()}
    network = ViTAutoencoder(16, 2, 1, heads=2, dim_head=8, patch_size=4, projector_depth=2, projector_heads=2)
    network.prepare(ClipSpec(3, 8, 12))
    fill(network)
    for projector in network.projectors.values():
        projector.to_plane.weight.mul_(0.1)  # away from where tanh is flat
    planes = network.encode(inputs["video"])
    judges = {"image": inputs["video"][:, :, 1], "video": inputs["video"]}
    said = {name: fill(PatchDiscriminator(x.ndim - 2, 4, 1)).train()(x)[0] for name, x in judges.items()}
    return inputs, {**planes, "reconstruction": network.decode(planes), **said}


def pvdm_unet(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Planes of three shapes with and without a condition, and PVDM's sampler on them."""
    grid = PlaneGrid(4, 2, 6)
    if inputs is None:
        inputs = {"x": wave("x", (2, 2, grid.tokens)).float(), "cond": wave("cond", (2, 2, grid.tokens)).float()}
    network = PlaneUNet(2, 2, 8, 1, (1,), (1, 2), num_heads=2, norm_groups=4)
    fill(network)
    time, planes = torch.tensor([20, 700]), grid.split(inputs["x"])
    process = GaussianDiffusion("scaled_linear", beta_ends=(0.0015, 0.0195))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x * 1.3 + 0.1 * torch.cos(t.float() / 100).view(-1, 1, 1))

    sampled = DDIM(3, 1.0, rule="pvdm").sample(
        denoise, inputs["x"].shape, lambda step, _: inputs["x"].roll(step), process
    )
    return inputs, {
        "given": join(network(planes, time, grid.split(inputs["cond"]))),
        "alone": join(network(planes, time)),
        "sampled": sampled,
        "vlb": process.schedule.vlb_weights[::100],
    }


def vidm_generators(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Both generators, and SpyNet's two variants on the same frames."""
    if inputs is None:
        inputs = {name: wave(name, (2, 3, 16, 16)).float() for name in ("x", "first", "previous")}
        inputs |= {"one": image("one", 1, 3, 40, 36), "two": image("two", 1, 3, 40, 36)}
        inputs |= {"t": torch.tensor([20, 700]), "n": torch.tensor([1, 90])}
    layout = Layout(32, 1, (2,), (1, 2), num_head_channels=16)
    motion, content = fill(MotionGenerator(layout, flow=SpyNet())), fill(ContentGenerator(layout, size=(16, 16)))
    flow = motion.motion(inputs["first"], inputs["previous"])
    other = SpyNet("sniklaus")
    other.load_state_dict(motion.flow.state_dict())
    return inputs, {
        "flow": flow,
        "flow_sniklaus": other(inputs["one"], inputs["two"]),
        "flow_mmediting": motion.flow(inputs["one"], inputs["two"]),
        "motion": motion(inputs["x"], inputs["t"], inputs["n"], inputs["first"], flow),
        "content": content(inputs["x"], inputs["t"]),
    }


def score_networks(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """NCSN++ with both pyramids, DDPM, and ADM behind EDM's preconditioning."""
    if inputs is None:
        inputs = {"x": image("x", 2, 3, 8, 8), "sigma": torch.tensor([0.3, 7.0]), "label": torch.eye(2)}
    small = {"resolution": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,), "model_channels": 8}
    ddpm = {"noise_embedding": "positional", "taps": None, "encoder": "standard", "block": "ddpm", "per_group": 1}
    outputs = {}
    for name, variant in {
        "residual": {"decoder": "residual"},
        "skip": {"encoder": "skip", "decoder": "skip", "combine": "cat"},
        "ddpm": ddpm | {"skip_rescale": False},
    }.items():
        unet = fill(ScoreUNet(**(small | variant)))
        outputs[name] = ScoreNetwork(unet, centered=False)(inputs["x"], inputs["sigma"])
    adm = fill(Preconditioned(ADM(**small, head_channels=4, label_dim=2)))
    return inputs, outputs | {"adm": adm(inputs["x"], inputs["sigma"], inputs["label"])}


def svg_networks(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Both backbones and priors: a clip whose frames are known, and predictions under both statistics."""
    if inputs is None:
        inputs = {"video": image("video", 2, 4, 16, 16)[:, :, None], "noise": wave("noise", (2, 4, 3)).float()}
    video, noise, outputs = inputs["video"], inputs["noise"], {}
    for backbone, prior in (("dcgan", "learned"), ("vgg", "fixed")):
        network = SVGNetwork(backbone, prior, 6, 3, 2, 8)
        network.prepare(ClipSpec(4, 16, 16, 1))
        fill(network)
        made = network(video, noise[:, :3], 0)
        outputs |= {f"{backbone}_frames": made.frames, f"{backbone}_mean": made.mean}
        for statistics in ("running", "batch"):
            with network.using(statistics):
                state = network.begin(video[:, :2], noise[:, :1], 0)
                outputs[f"{backbone}_{statistics}"] = network.step(state, noise[:, 3])[0]
    return inputs, outputs


def videogpt_networks(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """The VQ-VAE to its latent and from codes, and priors with full and sparse attention, a class and given frames."""
    if inputs is None:
        inputs = {"video": wave("clip", (2, 3, 4, 8, 8)).float() / 2, "label": torch.tensor([0, 2])}
        # Which code is the nearest can hang on the last bit: they are given.
        inputs["codes"] = (torch.arange(64) * 7 % 12).view(2, 2, 4, 4)
    vqvae = fill(VQVAE(8, 6, 12, 1, (2, 2, 2)))
    vqvae.codebook.embeddings.copy_(wave("codes", (12, 6)).float())
    codes = inputs["codes"]
    outputs = {"made": vqvae.from_codes(codes), "latent": vqvae.latent(inputs["video"])}
    for name, kind in {
        "class": {"class_conditional": True},
        "frames": {"condition_frames": 1, "attention": "sparse"},
    }.items():
        prior = CodeTransformer(12, 2, 2, block=8, local_blocks=1, condition_widths=(4, 4, 8, 12), **kind)
        prior.prepare((2, 4, 4), 12, 6, 3, 3, (8, 8))
        fill(prior)
        given = inputs["video"][:, :, :1] if name == "frames" else None
        outputs[name] = prior(vqvae.codebook.lookup(codes), inputs["label"], given)
    return inputs, outputs


def gan_networks(inputs: Vectors | None) -> tuple[Vectors, Vectors]:
    """Generators and discriminators of MoCoGAN, TGAN and VGAN, on clips of 16 frames that are not square."""
    shape = ClipSpec(16, 16, 32, class_names=("a", "b"))
    if inputs is None:
        sizes = {"content": (1, 5), "start": (1, 3), "noise": (1, 16, 3), "code": (1, 6)}
        inputs = {name: wave(name, size).float() for name, size in sizes.items()}
        inputs["video"] = wave("video", (1, 3, 16, 16, 32)).float()
    built = {
        "mocogan": mocogan.VideoGenerator(5, 3, None, 2),
        "frames": mocogan.Discriminator(2, True, 2),
        "clips": mocogan.Discriminator(3, False, 2, None),
        "tgan": tgan.VideoGenerator(6, 4, 32),
        "critic": tgan.Critic(2),
        "vgan": vgan.VideoGenerator(6, 2),
        "future": vgan.FutureGenerator(2),
        "judge": vgan.Discriminator(2),
    }
    for network in built.values():
        network.prepare(shape)
        fill(network)
    video, code = inputs["video"], inputs["code"]
    motion = built["mocogan"](inputs["content"], inputs["start"], inputs["noise"], torch.tensor([1]))
    critic = built["critic"].state_dict()
    return inputs, {
        "mocogan": motion[:, :, ::9],
        "frames": built["frames"](video[:, :, 3])[0],
        "clips": torch.cat([said.reshape(1, -1) for said in built["clips"](video)], dim=1),
        "tgan": built["tgan"](code)[:, :, ::9],
        "critic": built["critic"](video),
        "vgan": built["vgan"](code)["video"][:, :, ::9],
        "future": built["future"](video[:, :, 0])["video"][:, :, ::9],
        "judge": built["judge"](video),
        "clipped": clip_singular_values(3 * critic["levels.0.conv.weight"]),
    }


#: file name -> function: given the stored inputs (None: the recipe's), returns inputs and outputs
GOLDEN: dict[str, Callable[[Vectors | None], tuple[Vectors, Vectors]]] = {
    "lfdm_lfae": lfdm_lfae,
    "lfdm_unet3d": lfdm_unet3d,
    "diffusion_ddim": diffusion_ddim,
    "vdm_unet3d": vdm_unet3d,
    "video_ldm_networks": video_ldm_networks,
    "pvdm_autoencoder": pvdm_autoencoder,
    "pvdm_unet": pvdm_unet,
    "vidm_generators": vidm_generators,
    "score_networks": score_networks,
    "svg_networks": svg_networks,
    "videogpt_networks": videogpt_networks,
    "gan_networks": gan_networks,
}
