"""How much better a reconstruction is than standing still."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vgen.metrics.per_clip import PerClipMetric

# Mean squared error of rounding to 8 bits, for values in [-1, 1]: one step is 2/255 wide, and its error is uniform.
# Two pictures that agree to that are equal, and PSNR would be without bound.
ROUNDING_ERROR = (2 / 255) ** 2 / 12


class ReconstructionGain(PerClipMetric):
    """PSNR of a reconstruction minus PSNR of repeating the source frame, in dB; per clip the mean over frames.

    An image-to-video model is given the source frame, so that its PSNR alone says little: a clip with little motion
    is "reconstructed" well by its first frame. The gain is 0 for a model that does nothing. The source frame itself
    is left out. With boxes, only pixels inside are counted, those of all boxes of a frame pooled (both eyes).

    Args:
        source_frame: Index of the frame that the model was given.
        floor: Mean squared error (of values in [-1, 1]) below which two pictures count as equal.
    """

    def __init__(self, source_frame: int = 0, floor: float = ROUNDING_ERROR) -> None:
        super().__init__()
        self.source_frame, self.floor = source_frame, floor

    def update(
        self,
        reconstruction: Tensor,
        target: Tensor,
        boxes: Tensor | None = None,
        groups: Sequence[str] | Tensor | None = None,
    ) -> None:
        """Adds a batch of clips.

        Args:
            reconstruction: (B, C, T, H, W) in [-1, 1].
            target: (B, C, T, H, W) in [-1, 1].
            boxes: (B, T, K, 4) or (B, T, 4) of x0, y0, x1, y1 in pixels, upper ends excluded; a pixel counts where
                its middle is inside. A clip without a pixel in any frame's boxes is left out.
            groups: Subject of each clip, for the interval.
        """
        source = target[:, :, self.source_frame : self.source_frame + 1]
        mask = None if boxes is None else box_mask(boxes.to(target.device), target.shape[-2], target.shape[-1])
        gain = self._psnr(reconstruction, target, mask) - self._psnr(source, target, mask)
        counted = torch.ones_like(gain, dtype=torch.bool)
        counted[:, self.source_frame] = False
        if mask is not None:
            counted &= mask.flatten(2).any(2)
        frames = counted.sum(1)
        per_clip = torch.where(counted, gain, 0).sum(1) / frames.clamp_min(1)
        seen = frames > 0
        if not seen.all():
            per_clip = per_clip[seen]
            if groups is not None:
                groups = [group for group, keep in zip(groups, seen.tolist(), strict=True) if keep]
        self.add(per_clip, groups)

    def _psnr(self, video: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Per-frame PSNR (B, T) in dB; the peak of values in [-1, 1] is 2."""
        error = (video.double() - target.double()).square().mean(1)
        if mask is None:
            mse = error.mean((2, 3))
        else:
            mse = (error * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)
        return 10 * torch.log10(4 / mse.clamp_min(self.floor))


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Marks the pixels whose middle lies in any of the boxes of a frame.

    Args:
        boxes: (B, T, K, 4) or (B, T, 4) of x0, y0, x1, y1 in pixels.
        height: H.
        width: W.

    Returns:
        (B, T, H, W) bool.
    """
    if boxes.dim() == 3:
        boxes = boxes.unsqueeze(2)
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    x = torch.arange(width, device=boxes.device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=boxes.device, dtype=torch.float64) + 0.5
    columns = (x >= x0[..., None]) & (x < x1[..., None])
    rows = (y >= y0[..., None]) & (y < y1[..., None])
    return (rows[..., :, None] & columns[..., None, :]).any(2)


def landmark_boxes(
    landmarks: dict[str, Any],
    paths: Sequence[str],
    frame_index: Tensor | None,
    frames: int,
    parts: Sequence[str],
    size: tuple[int, int],
    landmark_size: tuple[int, int] | None = None,
) -> tuple[Tensor, list[int]]:
    """Reads the boxes of face parts of a batch of clips.

    Args:
        landmarks: Boxes by clip: `{clip: [{part: [x0, y0, x1, y1]} of each frame]}`, or the content of a
            `landmarks.json` that has them under `clips` beside the `size` of its pictures.
        paths: Clip of each batch row; may be longer than the keys (absolute folders), whose end has to match.
        frame_index: (B, T) which frames of the stored clip were taken; None for its first T.
        frames: T.
        parts: Names of the parts wanted, such as `left_eye` and `right_eye`.
        size: (H, W) of the clips.
        landmark_size: (H, W) of the pictures the boxes refer to; None takes `size` of the landmarks, or else
            supposes that of the clips.

    Returns:
        Boxes (b, T, K, 4) in pixels of the clips, and the batch rows that have them.
    """
    clips = landmarks.get("clips", landmarks)
    side = landmarks.get("size") if "clips" in landmarks else None
    known = landmark_size or ((side, side) if isinstance(side, int) else size)
    scale = torch.tensor([size[1] / known[1], size[0] / known[0]] * 2, dtype=torch.float64)
    rows, boxes = [], []
    for row, path in enumerate(paths):
        clip = _find(clips, path)
        if clip is None:
            continue
        taken = range(frames) if frame_index is None else frame_index[row].tolist()
        per_frame = [clip[min(t, len(clip) - 1)] for t in taken]
        if all(part in frame for frame in per_frame for part in parts):
            rows.append(row)
            boxes.append([[frame[part] for part in parts] for frame in per_frame])
    found = torch.tensor(boxes, dtype=torch.float64).reshape(len(rows), frames, len(parts), 4)
    return found * scale, rows


def _find(clips: dict[str, Any], path: str) -> Any:
    pieces = path.replace("\\", "/").rstrip("/").split("/")
    for start in range(len(pieces)):
        clip = clips.get("/".join(pieces[start:]))
        if clip is not None:
            return clip
    return None
