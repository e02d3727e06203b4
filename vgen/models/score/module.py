"""Score-based models of frames or clips; NCSN, DDPM, score SDE and EDM differ in network, process and sampler."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from vgen.diffusion import ClipNoise, ContinuousDiffusion, GaussianDiffusion, Sampler
from vgen.diffusion.ode import log_likelihood_bits
from vgen.diffusion.picard import rows
from vgen.errors import UserError
from vgen.models.score.augmentation import LABELS, Augmentation
from vgen.models.score.networks import ADM, NCSN, Preconditioned, ScoreNetwork, ScoreUNet, ScoreUNet3D
from vgen.training import SamplesClips, SingleLossModule
from vgen.video import ClipSpec, frame_of_each


class ScoreModel(SamplesClips, SingleLossModule):
    """Generates frames by a score-based diffusion; with a network of clips (`ScoreUNet3D`), clips.

    NCSN and SMLD: VE with discrete labels, annealed Langevin. DDPM: `GaussianDiffusion` and its samplers. Score SDE:
    VP, SubVP or VE with predictor-corrector or the ODE. EDM: `Preconditioned` network, Karras process and sampler.

    Args:
        clip_spec: Clips to learn from; a network of frames is shown a random frame of each.
        network: The network.
        diffusion: The process.
        sampler: How frames are generated; it must fit the process.
        class_conditional: Tell an EDM network the class.
        likelihood: Measure the likelihood in `test`, in bits per dimension of 8-bit data, by the probability-flow ODE
            (VP, sub-VP and VE).
        augmentation: EDM's, of training samples, which the network is told of (its `augment_dim` is 9).
        optimizer: Optimiser of the network.
        lr_scheduler: Learning-rate schedule.
        lr_interval: Unit of the schedule.
    """

    def __init__(
        self,
        clip_spec: ClipSpec,
        network: ScoreNetwork | Preconditioned,
        diffusion: ContinuousDiffusion | GaussianDiffusion,
        sampler: Sampler,
        class_conditional: bool = False,
        likelihood: bool = False,
        augmentation: Augmentation | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "step",
    ) -> None:
        super().__init__(clip_spec, optimizer, lr_scheduler, lr_interval)
        self.network, self.diffusion, self.sampler = network, diffusion, sampler
        self.class_conditional, self.likelihood, self.augmentation = class_conditional, likelihood, augmentation
        #: score SDE's VE models see data in [0, 1].
        self.centered = not isinstance(network, ScoreNetwork) or network.centered
        if isinstance(network, Preconditioned) and not isinstance(diffusion, ContinuousDiffusion):
            raise UserError("a preconditioned network needs a process in continuous time", "diffusion")
        if likelihood:
            self._continuous().sde()
        self._check()

    @property
    def _unet(self) -> ScoreUNet | ADM | NCSN | ScoreUNet3D:
        return self.network.unet if isinstance(self.network, ScoreNetwork) else self.network.network

    def _check(self) -> None:
        unet, spec = self._unet, self.clip_spec
        size = f"{spec.height}x{spec.width}"
        if isinstance(unet, ScoreUNet3D):
            if spec.height % unet.side_multiple or spec.width % unet.side_multiple:
                raise UserError(
                    f"{size} cannot be halved as often as the network does: sides must be multiples of "
                    f"{unet.side_multiple}",
                    "network.channel_mult",
                )
        elif {spec.height, spec.width} != {unet.resolution}:
            raise UserError(
                f"the network is made for {unet.resolution}x{unet.resolution} pixels, the data is {size}",
                "network.resolution",
            )
        if self.class_conditional and (
            isinstance(self.network, ScoreNetwork) or unet.label_dim != len(spec.class_names)
        ):
            raise UserError(
                f"the network knows {unet.label_dim} classes, the data has {len(spec.class_names)}", "network.label_dim"
            )
        wanted = LABELS if self.augmentation is not None else 0
        if isinstance(self.network, ScoreNetwork) and wanted:
            raise UserError("score SDE's networks are not told of an augmentation", "augmentation", "Preconditioned")
        if wanted and unet.augment_dim != wanted:
            raise UserError(
                f"augmentation makes {wanted} labels, the network reads {unet.augment_dim}", "network.augment_dim"
            )

    def _continuous(self) -> ContinuousDiffusion:
        if not isinstance(self.diffusion, ContinuousDiffusion):
            raise UserError("likelihoods need a process in continuous time", "likelihood")
        return self.diffusion

    def output(self, x: Tensor, t: Tensor, label: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """The network's raw output at times t of the process."""
        if isinstance(self.network, Preconditioned):
            return self.network(x, self._continuous().label(t), label, augment)
        return self.network(x, self.diffusion.label(t) if isinstance(self.diffusion, ContinuousDiffusion) else t)

    def _labels(self, conditions: dict[str, Any]) -> Tensor | None:
        if not self.class_conditional:
            return None
        if "label" not in conditions:
            raise UserError("this model is told a class", "label", "give label=...")
        return F.one_hot(conditions["label"], len(self.clip_spec.class_names)).float()

    def _samples(self, batch: dict[str, Any]) -> Tensor:
        """One random frame of every clip, or the clips, in the range that the network was made for."""
        video = batch["video"]
        if self._unet.clips:
            return video if self.centered else (video + 1) / 2
        x0 = frame_of_each(video, torch.randint(video.shape[2], (len(video),), device=video.device))
        return x0 if self.centered else (x0 + 1) / 2

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Denoising score matching on one frame of every clip (B, C, T, H, W), or on the clips."""
        x0, augment = self._samples(batch), None
        if self.augmentation is not None and self.training:
            x0, augment = self.augmentation(x0)
        noise = torch.randn_like(x0)
        if isinstance(self.diffusion, ContinuousDiffusion):
            t = self.diffusion.draw(len(x0), x0.device)
        else:
            t = torch.randint(self.diffusion.steps, (len(x0),), device=x0.device)
        label = self._labels(self.conditions(batch))
        output = self.output(self.diffusion.q_sample(x0, t, noise), t, label, augment)
        return {"loss": self.diffusion.losses(output, x0, noise, t).mean()}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss on test clips, and where asked for the likelihood, as `test/bits_per_dim`."""
        super().test_step(batch, batch_idx)
        if self.likelihood:
            bits = self.bits_per_dim(self._samples(batch), batch_idx)
            self.log("test/bits_per_dim", bits.mean(), batch_size=len(bits), sync_dist=True)

    def bits_per_dim(self, x0: Tensor, seed: int = 0) -> Tensor:
        """Negative log-likelihood of 8-bit frames or clips, dequantised uniformly, (B,) bits per dimension.

        Args:
            x0: (B, C, H, W) or (B, C, T, H, W) in the range of the network.
            seed: Of dequantisation and trace estimate.
        """
        generator = torch.Generator().manual_seed(seed)
        uniform, signs = (torch.rand(x0.shape, generator=generator).to(x0.device) for _ in range(2))
        bytes_ = ((x0 + 1) / 2 if self.centered else x0) * 255
        unit = (bytes_.round() + uniform) / 256
        data = 2 * unit - 1 if self.centered else unit
        probe, process = 2 * (signs < 0.5).to(x0.dtype) - 1, self._continuous()
        bits, _, _ = log_likelihood_bits(
            process.sde(), process.score_fn(self.output), data, probe, offset=7.0 if self.centered else 8.0
        )
        return bits

    def generate(
        self, conditions: dict[str, Any], n: int, frames: int, seeds: list[int], options: dict[str, Any]
    ) -> Tensor:
        """Clips (n, C, frames, H, W); of a network of frames, a generated frame repeated. Options: the sampler's."""
        spec = self.clip_spec
        label, clips = self._labels(conditions), self._unet.clips
        shape = (n, spec.channels, *((frames,) if clips else ()), spec.height, spec.width)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.output(x, t, None if label is None else rows(label, x))

        x = self.sampler.chosen(options).sample(denoise, shape, ClipNoise(seeds, self.device), self.diffusion)
        x = x if self.centered else 2 * x - 1
        return x if clips else x[:, :, None].expand(-1, -1, frames, -1, -1)
