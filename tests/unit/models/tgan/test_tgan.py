"""TGAN: sizes, lengths, initial weights, and what is done to the critic."""

import numpy as np
import pytest
import torch

from tests.tiny_gan import FRAMES, SIDE, batch, small_tgan, spec
from vgen.errors import UserError
from vgen.losses.regularisers import clip_norm_scales, clip_singular_values
from vgen.models.tgan import Critic, VideoGenerator
from vgen.models.tgan.weights import read_snapshot
from vgen.video import ClipSpec


def prepared(network, frames=16, side=64, channels=3):
    with torch.device("meta"):
        network.prepare(ClipSpec(frames, side, side, channels))
    return network


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "seeds", "images"),
    [
        ({}, 825_444, 3_622_691),
        ({"seed_shift": True}, 826_468, 3_622_691),
        ({"slow": 256, "fast": 256}, 985_344, 4_900_643),
    ],
    ids=str,
)
def test_full_size_generators(arguments, seeds, images):
    network = prepared(VideoGenerator(**arguments))
    assert (count(network.seeds), count(network.images)) == (seeds, images)


def test_other_full_sizes():
    assert count(prepared(VideoGenerator(), channels=1).images) == 3_622_113
    assert count(prepared(Critic())) == 11_032_449 and count(prepared(Critic(shift=True))) == 11_033_409
    assert count(prepared(Critic(), channels=1)) == 11_024_257


@pytest.mark.parametrize(("frames", "height", "width"), [(16, 16, 16), (32, 32, 48)])
def test_other_sizes(frames, height, width):
    model = small_tgan(ClipSpec(frames, height, width, 1))
    clip = model.sample(n=2)
    assert clip.shape == (2, 1, frames, height, width) and model.discriminator(clip).shape == (2,)


def test_sizes_that_do_not_fit_are_named():
    for shape, what in ((ClipSpec(24, 32, 32), "frames 24"), (ClipSpec(16, 32, 20), "width 20")):
        with pytest.raises(UserError, match=what):
            VideoGenerator().prepare(shape)
    with pytest.raises(UserError, match="of 16 frames, not of 20"):
        small_tgan().sample(frames=20)


def test_clips_do_not_depend_on_their_batch():
    model = small_tgan()
    together = model.sample(n=3, seeds=[5, 6, 7])
    assert together.shape == (3, 3, FRAMES, SIDE, SIDE)
    torch.testing.assert_close(model.sample(n=1, seeds=[7]), together[2:], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(together[:1], together[2:], atol=1e-3)
    twins = model.sample(n=2, options={"slow": 6})
    torch.testing.assert_close(twins[:1], twins[1:], atol=1e-6, rtol=1e-4)
    assert model.conditions(batch()) == {}


def test_initial_weights():
    generator, critic = VideoGenerator(64, 32, 128), Critic(16)
    for network in (generator, critic):
        network.prepare(spec())
    deconv = generator.seeds.levels[1].conv  # (inputs 512, outputs 256, kernel 4)
    assert float(deconv.weight.std()) == pytest.approx((256 * 4) ** -0.5, rel=0.02) and not deconv.bias.any()
    conv = critic.levels[3].conv
    assert float(conv.weight.std()) == pytest.approx((64 * 64) ** -0.5, rel=0.02)
    for weight in (generator.images.levels[0].conv.weight, generator.images.from_slow.weight):
        assert 0.0099 < weight.abs().max() <= 0.01
    assert generator.seeds.levels[0].norm.bias is None and generator.images.levels[0].norm.bias is not None


@pytest.mark.parametrize("shape", [(8, 3, 4, 4, 4), (40, 2, 2, 2, 2), (1, 5, 4, 4), (6, 6)], ids=str)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_singular_values_are_clipped_as_the_decomposition_says(shape, kind):
    weight = torch.randn(shape).to(kind)
    clipped = clip_singular_values(weight, 1.0)
    u, s, v = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
    wanted = (u @ torch.diag(s.clamp(max=1)) @ v).reshape(shape)
    assert clipped.dtype == kind and s.max() > 1
    torch.testing.assert_close(clipped.double(), wanted, atol=1e-6 if kind == torch.float32 else 5e-3, rtol=0)
    small = 0.5 * weight / s[0].to(kind)  # nothing to clip: nothing changes
    torch.testing.assert_close(
        clip_singular_values(small), small, atol=1e-7, rtol=1e-5 if kind == torch.float32 else 0.01
    )


def test_scales_of_norms():
    scale, variance = torch.tensor([3.0, 0.5, -1.0, 0.001]), torch.tensor([4.0, 4.0, 1.0, 1.0])
    torch.testing.assert_close(clip_norm_scales(scale, variance), torch.tensor([2.0, 0.5, 0.01, 0.01]))


def test_only_snapshots_of_numbers_are_read(tmp_path):
    np.savez(tmp_path / "good.npz", **{"dc0/W": np.zeros((2, 3, 1), np.float32)})
    assert read_snapshot(str(tmp_path / "good.npz"))["dc0/W"].shape == (2, 3, 1)
    np.savez(tmp_path / "bad.npz", a=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    for name, what in (("bad.npz", "cannot be read"), ("text.npz", "cannot be read"), ("none.npz", "no such")):
        with pytest.raises(UserError, match=what):
            read_snapshot(str(tmp_path / name))
