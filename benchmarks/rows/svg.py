"""SVG: the published networks, in batches that a CPU can take."""

from functools import partial
from typing import Any

import torch

from benchmarks.rows.base import Row, spec
from vgen.models.svg import SVG, SVGNetwork


def _svg(sizes: dict[str, Any], past: int, frames: int, side: int, on: bool) -> SVG:
    """The release's step; its networks have no checkpointing."""
    adam = partial(torch.optim.Adam, lr=0.002)
    return SVG(spec(frames, side), SVGNetwork(**sizes), past, optimizer=adam)


ROWS: dict[str, Row] = {
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
}
