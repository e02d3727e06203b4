import pytest
import torch

from vgen.metrics.frames import psnr, ssim
from vgen.metrics.prediction import plot_curves, predict_and_score, scores


class Guesser:
    """Goes on with the real clip but for noise whose strength depends on the draw."""

    def __init__(self, videos, strengths):
        self.videos, self.strengths, self.seen = videos, strengths, []

    def sample(self, conditions, n, frames=None, seeds=None, options=None):
        past = conditions["video"]
        made = []
        for given, seed in zip(past, seeds, strict=True):
            number = next(i for i, v in enumerate(self.videos) if torch.equal(v[:, : given.shape[1]], given))
            clip, draw = self.videos[number], self.seen.count(number)
            self.seen.append(number)
            noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed % 2**31))
            made.append((clip[:, :frames] + self.strengths[draw] * noise[:, :frames]).clamp(-1, 1))
        return torch.stack(made)


@pytest.fixture
def found():
    videos = torch.rand(3, 1, 6, 16, 16) * 1.6 - 0.8
    model = Guesser(videos, [0.3, 0.02, 0.1])
    batches = [{"video": videos[:2], "subject": ["a", "b"]}, {"video": videos[2:], "subject": ["b"]}]
    return videos, predict_and_score(model, batches, past=2, draws=3)


def test_the_best_draw_counts(found):
    videos, predictions = found
    for name in ("ssim", "psnr"):
        drawn = predictions.drawn[name]
        assert drawn.shape == (3, 3, 4)
        assert (drawn.mean(2).argmax(1) == 1).all(), "the draw with the least noise"
        assert torch.equal(predictions.best(name), drawn[:, 1])
    assert predictions.subjects == ["a", "b", "b"]
    real = (videos[:, :, 2:] + 1) / 2
    still = ((videos[:, :, 1:2] + 1) / 2).expand_as(real)
    torch.testing.assert_close(predictions.copied["psnr"], psnr(still, real, "channel"))
    torch.testing.assert_close(predictions.copied["ssim"], ssim(still, real, "uniform", 2.0))


def test_figures_and_curves(found, tmp_path):
    _, predictions = found
    figures, curves = predictions.summary(), predictions.curves()
    best, mean, copied = (figures[f"ssim_{name}"]["value"] for name in ("best_of_3", "of_a_draw", "last_frame_copied"))
    assert best > mean > copied and figures["psnr_best_of_3"]["unit"] == "dB"
    assert best == pytest.approx(sum(curves["ssim"]["best"]) / 4)
    for low, value, high in zip(curves["psnr"]["low"], curves["psnr"]["best"], curves["psnr"]["high"], strict=True):
        assert low <= value <= high
    plot_curves(tmp_path / "curves.png", curves, 2, "best of 3")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_conventions_and_equal_frames():
    a = torch.rand(2, 1, 3, 16, 16)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    assert torch.equal(scores("finn")["ssim"](a, b), ssim(a, b))
    assert (scores("svg")["ssim"](a, b) > ssim(a, b, "uniform")).all(), "a range of 2 raises it"
    assert (scores("svg")["psnr"](a, a) == 100).all(), "equal frames have no bound"
