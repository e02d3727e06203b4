"""What LFDM shows of its inside: the flow and the occlusion that its clips were made with."""

import pytest
import torch

from tests.tiny_lfdm import FRAMES, SIDE, autoencoder, lfdm
from vgen.video import Field, Illustrates


@pytest.fixture(scope="module")
def stages():
    torch.manual_seed(0)
    first = autoencoder().eval()
    return first, lfdm(first).eval()


def batch():
    return {"video": torch.rand(2, 3, FRAMES, SIDE, SIDE) * 2 - 1, "label": torch.tensor([0, 1])}


def test_the_first_stage_shows_what_it_reconstructs_with(stages):
    model, clips = stages[0], batch()
    assert isinstance(model, Illustrates)
    shown = model.illustrate(clips, [0, 1])
    assert list(shown) == ["reconstructed", "flow", "occlusion"]
    assert torch.equal(shown["reconstructed"], model.reconstruct(clips))
    latent = model.encode(clips["video"])
    assert torch.equal(shown["occlusion"].values, latent["occlusion"])
    side = latent["flow"].shape[-1]
    assert shown["flow"].values.shape == (2, 2, FRAMES, side, side) and isinstance(shown["flow"], Field)


def test_flow_in_pixels(stages):
    """Reading a clip at its own pixels is no motion; reading three pixels to the right is +3 in x."""
    side = 8
    centres = (torch.arange(side) * 2 + 1) / side - 1
    grid = torch.stack((centres.expand(side, side), centres[:, None].expand(side, side)))[None, :, None]
    clip = torch.rand(1, 1, side, side)
    read = torch.nn.functional.grid_sample(clip, grid[:, :, 0].permute(0, 2, 3, 1), align_corners=False)
    assert torch.allclose(read, clip, atol=1e-6)
    occlusion = torch.ones(1, 1, 1, side, side)
    assert stages[0].fields(grid, occlusion)["flow"].values.abs().max() < 1e-4
    grid[:, 0] += 2 * 3 / SIDE
    x, y = stages[0].fields(grid, occlusion)["flow"].values.mean((0, 2, 3, 4))
    assert x == pytest.approx(3, abs=1e-4) and y == pytest.approx(0, abs=1e-4)


def test_the_second_stage_shows_what_it_generates_with(stages):
    model, clips = stages[1], batch()
    shown = model.illustrate(clips, [3, 4])
    assert list(shown) == ["generated", "flow", "occlusion"]
    assert torch.equal(shown["generated"], model.sample(model.conditions(clips), 2, seeds=[3, 4]))
    with torch.no_grad():
        flow, occlusion = model.generate_flow(model.conditions(clips), 2, FRAMES, [3, 4], {})
    assert torch.equal(shown["occlusion"].values, occlusion)
    assert torch.equal(shown["flow"].values, model.autoencoder.fields(flow, occlusion)["flow"].values)
