"""LFDM's first stage: the latent flow auto-encoder (LFAE), trained without labels on pairs of frames of one clip."""

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from vgen.codecs import Frozen, Latent
from vgen.errors import UserError
from vgen.losses import RandomTransform, TransformConfig, equivariance_affine, equivariance_shift, logit_penalty
from vgen.models.lfdm.networks import LFAE
from vgen.training import SingleLossModule
from vgen.video import ClipSpec, Field


class LatentFlowAutoencoder(SingleLossModule):
    """Reconstructs a driving frame from a source frame by estimated flow and occlusion (LFDM section 3.1, MRAA).

    Loss: distance of images on a pyramid (VGG19 features in the paper) + equivariance of the regions' centres and
    affine frames under a random transform. As a codec it encodes a clip, relative to its reference frame, to `flow`
    (B, 2, T, h, w), `occlusion` (B, 1, T, h, w) and `reference` (B, C, H, W).

    Args:
        clip_spec: Clips of two frames for training; longer clips are reconstructed from their first frame.
        network: The networks.
        image_loss: Distance between prediction and driving frame, both (N, C, H, W) in [0, 1]; None in a model that is
            opened for use, which cannot be trained.
        equivariance_shift: Weight of the loss on region centres.
        equivariance_affine: Weight of the loss on region affine frames.
        transform: The random transform.
        occlusion_penalty: Weight of a penalty on saturated occlusion logits; 0 in the paper.
        trainable: Prefixes of the network's weights that are trained; empty means all. The rest stays frozen, in eval
            mode: ("generator.bottleneck", "generator.up_blocks", "generator.final") trains the decoder alone.
        decode_chunk: Frames decoded at once; fewer take less memory.
        optimizer: Optimiser.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    training_only: ClassVar[tuple[str, ...]] = ("image_loss",)

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: LFAE,
        image_loss: nn.Module | None,
        equivariance_shift: float = 10.0,
        equivariance_affine: float = 10.0,
        transform: TransformConfig = TransformConfig(),  # noqa: B008  (frozen)
        occlusion_penalty: float = 0.0,
        trainable: tuple[str, ...] = (),
        decode_chunk: int = 40,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        _check_size(clip_spec, network)
        self.network = network
        self.image_loss = None if image_loss is None else Frozen(image_loss)
        self.shift_weight, self.affine_weight = equivariance_shift, equivariance_affine
        self.transform = transform
        self.occlusion_penalty = occlusion_penalty
        if decode_chunk < 1:
            raise UserError(f"at least one frame has to be decoded at once, not {decode_chunk}", "decode_chunk")
        self.decode_chunk = decode_chunk
        self.trainable = tuple(trainable)
        if self.trainable:
            chosen = {name for name, _ in network.named_parameters() if name.startswith(self.trainable)}
            if not chosen:
                raise UserError(f"no weight of the network begins with any of {list(self.trainable)}", "trainable")
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name in chosen)

    def train(self, mode: bool = True) -> "LatentFlowAutoencoder":
        """Keeps the frozen part in eval mode, so that its BatchNorm statistics stay."""
        super().train(mode)
        if mode and self.trainable:
            for name, module in self.network.named_modules():
                if name and not f"{name}.".startswith(tuple(f"{p}." for p in self.trainable)):
                    module.training = False
        return self

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms of a batch of clips, of which the first and last frames are the pair.

        Args:
            batch: `video` (B, C, T, H, W) in [-1, 1], T at least 2.
        """
        if self.image_loss is None:
            raise UserError(
                "this auto-encoder was opened for use and has no loss to train with",
                "image_loss",
                "train one that a recipe builds, with init_from: {path: <this file>}",
            )
        pair = (batch["video"] + 1) / 2
        source, driving = pair[:, :, 0], pair[:, :, -1]
        out = self.network(source, driving)
        terms = {"image": self.image_loss.network(out["prediction"].float(), driving)}
        if self.shift_weight or self.affine_weight:
            terms |= self._equivariance(driving, out["driving_region_params"])
        if self.occlusion_penalty:
            terms["occlusion"] = self.occlusion_penalty * logit_penalty(out["occlusion_logits"])
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def _equivariance(self, driving: Tensor, regions: dict[str, Tensor]) -> dict[str, Tensor]:
        """MRAA section 3.3: regions of a transformed frame must be the transformed regions."""
        transform = RandomTransform.draw(len(driving), self.transform, driving.device)
        moved = self.network.regions(transform.transform_frame(driving))
        terms: dict[str, Tensor] = {}
        if self.shift_weight:
            terms["shift"] = self.shift_weight * equivariance_shift(regions["shift"], transform, moved["shift"])
        if self.affine_weight:
            distance = equivariance_affine(
                regions["affine"], transform, moved["shift"], moved["affine"], self.network.revert_axis_swap
            )
            terms["affine"] = self.affine_weight * distance
        return terms

    def encode(self, video: Tensor, reference: Tensor | None = None) -> Latent:
        """Flow and occlusion of every frame relative to the reference (default: the first frame).

        Args:
            video: (B, C, T, H, W) in [-1, 1].
            reference: (B, C, H, W) in [-1, 1].
        """
        reference = video[:, :, 0] if reference is None else reference
        flow, occlusion = self.network.flow((reference + 1) / 2, (video + 1) / 2)
        if occlusion is None:
            raise UserError("a codec needs occlusion maps", "network.generator.flow_predictor.estimate_occlusion_map")
        return {"flow": flow, "occlusion": occlusion, "reference": reference}

    def features(self, reference: Tensor) -> Tensor:
        """z0 of the reference, (B, C, H, W) in [-1, 1] -> (B, latent_channels, h, w)."""
        return self.network.encode_source((reference + 1) / 2)

    def decode(self, latent: Latent) -> Tensor:
        """Warps and decodes every frame from the reference: (B, C, T, H, W) in [-1, 1]."""
        source = (latent["reference"] + 1) / 2
        return self.network.decode(source, latent["flow"], latent["occlusion"], self.decode_chunk) * 2 - 1

    def latent_spec(self, clip_spec: ClipSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of the latent of one clip."""
        scale = self.network.flow_scale
        side = (int(clip_spec.height * scale), int(clip_spec.width * scale))
        return {
            "flow": (2, clip_spec.frames, *side),
            "occlusion": (1, clip_spec.frames, *side),
            "reference": (clip_spec.channels, clip_spec.height, clip_spec.width),
        }

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Any]) -> Tensor:
        """Every frame from the first one and its own flow: (B, C, T, H, W) in [-1, 1]."""
        return self.decode(self.encode(batch["video"]))

    @torch.no_grad()
    def illustrate(self, batch: dict[str, Any], seeds: list[int]) -> dict[str, Tensor | Field]:
        """Reconstructions with the flow and the occlusion that they were warped by."""
        latent = self.encode(batch["video"])
        return {"reconstructed": self.decode(latent), **self.fields(latent["flow"], latent["occlusion"])}

    def fields(self, flow: Tensor, occlusion: Tensor) -> dict[str, Field]:
        """Flow (B, 2, T, h, w) as displacements in pixels, and occlusion (B, 1, T, h, w), to be looked at."""
        # Where the sampler (align_corners False) reads without motion: the networks learn to make up for the half cell
        # between that and the corner-aligned grid that their flow starts from.
        x, y = ((torch.arange(n, device=flow.device) * 2 + 1) / n - 1 for n in (flow.shape[-1], flow.shape[-2]))
        still = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))))[None, :, None]
        half = flow.new_tensor((self.clip_spec.width, self.clip_spec.height)).view(1, 2, 1, 1, 1) / 2
        return {
            "flow": Field("flow", (flow - still) * half, "where each pixel is read from, relative to itself"),
            "occlusion": Field("share", occlusion, "white is warped from the first frame, black is painted anew"),
        }


def _check_size(spec: ClipSpec, network: LFAE) -> None:
    """The hourglass halves the down-scaled side num_blocks times."""
    if spec.channels != network.num_channels:
        raise UserError(
            f"the data has {spec.channels} channels, the network {network.num_channels}", "network.num_channels"
        )
    for name, part in (("region_predictor", network.region_predictor), ("flow_predictor", network.flow_predictor)):
        depth = len((part.predictor if name == "region_predictor" else part.hourglass).encoder.down_blocks)  # type: ignore[union-attr, arg-type]
        side = min(spec.height, spec.width) * part.scale_factor
        if side % 2**depth:
            raise UserError(
                f"{name}: a side of {side:g} pixels cannot be halved {depth} times",
                f"network.{name}.num_blocks",
                f"use num_blocks <= {_largest_depth(int(side))} or another data size",
            )


def _largest_depth(side: int) -> int:
    return (side & -side).bit_length() - 1
