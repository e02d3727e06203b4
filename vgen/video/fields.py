"""Pictures of quantities that are no pictures: optical flow as colours, shares as grey levels."""

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FieldKind = Literal["flow", "share"]


@dataclass(frozen=True)
class Field:
    """A quantity on the pixels of clips, which people see as colours.

    Args:
        kind: `flow`: (B, 2, T, h, w), displacement (x to the right, y downwards) in pixels of the clip. `share`:
            (B, 1, T, h, w) in [0, 1].
        values: The quantity; h and w may be smaller than the clip's.
        meaning: What a reader has to know of it, in a few words.
    """

    kind: FieldKind
    values: Tensor
    meaning: str = ""

    def full_scale(self) -> float:
        """The value that gets the full colour: 1 for shares, a round number of pixels (1, 2, 5, 10, ...) for flow.

        All but the largest hundredth of the displacements lie below it.
        """
        if self.kind == "share":
            return 1.0
        lengths = self.values.float().norm(dim=1).flatten().cpu().numpy()
        high = float(np.quantile(lengths[np.isfinite(lengths)], 0.99)) if np.isfinite(lengths).any() else 1.0
        power = 10.0 ** math.floor(math.log10(max(high, 1.0)))
        return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= max(high, 1.0))

    def colour(self, full_scale: float) -> Tensor:
        """(B, 3, T, h, w) uint8: hue is the direction of flow, saturation its length; shares go from black to white."""
        values = self.values.detach().float().cpu()
        if self.kind == "share":
            return (values.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1, -1)
        return flow_colours(values, full_scale)

    def legend(self, side: int, full_scale: float, ink: int, paper: int) -> Tensor:
        """The key to the colours, (3, side, side) uint8: the wheel of directions, or the scale of grey.

        Args:
            side: Height and width in pixels.
            full_scale: See `colour`.
            ink: Grey level of the text.
            paper: Grey level behind it.
        """
        text = f"{full_scale:g} px" if self.kind == "flow" else "0 … 1"
        size = max(9, min(13, side // 7))
        font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
        picture = Image.new("RGB", (side, side), (paper,) * 3)
        room = side - size - 6
        if self.kind == "flow":
            wheel = Image.fromarray(_wheel(room, paper))
            picture.paste(wheel, ((side - room) // 2, 0))
        else:
            ramp = np.linspace(0, 255, max(room, 2)).astype(np.uint8)
            picture.paste(Image.fromarray(np.repeat(ramp[None], max(room // 4, 2), 0)), ((side - room) // 2, room // 2))
        draw = ImageDraw.Draw(picture)
        left = (side - draw.textlength(text, font=font)) / 2
        draw.text((left, side - size - 4), text, fill=(ink,) * 3, font=font)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def flow_colours(flow: Tensor, full_scale: float) -> Tensor:
    """Colours of displacements, after the colour wheel of optical-flow benchmarks (HSV form).

    Args:
        flow: (B, 2, T, h, w), x to the right and y downwards.
        full_scale: Length with full saturation; longer ones look the same. No motion is white.

    Returns:
        (B, 3, T, h, w) uint8. Red points to the right, then counter-clockwise as seen: yellow-green up, cyan left,
        violet down.
    """
    flow = torch.nan_to_num(flow)
    hue = torch.atan2(-flow[:, 1], flow[:, 0]).rad2deg() % 360 / 60
    saturation = (flow.norm(dim=1) / full_scale).clamp(max=1)
    channels = []
    for shift in (5.0, 3.0, 1.0):
        k = (shift + hue) % 6
        channels.append(1 - saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return (torch.stack(channels, 1) * 255).round().to(torch.uint8)


def _wheel(side: int, paper: int) -> np.ndarray:
    """(side, side, 3) uint8: every displacement up to the full scale, in its colour."""
    axis = torch.linspace(-1.05, 1.05, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    flow = torch.stack((x, y))[None, :, None]
    wheel = flow_colours(flow, 1.0)[0, :, 0]
    inside = (x.square() + y.square() <= 1)[None]
    return torch.where(inside, wheel, torch.full_like(wheel, paper)).permute(1, 2, 0).contiguous().numpy()
