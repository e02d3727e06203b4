"""Networks that see single frames: Inception-v3 (FID), CLIP (text and frame consistency) and DINO (subjects)."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.metrics.detectors.base import Detector, Identity

# Mean and deviation of channels in [0, 1].
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class FrameDetector(Detector):
    """A network that maps each frame to features by itself."""

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, T, H, W) in 0..255 -> (B, T, D)."""
        frames = pixels.transpose(1, 2)
        return self.frames(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @abstractmethod
    def frames(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..255 -> (N, D)."""


class InceptionDetector(FrameDetector):
    """Inception-v3 of 2015-12-05 as torchmetrics wraps it; it resizes bytes to 299 itself, as TensorFlow 1 did.

    Args:
        network: Maps uint8 frames (N, 3, H, W) to (N, 2048).
        identity: Which weights.
        batch: Clips in each pass.
    """

    def __init__(self, network: nn.Module, identity: Identity, batch: int = 16) -> None:
        super().__init__(identity, batch)
        self.network = network
        self.eval().requires_grad_(False)

    def frames(self, pixels: Tensor) -> Tensor:
        """See `FrameDetector`."""
        return self.network(pixels.round().to(torch.uint8)).flatten(1)


class ClipDetector(FrameDetector):
    """CLIP's image and text embeddings (Radford et al. 2021), not normalised.

    Args:
        model: A `transformers.CLIPModel`.
        tokenizer: Its tokenizer; None where no text is embedded.
        identity: Which weights.
        batch: Clips in each pass.
    """

    def __init__(self, model: Any, tokenizer: Any, identity: Identity, batch: int = 16) -> None:
        super().__init__(identity, batch)
        self.model, self.tokenizer = model, tokenizer
        self.side = int(model.config.vision_config.image_size)
        self.eval().requires_grad_(False)

    def frames(self, pixels: Tensor) -> Tensor:
        """See `FrameDetector`."""
        seen = self.model.vision_model(pixel_values=normalised(pixels, self.side, CLIP_STATISTICS))
        found: Tensor = self.model.visual_projection(seen.pooler_output)
        return found

    @torch.no_grad()
    def text(self, prompts: Sequence[str], batch: int = 64) -> Tensor:
        """Embeds N prompts, (N, D); longer ones are cut at the model's length."""
        device = next(self.model.parameters()).device
        length = int(self.model.config.text_config.max_position_embeddings)
        found = []
        for start in range(0, len(prompts), batch):
            part = list(prompts[start : start + batch])
            tokens = self.tokenizer(part, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            read = self.model.text_model(
                input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
            )
            found.append(self.model.text_projection(read.pooler_output))
        return torch.cat(found)


class DinoDetector(FrameDetector):
    """The class token of DINO's ViT (Caron et al. 2021), as VBench's subject consistency uses it.

    Args:
        model: A `transformers.ViTModel`.
        identity: Which weights.
        batch: Clips in each pass.
    """

    def __init__(self, model: Any, identity: Identity, batch: int = 16) -> None:
        super().__init__(identity, batch)
        self.model = model
        self.side = int(model.config.image_size)
        self.eval().requires_grad_(False)

    def frames(self, pixels: Tensor) -> Tensor:
        """See `FrameDetector`."""
        seen = self.model(pixel_values=normalised(pixels, self.side, IMAGENET_STATISTICS))
        found: Tensor = seen.last_hidden_state[:, 0]
        return found


def normalised(pixels: Tensor, side: int, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Resizes the shorter side (antialiased bicubic), takes the middle, and normalises channels.

    Args:
        pixels: (N, 3, H, W) in 0..255.
        side: Side of the result.
        statistics: Mean and deviation of each channel.

    Returns:
        (N, 3, side, side).
    """
    short = min(pixels.shape[-2:])
    height, width = (size * side // short for size in pixels.shape[-2:])
    if short != side:
        # Bytes between the steps, as the picture libraries that the models were trained with have them.
        pixels = F.interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
        pixels = pixels.clamp(0, 255).round()
    top, left = (height - side) // 2, (width - side) // 2
    mean, deviation = (torch.tensor(values, device=pixels.device).view(1, 3, 1, 1) for values in statistics)
    return (pixels[..., top : top + side, left : left + side] / 255 - mean) / deviation
