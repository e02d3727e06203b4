"""States of feature metrics, one pass for several metrics, fixed batches."""

import pytest
import torch

from tests.tiny_detector import Counting, moving_clips, tiny_detector
from vgen.errors import UserError
from vgen.metrics import FVD, KVD, ConditionalFVD, FrameConsistency, FrameFID, VideoFeatureBank
from vgen.metrics.frechet import frechet_distance, gaussian


def distances():
    return {"fvd": FVD(), "kvd": KVD(), "cfvd": ConditionalFVD()}


def test_one_pass_feeds_all_metrics_in_batches_of_one_size():
    detector = Counting()
    bank = VideoFeatureBank(detector, distances())
    real, fake = moving_clips(10), moving_clips(9, seed=1, noise=0.8)
    for start in range(0, 10, 5):
        bank.update(real[start : start + 5], True, label=torch.arange(start, start + 5) % 2)
    bank.update(fake, False, label=torch.arange(9) % 2)
    values = bank.compute()
    assert detector.batches == [4] * 7  # 5 + 5 + 9 clips, each call filled up to whole batches of four
    alone = FVD()
    alone.update(tiny_detector()(real), True)
    alone.update(tiny_detector()(fake), False)
    assert torch.equal(values["fvd"], alone.compute()) and values["fvd"].dtype == torch.float64
    assert set(values) == {"fvd", "kvd", "cfvd"} and values["fvd"] > 0
    bank.reset()
    bank.update(real, True)
    with pytest.raises(UserError, match="fake clips, got 0"):
        bank.compute()


def test_padding_changes_no_feature():
    detector, clips = tiny_detector(batch=4), moving_clips(7)
    together = detector(clips)
    assert torch.equal(together, torch.cat([detector(clips[i : i + 1]) for i in range(7)]))
    assert torch.allclose(together, tiny_detector(batch=7)(clips), rtol=1e-6)
    assert torch.equal(detector(clips[:, :1]), detector(clips[:, :1].expand(-1, 3, -1, -1, -1)))


def test_order_and_repetitions_do_not_count():
    detector, real, fake = tiny_detector(), moving_clips(12), moving_clips(12, seed=1)
    whole, mixed = FVD(), FVD()
    whole.update(detector(real), True)
    whole.update(detector(fake), False)
    order = torch.randperm(12)
    for chosen in (order[:7], order[7:], order[2:5]):  # some come twice
        mixed.update(detector(real)[chosen], True, index=chosen)
    mixed.update(detector(fake).flip(0), False, index=torch.arange(12).flip(0))
    assert torch.equal(whole.compute(), mixed.compute())


def test_frames_are_rows_for_fid_and_sequences_for_consistency():
    values = torch.randn(8, 5, 4)
    metric = FrameFID()
    metric.update(values, True)
    metric.update(values * 2, False)
    by_hand = frechet_distance(gaussian(values.flatten(0, 1) * 2), gaussian(values.flatten(0, 1)))
    assert torch.equal(metric.compute(), by_hand)
    consistency = FrameConsistency()
    consistency.update(values[:, :1].expand(-1, 5, -1), False)
    assert float(consistency.compute()) == pytest.approx(1) and consistency.clip_values.shape == (8,)


def test_features_that_are_not_finite_are_named():
    metric = FVD()
    metric.update(torch.ones(3, 2), True)
    metric.update(torch.tensor([[1.0, 2], [float("nan"), 1]]), False, index=torch.tensor([5, 3]))
    with pytest.raises(UserError, match=r"1 fake clips are not finite \(clip 3"):
        metric.compute()


def test_a_detector_stays_frozen_inside_a_model_that_trains():
    detector = tiny_detector()
    model = torch.nn.ModuleDict({"bank": VideoFeatureBank(detector, {"fvd": FVD()})}).train()
    assert not any(module.training for module in detector.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_clips_that_a_network_cannot_take():
    with pytest.raises(UserError, match="too short: counting needs at least 9"):
        Counting(least_frames=9)(moving_clips(1))
