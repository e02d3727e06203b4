"""The rows of the step-time table: models and batches of stated sizes, and one optimisation step of each.

LFAE-S and DM-S are LFDM's two stages at a size that a CPU can train; LFAE and DM are the published configurations of
MUG. The tiny rows are for tests of the benchmarks themselves.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.conditioning import LabelEmbedding
from vgen.losses import L1Pyramid, VGGPyramid
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
    """

    what: str
    clips: int
    parameters: int
    module: Callable[[bool], SingleLossModule]
    frames: int
    side: int

    def batch(self, clips: int, device: str) -> Batch:
        """Clips of noise, which cost as much as real ones."""
        torch.manual_seed(1)
        video = torch.randint(0, 256, (clips, 3, self.frames, self.side, self.side), dtype=torch.uint8)
        return {"video": video.to(device), "label": (torch.arange(clips) % len(CLASSES)).to(device)}


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


def _full_lfae(checkpointing: bool = False) -> LFAE:
    return LFAE(**_switch(checkpointing))


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
    """One optimisation step of a row: loss, gradients, optimiser; returns the loss.

    Weights, batch and the noise of step i are the same in every process.
    """
    row = ROWS[name]
    torch.manual_seed(0)
    module = row.module(variant.checkpointing).to(variant.device).train()
    batch = module.on_after_batch_transfer(row.batch(variant.batch or row.clips, variant.device), 0)
    optimizer: Any = module.configure_optimizers()
    if variant.compile:
        from vgen.callbacks.compile import compile_networks  # an older checkout need not have it

        compile_networks(module, variant.backend)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast(variant):
            loss = module.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
