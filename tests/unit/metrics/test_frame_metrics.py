"""PSNR, SSIM, LPIPS, and what is read from embeddings and flows, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from vgen.errors import UserError
from vgen.metrics import CLIPSIM, LPIPS, PSNR, SSIM, DynamicDegree, LPIPSDistance, MotionSmoothness, TemporalFlickering
from vgen.metrics.consistency import (
    clip_similarity,
    frame_consistency,
    relative_clip_similarity,
    subject_consistency,
)
from vgen.metrics.frames import psnr, ssim
from vgen.metrics.vbench import dynamic_degree, frames_at, middle_frames, normalised, temporal_flickering


def test_psnr_conventions():
    a = torch.zeros(1, 2, 2, 4, 4)
    b = a.clone()
    b[:, 0, 0] = 0.1
    b[:, 1, 0] = 0.3
    per_frame = psnr(a, b)
    assert per_frame[0].tolist() == pytest.approx([-10 * math.log10((0.01 + 0.09) / 2), 100.0])
    assert psnr(a, b, "channel")[0].tolist() == pytest.approx([-5 * math.log10(0.01) - 5 * math.log10(0.09), math.inf])
    assert psnr(a, b, "clip").tolist() == pytest.approx([-10 * math.log10(0.1 / 4)])
    metric = PSNR("clip")
    metric.update(a, b)
    assert float(metric.compute()) == pytest.approx(-10 * math.log10(0.1 / 4))


@pytest.mark.parametrize("convention, window", [("gaussian", 11), ("uniform", 7)])
def test_ssim_of_one_window_is_the_formula(convention, window):
    x, y = torch.rand(2, 1, 1, 1, window, window).double()
    if convention == "uniform":
        weights = torch.full((window, window), 1 / 49, dtype=torch.float64)
        sample = 49 / 48
    else:
        line = torch.exp(-((torch.arange(11) - 5.0).double() ** 2) / 4.5)
        weights, sample = torch.outer(line, line) / line.sum() ** 2, 1.0
    x0, y0 = x[0, 0, 0], y[0, 0, 0]
    mx, my = (weights * x0).sum(), (weights * y0).sum()
    vx, vy = sample * (weights * (x0 - mx) ** 2).sum(), sample * (weights * (y0 - my) ** 2).sum()
    both = sample * (weights * (x0 - mx) * (y0 - my)).sum()
    c1, c2 = 1e-4, 9e-4
    expected = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y, convention).item() == pytest.approx(float(expected), rel=1e-10)
    with pytest.raises(ValueError, match="at least"):
        ssim(x[..., 1:], y[..., 1:], convention)


def test_ssim_of_equal_clips_and_range():
    x, y = torch.rand(2, 2, 3, 2, 16, 16)
    assert torch.allclose(ssim(x, x), torch.ones(2, 2).double())
    assert (ssim(x, y, "uniform", 2.0) > ssim(x, y, "uniform", 1.0)).all()
    metric = SSIM()
    metric.update(x, y)
    assert float(metric.compute()) == pytest.approx(float(ssim(x, y).mean()))


def test_lpips_is_the_package_and_its_conventions_differ():
    distance = LPIPSDistance("alex", random_init=True)
    a, b = torch.rand(2, 2, 3, 2, 64, 64)
    plain, spatial = distance(a, b), distance(a, b, "spatial")
    assert plain.shape == (2, 2) and (plain > 0).all() and float(distance(a, a).abs().max()) == 0
    assert not torch.allclose(plain, spatial, rtol=1e-4) and torch.allclose(plain, spatial, rtol=0.2)
    layers = distance.per_layer(a[:, :, 0], b[:, :, 0])
    assert torch.allclose(layers.sum(1).double(), plain[:, 0], rtol=1e-5)
    grey = a[:, :1], b[:, :1]
    assert torch.allclose(distance(*grey), distance(*(video.expand(-1, 3, -1, -1, -1) for video in grey)))
    metric = LPIPS(distance)
    metric.update(a, b)
    assert float(metric.compute()) == pytest.approx(float(plain.mean()))


def test_lpips_without_its_backbone(monkeypatch, tmp_path):
    monkeypatch.setenv("VGEN_DETECTORS", str(tmp_path))
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth") as raised:
        LPIPSDistance("alex")
    assert "download.pytorch.org" in raised.value.hint and str(tmp_path) in raised.value.where
    torch.save({}, tmp_path / "alexnet-owt-7be5be79.pth")
    with pytest.raises(UserError, match="damaged"):
        LPIPSDistance("alex")


def test_consistency_by_hand():
    frames = torch.tensor([[[1.0, 0], [0, 2.0], [-3.0, 0]]])
    assert frame_consistency(frames).tolist() == [0.0]
    assert frame_consistency(frames, "all").tolist() == pytest.approx([-1 / 3])
    assert subject_consistency(frames).tolist() == [0.0]  # the cosine of -1 counts as 0
    near = torch.tensor([[[1.0, 0], [1.0, 1.0], [0, 1.0]]])
    root = math.sqrt(0.5)
    assert subject_consistency(near).tolist() == pytest.approx([((root + root) / 2 + (root + 0) / 2) / 2])
    text = torch.tensor([[1.0, 1.0]])
    assert clip_similarity(near, text).tolist() == pytest.approx([(root + 1 + root) / 3])
    metric = CLIPSIM()
    metric.update(near, text)
    metric.update(frames, text)
    expected = ((root + 1 + root) / 3 + (root + root - root) / 3) / 2
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
    assert float(relative_clip_similarity(torch.tensor([0.2, 0.4]), torch.tensor([0.6]))) == pytest.approx(0.5)


def test_flickering_and_vbench_scale():
    clip = torch.zeros(1, 3, 3, 4, 4)
    clip[:, :, 1] = 51
    assert temporal_flickering(clip).tolist() == pytest.approx([1 - 51 / 255])
    metric = TemporalFlickering()
    metric.update(clip)
    metric.update(torch.zeros_like(clip))
    assert float(metric.compute()) == pytest.approx(0.9)
    assert normalised("temporal_flickering", 1.0) == 1 and normalised("motion_smoothness", 0.706) == 0


def test_dynamic_degree_needs_a_quarter_of_the_pairs_to_move_far():
    least = 6 * 64 / 256
    flow = torch.zeros(2, 2, 15, 64, 80)
    flow[0, 0, :4, :20, :13] = least + 0.1  # 260 of 5120 pixels, just over 5 %
    flow[1, 0, :3, :20, :13] = least + 0.1
    assert dynamic_degree(flow).tolist() == [1, 0]
    small = flow.clone()
    small[0] *= least / (least + 0.2)
    assert dynamic_degree(small).tolist() == [0, 0]
    metric = DynamicDegree()
    metric.update(flow)
    assert float(metric.compute()) == 0.5
    assert frames_at(24, 10) == [0, 3, 6, 9] and frames_at(8, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="8 frames"):
        dynamic_degree(flow, 24)


def test_middle_frames_follow_half_the_flow():
    wave = torch.sin(torch.arange(32.0) / 3)
    clip = torch.stack([wave.roll(2 * t) for t in range(5)])[None, None, :, None].expand(1, 3, 5, 16, 32) * 100 + 128
    forward = torch.zeros(1, 2, 2, 16, 32)
    forward[:, 0] = 4  # two frames on, everything is four pixels to the right
    inner = slice(10, 22)
    estimate = middle_frames(clip, forward, -forward)
    assert torch.allclose(estimate[..., inner], clip[:, :, 1::2][..., inner], atol=1e-3)
    smooth, jerky = MotionSmoothness(), MotionSmoothness()
    smooth.update(clip[..., inner], forward[..., inner] * 0, forward[..., inner] * 0)
    torn = clip.clone()
    torn[:, :, 1::2] = F.pad(clip[:, :, 1::2, :, 7:], (0, 7))
    jerky.update(torn, forward, -forward)
    followed = MotionSmoothness()
    followed.update(clip, forward, -forward)
    assert float(followed.compute()) > float(smooth.compute()) > float(jerky.compute())
