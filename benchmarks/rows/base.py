"""What a row of the step-time table is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vgen.training import SingleLossModule
from vgen.video import ClipSpec

Batch = dict[str, Any]
CLASSES = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
TINY_UNET3D = {"dim": 8, "dim_mults": (1, 2), "attn_heads": 2, "attn_dim_head": 8, "resnet_groups": 4}


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


def switch(on: bool) -> dict[str, Any]:
    """The argument where it is on: a checkout that lacks it can still be measured without."""
    return {"checkpointing": True} if on else {}


def spec(frames: int, side: int) -> ClipSpec:
    """Of clips of faces, with classes."""
    return ClipSpec(frames, side, side, class_names=CLASSES, condition_keys=("label",))
