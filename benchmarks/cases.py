"""The rows of the step-time table: models and batches of stated sizes, and one optimisation step of each.

LFAE-S and DM-S are LFDM's two stages at a size that a CPU can train; LFAE and DM are the published configurations of
MUG. PVDM's rows have the sizes at which its official code was timed; VDM-S is video-diffusion-pytorch's U-Net at the
size at which that code was timed, VDM its defaults. VIDM's two sizes are those at which its official code was timed;
its steps clip gradients and average the weights, as that code's do, and rows named clip sample. SVG and VideoGPT have
their published networks, and batches that a CPU can take. The tiny rows are for tests of the benchmarks themselves.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.callbacks import EMA
from vgen.codecs import LatentCache
from vgen.conditioning import LabelEmbedding
from vgen.diffusion import GaussianDiffusion, LossWeighting, RespacedDDPM
from vgen.losses import L1Pyramid, VGGPyramid
from vgen.models import vdm
from vgen.models.lfdm import (
    LFAE,
    LFDM,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    LatentFlowAutoencoder,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.models.pvdm import PVDM, PlaneAutoencoder, PlaneUNet, ViTAutoencoder
from vgen.models.svg import SVG, SVGNetwork
from vgen.models.videogpt import VQVAE, CodeTransformer, VideoGPT, VideoVQVAE
from vgen.models.vidm import Layout, MotionGenerator, VIDMMotion
from vgen.nn.flow import SpyNet
from vgen.training import SingleLossModule
from vgen.video import ClipSpec

Precision = Literal["32", "bf16"]
Batch = dict[str, Any]
Step = Callable[[], Tensor]
CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@dataclass(frozen=True)
class Variant:
    """How a row is run.

    Args:
        device: `cpu` or `cuda`.
        precision: `32`, or `bf16` for autocast.
        compile: Compile the trainable networks in place.
        backend: Of torch.compile.
        checkpointing: Recompute activations in the backward pass.
        batch: Clips in the batch; 0 takes the row's own number.
    """

    device: str = "cpu"
    precision: Precision = "32"
    compile: bool = False
    backend: str = "inductor"
    checkpointing: bool = False
    batch: int = 0


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        what: Its configuration in words.
        clips: Clips in a batch.
        parameters: Trainable parameters.
        module: Makes the module, with or without gradient checkpointing.
        frames: Frames of a clip.
        side: Pixels of a side.
        samples: A step is not one of the optimiser: it samples a batch of clips from their first frames.
        clip_norm: Norm to which a step clips its gradients; 0: it does not.
        ema: Decay of the average of the weights that a step updates; 0: none.
    """

    what: str
    clips: int
    parameters: int
    module: Callable[[bool], SingleLossModule]
    frames: int
    side: int
    samples: bool = False
    clip_norm: float = 0.0
    ema: float = 0.0

    def batch(self, clips: int, device: str) -> Batch:
        """Clips of noise, which cost as much as real ones."""
        torch.manual_seed(1)
        video = torch.randint(0, 256, (clips, 3, self.frames, self.side, self.side), dtype=torch.uint8)
        paths = [str(number) for number in range(clips)]
        return {"video": video.to(device), "label": (torch.arange(clips) % len(CLASSES)).to(device), "path": paths}


def _switch(on: bool) -> dict[str, Any]:
    """The argument where it is on: a checkout that lacks it can still be measured without."""
    return {"checkpointing": True} if on else {}


def _spec(frames: int, side: int) -> ClipSpec:
    return ClipSpec(frames, side, side, class_names=CLASSES, condition_keys=("label",))


def _small_lfae(checkpointing: bool = False) -> LFAE:
    flow = FlowPredictorConfig(32, 256, 5)
    return LFAE(
        num_regions=10,
        region_predictor=RegionPredictorConfig(16, 256, 5),
        bg_predictor=BackgroundConfig(16, 256, 5),
        generator=GeneratorConfig(32, 256, 2, 6, flow_predictor=flow),
        **_switch(checkpointing),
    )


def _tiny_lfae(checkpointing: bool = False) -> LFAE:
    flow = FlowPredictorConfig(4, 16, 2)
    return LFAE(
        num_regions=3,
        region_predictor=RegionPredictorConfig(4, 16, 2),
        bg_predictor=BackgroundConfig(4, 16, 2),
        generator=GeneratorConfig(4, 16, 2, 1, flow_predictor=flow),
        **_switch(checkpointing),
    )


_ADAM = {"lfae": partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999)), "dm": partial(torch.optim.Adam, lr=2e-4)}


def _autoencoder(lfae: Callable[[bool], LFAE], side: int, checkpointing: bool) -> SingleLossModule:
    loss: torch.nn.Module = L1Pyramid((1, 0.5))
    if side >= 128:  # VGG of four scales, with fixed random weights: its cost does not depend on them
        loss = VGGPyramid(random_init=True, **_switch(checkpointing))
    return LatentFlowAutoencoder(_spec(2, side), lfae(checkpointing), loss, optimizer=_ADAM["lfae"])


def _diffusion(lfae: Callable[[bool], LFAE], unet: dict[str, Any], frames: int, side: int, on: bool) -> LFDM:
    codec = LatentFlowAutoencoder(_spec(2, side), lfae(False), None)
    denoiser = Unet3D(channels=3 + codec.network.latent_channels, cond_dim=768, **unet, **_switch(on))
    # a table of seven vectors of BERT's width, which is what is left of BERT in a step
    label = LabelEmbedding(768, kind="one_hot")
    return LFDM(_spec(frames, side), denoiser, codec, label, optimizer=_ADAM["dm"])


def _vdm(unet: dict[str, Any], frames: int, side: int, on: bool) -> vdm.VDM:
    """The public code's step: L1, Adam."""
    process = GaussianDiffusion(loss_type="l1")
    denoiser = vdm.Unet3D(**unet, **_switch(on))
    return vdm.VDM(_spec(frames, side), denoiser, diffusion=process, optimizer=partial(torch.optim.Adam, lr=1e-4))


def _full_lfae(checkpointing: bool = False) -> LFAE:
    return LFAE(**_switch(checkpointing))


_ADAMW = {
    "pvdm-ae": partial(torch.optim.AdamW, lr=1e-4, betas=(0.5, 0.9)),
    "pvdm-dm": partial(torch.optim.AdamW, lr=1e-4),
}


def _pvdm_autoencoder(sizes: dict[str, Any], frames: int, side: int, on: bool) -> PlaneAutoencoder:
    network = ViTAutoencoder(**sizes, **_switch(on))
    return PlaneAutoencoder(_spec(frames, side), network, perceptual=None, optimizer=_ADAMW["pvdm-ae"])


def _pvdm(codec: dict[str, Any], unet: dict[str, Any], cached: int, frames: int, side: int, on: bool) -> PVDM:
    """PVDM on clips of two of the autoencoder's; `cached` of them are latents of noise already."""
    first = _pvdm_autoencoder(codec, frames // 2, side, False)
    denoiser = PlaneUNet(**unet, **_switch(on))
    model = PVDM(_spec(frames, side), denoiser, first, conditional_probability=1.0, optimizer=_ADAMW["pvdm-dm"])
    if cached:
        with TemporaryDirectory() as folder:
            model._cache = LatentCache(Path(folder) / "latents.safetensors", {})
            shape = (cached, frames // 2 + 1, denoiser.in_channels, first.grid.tokens)
            noise = {"windows": torch.rand(shape, device="cpu") * 2 - 1}
            model._cache.build([{"path": [str(number) for number in range(cached)]}], lambda _: noise)
            model._cache.open()
    return model


def _vidm(layout: dict[str, Any], steps: int | str, frames: int, side: int, on: bool) -> VIDMMotion:
    """The motion generator as released, SpyNet trained along."""
    if on:
        raise ValueError("VIDM's networks have no gradient checkpointing")
    network = MotionGenerator(Layout(**layout), flow=SpyNet())
    process = GaussianDiffusion("linear", variance="learned_range", weighting=LossWeighting("p2", gamma=1.0))
    optimizer = partial(torch.optim.AdamW, lr=2e-5, fused=True)
    return VIDMMotion(_spec(frames, side), network, diffusion=process, sampler=RespacedDDPM(steps), optimizer=optimizer)


_VIDM = {"model_channels": 32, "channel_mult": (1, 1, 2, 2), "num_head_channels": 32}
_VIDM_S = {**_VIDM, "num_res_blocks": 2, "attention_resolutions": (4,)}
_VIDM_M = {**_VIDM, "num_res_blocks": 1, "attention_resolutions": (8,)}
_TINY_VIDM = {**_VIDM, "num_res_blocks": 1, "channel_mult": (1, 1), "attention_resolutions": ()}


def _svg(sizes: dict[str, Any], past: int, frames: int, side: int, on: bool) -> SVG:
    """The release's step; its networks have no checkpointing."""
    adam = partial(torch.optim.Adam, lr=0.002)
    return SVG(_spec(frames, side), SVGNetwork(**sizes), past, optimizer=adam)


def _vqvae(sizes: dict[str, Any], frames: int, side: int, on: bool) -> VideoVQVAE:
    return VideoVQVAE(_spec(frames, side), VQVAE(**sizes), optimizer=partial(torch.optim.Adam, lr=3e-4))


def _videogpt(first: dict[str, Any], sizes: dict[str, Any], cached: int, frames: int, side: int, on: bool) -> VideoGPT:
    """A prior on cached codes of noise; the VQ-VAE does not run."""
    prior = CodeTransformer(**sizes, **_switch(on))
    codec, adam = _vqvae(first, frames, side, False), partial(torch.optim.Adam, lr=3e-4)
    model = VideoGPT(_spec(frames, side), prior, codec, optimizer=adam)
    with TemporaryDirectory() as folder:
        model._cache = LatentCache(Path(folder) / "codes.safetensors", {})
        codes = torch.randint(len(codec.network.codebook.embeddings), (cached, *model.code_shape), device="cpu")
        paths = [str(number) for number in range(cached)]
        model._cache.build([{"path": paths}], lambda _: {"codes": codes.short()})
        model._cache.open()
    return model


_PLANES_64 = {"model_channels": 64}
_THIN_VQVAE = {"hidden": 8, "res_layers": 1}
_TINY_VQVAE = {**_THIN_VQVAE, "embedding_dim": 6, "codes": 12, "downsample": (2, 2, 2)}
_TINY_PLANES = {"model_channels": 8, "num_res_blocks": 1, "channel_mult": (1,), "attention_resolutions": (1,)}
_TINY_PLANES |= {"num_heads": 2, "norm_groups": 4}
_TINY_VIT = {"channels": 8, "depth": 1, "heads": 2, "dim_head": 8, "projector_depth": 1, "projector_hidden": 8}
_TINY_UNET = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8, "resnet_groups": 4}
ROWS: dict[str, Row] = {
    "lfae-s": Row(
        "LFAE, regions and background 16/256/5, generator 32/256, flow 32/256/5, K 10, VGG19 on 4 scales, 128 px",
        clips=2,
        parameters=9_482_141,
        module=partial(_autoencoder, _small_lfae, 128),
        frames=2,
        side=128,
    ),
    "dm-s": Row(
        "Unet3D dim 32, mults 1 2 4 8, 131 channels, over the frozen LFAE-S, 10 frames, 128 px",
        clips=2,
        parameters=13_251_555,
        module=partial(_diffusion, _small_lfae, {"dim": 32}, 10, 128),
        frames=10,
        side=128,
    ),
    "lfae": Row(
        "LFAE of lfdm_mug.yaml, VGG19 on 4 scales, 128 px, batch of the release",
        clips=100,
        parameters=66_004_557,
        module=partial(_autoencoder, _full_lfae, 128),
        frames=2,
        side=128,
    ),
    "dm": Row(
        "Unet3D of lfdm_mug.yaml over the frozen LFAE, 40 frames, 128 px, batch of the release",
        clips=5,
        parameters=42_731_203,
        module=partial(_diffusion, _full_lfae, {"dim": 64}, 40, 128),
        frames=40,
        side=128,
    ),
    "pvdm-ae": Row(
        "ViTAutoencoder C 128, depth 8, L1 alone, 16 frames, 64 px",
        clips=2,
        parameters=13_608_207,
        module=partial(_pvdm_autoencoder, {"channels": 128}, 16, 64),
        frames=16,
        side=64,
    ),
    "pvdm-dm": Row(
        "PlaneUNet base 64, mults 1 2 4 4, with condition, on cached latents of 16 frames of 256 px",
        clips=2,
        parameters=33_088_516,
        # the autoencoder, of the least size, does not run
        module=partial(_pvdm, {**_TINY_VIT, "heads": 1}, _PLANES_64, 2, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-dm-live": Row(
        "the same, encoding both clips of 16 frames by a frozen ViTAutoencoder C 64 in every step",
        clips=2,
        parameters=33_088_516,
        module=partial(_pvdm, {"channels": 64}, _PLANES_64, 0, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-stage": Row(
        "the same network and frozen autoencoder, which does not run: on cached latents",
        clips=2,
        parameters=33_088_516,
        module=partial(_pvdm, {"channels": 64}, _PLANES_64, 2, 32, 256),
        frames=32,
        side=256,
    ),
    "pvdm-ae-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=8_239,
        module=partial(_pvdm_autoencoder, _TINY_VIT, 3, 32),
        frames=3,
        side=32,
    ),
    "pvdm-dm-tiny": Row(
        "tiny networks on cached latents of 2 frames, 32 px",
        clips=2,
        parameters=14_764,
        module=partial(_pvdm, _TINY_VIT, _TINY_PLANES, 2, 4, 32),
        frames=4,
        side=32,
    ),
    "vdm-s": Row(
        "VDM's Unet3D dim 32, mults 1 2 4 8, 8 frames, 32 px, L1",
        clips=2,
        parameters=9_969_475,
        module=partial(_vdm, {"dim": 32}, 8, 32),
        frames=8,
        side=32,
    ),
    "vdm": Row(
        "VDM's Unet3D dim 64 of vdm_sky.yaml, 16 frames, 64 px, L1, batch of the public code",
        clips=32,
        parameters=35_706_243,
        module=partial(_vdm, {"dim": 64}, 16, 64),
        frames=16,
        side=64,
    ),
    "vdm-tiny": Row(
        "tiny networks, 3 frames, 8 px",
        clips=2,
        parameters=60_051,
        module=partial(_vdm, {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8}, 3, 8),
        frames=3,
        side=8,
    ),
    "vidm-s": Row(
        "VIDM's motion generator, width 32, mults 1 1 2 2, 2 blocks a level, attention at 1/4, 32 px",
        clips=4,
        parameters=4_336_594,
        module=partial(_vidm, _VIDM_S, "ddim100", 8, 32),
        frames=8,
        side=32,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-m": Row(
        "VIDM's motion generator, width 32, mults 1 1 2 2, 1 block a level, attention at 1/8, 64 px",
        clips=2,
        parameters=3_427_154,
        module=partial(_vidm, _VIDM_M, "ddim100", 8, 64),
        frames=8,
        side=64,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-s-clip": Row(
        "vidm-s samples clips of 3 frames by the released 100 steps (ddim100)",
        clips=4,
        parameters=4_336_594,
        module=partial(_vidm, _VIDM_S, "ddim100", 3, 32),
        frames=3,
        side=32,
        samples=True,
    ),
    "vidm-m-clip": Row(
        "vidm-m samples clips of 3 frames by the released 100 steps (ddim100)",
        clips=2,
        parameters=3_427_154,
        module=partial(_vidm, _VIDM_M, "ddim100", 3, 64),
        frames=3,
        side=64,
        samples=True,
    ),
    "vidm-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=1_819_922,
        module=partial(_vidm, _TINY_VIDM, 2, 3, 32),
        frames=3,
        side=32,
        clip_norm=1.0,
        ema=0.999,
    ),
    "vidm-clip-tiny": Row(
        "tiny networks sample clips of 3 frames by 2 steps, 32 px",
        clips=2,
        parameters=1_819_922,
        module=partial(_vidm, _TINY_VIDM, 2, 3, 32),
        frames=3,
        side=32,
        samples=True,
    ),
    "svg": Row(
        "SVG-LP of svg_lp_bair.yaml (vgg 64), 2 past and 10 predicted frames, 64 px",
        clips=4,
        parameters=22_831_747,
        module=partial(_svg, {"backbone": "vgg", "latent_dim": 64}, 2, 12, 64),
        frames=12,
        side=64,
    ),
    "svg-tiny": Row(
        "tiny networks, 4 frames, 16 px",
        clips=2,
        parameters=4_155,
        module=partial(_svg, {"frame_dim": 6, "latent_dim": 3, "width": 2, "rnn_size": 8}, 2, 4, 16),
        frames=4,
        side=16,
    ),
    "vqvae": Row(
        "VQ-VAE of videogpt_ucf101.yaml, 16 frames, 64 px",
        clips=2,
        parameters=21_141_619,
        module=partial(_vqvae, {}, 16, 64),
        frames=16,
        side=64,
    ),
    "vqvae-tiny": Row(
        "tiny networks, 4 frames, 8 px",
        clips=2,
        parameters=8_417,
        module=partial(_vqvae, _TINY_VQVAE, 4, 8),
        frames=4,
        side=8,
    ),
    "videogpt": Row(
        "prior 576 wide, 4 heads, 8 layers, sparse, on cached codes (4x16x16) of 16 frames, 64 px",
        clips=2,
        parameters=33_232_320,
        module=partial(_videogpt, _THIN_VQVAE, {"attention": "sparse"}, 2, 16, 64),
        frames=16,
        side=64,
    ),
    "videogpt-tiny": Row(
        "a tiny prior on cached codes of 4 frames, 8 px",
        clips=2,
        parameters=14_888,
        module=partial(_videogpt, _TINY_VQVAE, {"hidden_dim": 24, "heads": 2, "layers": 2}, 2, 4, 8),
        frames=4,
        side=8,
    ),
    "lfae-tiny": Row(
        "tiny networks, 2 frames, 32 px",
        clips=2,
        parameters=23_922,
        module=partial(_autoencoder, _tiny_lfae, 32),
        frames=2,
        side=32,
    ),
    "dm-tiny": Row(
        "tiny networks, 3 frames, 32 px",
        clips=2,
        parameters=240_507,
        module=partial(_diffusion, _tiny_lfae, _TINY_UNET, 3, 32),
        frames=3,
        side=32,
    ),
}


def autocast(variant: Variant) -> AbstractContextManager[Any]:
    """The context of a forward pass, as Lightning's precision plugin makes it."""
    return torch.autocast(variant.device, torch.bfloat16) if variant.precision == "bf16" else nullcontext()


def build(name: str, variant: Variant) -> Step:
    """One step of a row, which returns its loss, or the mean of the clips where it samples.

    A step of the optimiser is loss, gradients, clipping and averaging where the row has them, and the update.
    Weights, batch and the noise of step i are the same in every process.
    """
    row = ROWS[name]
    torch.manual_seed(0)
    module = row.module(variant.checkpointing).to(variant.device).train()
    batch = module.on_after_batch_transfer(row.batch(variant.batch or row.clips, variant.device), 0)
    optimizer: Any = module.configure_optimizers()
    parameters = [p for p in module.parameters() if p.requires_grad]
    ema = EMA(row.ema, warmup=False)
    if row.ema:
        ema.start(module)
    if variant.compile:
        from vgen.callbacks.compile import compile_networks  # an older checkout need not have it

        compile_networks(module, variant.backend)

    def sample() -> Tensor:
        clips: Any = module
        with autocast(variant):
            sampled: Tensor = clips.sample(module.conditions(batch), len(batch["video"]))
        return sampled.mean()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(variant):
            loss = module.loss(batch)["loss"]
        loss.backward()
        if row.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, row.clip_norm)
        optimizer.step()
        if row.ema:
            ema.update(module)
        return loss.detach()

    return sample if row.samples else step
