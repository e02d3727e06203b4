"""Values by hand, per-clip bookkeeping, intervals and two ranks."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from vgen.metrics import (
    ClassControl,
    MotionEnergy,
    ReconstructionGain,
    bootstrap_interval,
    box_mask,
    landmark_boxes,
    motion_energy,
)
from vgen.metrics.reconstruction import ROUNDING_ERROR


def psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / float((a.double() - b.double()).square().mean()))


def test_reconstruction_gain_by_hand() -> None:
    target, made = torch.rand(2, 3, 4, 8, 8) * 2 - 1, torch.rand(2, 3, 4, 8, 8) * 2 - 1
    metric = ReconstructionGain()
    metric.update(made[:1], target[:1])
    metric.update(made[1:], target[1:])
    value = metric.compute()
    expected = [
        np.mean([psnr(made[b, :, t], target[b, :, t]) - psnr(target[b, :, 0], target[b, :, t]) for t in (1, 2, 3)])
        for b in range(2)
    ]
    assert value.dtype == torch.float64 and value.item() == pytest.approx(np.mean(expected), abs=1e-9)
    assert metric.clip_values is not None and metric.clip_values.tolist() == pytest.approx(expected, abs=1e-9)


def test_reconstruction_gain_of_doing_nothing_and_of_a_perfect_copy() -> None:
    target = torch.rand(1, 3, 4, 8, 8) * 2 - 1
    nothing, perfect, still = ReconstructionGain(), ReconstructionGain(), ReconstructionGain()
    nothing.update(target[:, :, :1].expand_as(target), target)
    assert nothing.compute() == 0
    perfect.update(target, target)
    cap = 10 * math.log10(4 / ROUNDING_ERROR)
    assert perfect.compute().isfinite() and perfect.compute() < cap
    picture = target[:, :, :1].expand_as(target)
    still.update(picture, picture)
    assert still.compute() == 0


def test_reconstruction_gain_in_boxes() -> None:
    target, made = torch.rand(2, 3, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 3, 8, 8) * 2 - 1
    boxes = torch.tensor([[0, 0, 2, 3], [4, 5, 8, 7]]).expand(2, 3, 2, 4)
    metric = ReconstructionGain()
    metric.update(made, target, boxes, ["a", "b"])

    def inside(video: Tensor) -> Tensor:
        return torch.cat([video[:, 0:3, 0:2].flatten(1), video[:, 5:7, 4:8].flatten(1)], 1)

    expected = np.mean(
        [
            psnr(inside(made[b, :, t]), inside(target[b, :, t]))
            - psnr(inside(target[b, :, 0]), inside(target[b, :, t]))
            for b in range(2)
            for t in (1, 2)
        ]
    )
    assert metric.compute().item() == pytest.approx(expected, abs=1e-9)


def test_clips_without_a_pixel_in_their_boxes_are_left_out() -> None:
    target, made = torch.rand(2, 3, 3, 8, 8), torch.rand(2, 3, 3, 8, 8)
    boxes = torch.tensor([[0.0, 0, 0, 0], [1, 1, 4, 4]])[:, None].expand(2, 3, 4)
    both, one = ReconstructionGain(), ReconstructionGain()
    both.update(made, target, boxes, ["a", "b"])
    one.update(made[1:], target[1:], boxes[1:], ["b"])
    assert torch.equal(both.compute(), one.compute())
    assert both.clip_values is not None and len(both.clip_values) == 1


def test_box_mask_counts_pixel_middles() -> None:
    mask = box_mask(torch.tensor([[[1.4, 0.0, 3.6, 1.0]]]), 3, 5)
    assert mask.int().tolist() == [[[[0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]]]


def test_landmark_boxes() -> None:
    clip = [{"mouth": [t, 0, t + 2, 4], "left_eye": [0, 0, 1, 1]} for t in range(5)]
    landmarks = {"size": 64, "clips": {"001/anger/take000": clip}}
    index = torch.tensor([[0, 2, 4], [1, 1, 1], [0, 1, 9]])
    paths = ["/data/mug/001/anger/take000", "002/anger/take000", "001/anger/take000"]
    boxes, rows = landmark_boxes(landmarks, paths, index, 3, ["mouth"], (32, 32))
    assert rows == [0, 2] and boxes.shape == (2, 3, 1, 4)
    assert boxes[0, :, 0].tolist() == [[0, 0, 1, 2], [1, 0, 2, 2], [2, 0, 3, 2]]
    assert boxes[1, 2, 0].tolist() == [2, 0, 3, 2]  # the last frame stands for frames beyond
    whole, rows = landmark_boxes(landmarks["clips"], paths[:1], None, 2, ["mouth", "left_eye"], (64, 64))
    assert whole.shape == (1, 2, 2, 4) and whole[0, 1, 0].tolist() == [1, 0, 3, 4]
    assert landmark_boxes(landmarks, paths, index, 3, ["nose"], (32, 32))[1] == []


def test_motion_energy() -> None:
    ramp = torch.arange(4.0)[None, None, :, None, None].expand(2, 3, 4, 8, 8)
    assert motion_energy(0.1 * ramp).tolist() == pytest.approx([0.1, 0.1])
    metric = MotionEnergy()
    metric.update(0.1 * ramp, 0.2 * ramp, ["a", "b"])
    metric.update(0.3 * ramp, 0.2 * ramp, ["a", "b"])
    assert metric.compute().item() == pytest.approx(1.0)
    low, high = metric.interval()
    assert low == pytest.approx(1.0) and high == pytest.approx(1.0)  # both subjects move alike
    with pytest.raises(ValueError, match="pairs"):
        metric.update(ramp, ramp[:1])


def test_class_control() -> None:
    metric = ClassControl()
    metric.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]), ["a", "a", "b"])
    metric.update(torch.tensor([2]), torch.tensor([2]), ["b"])
    assert metric.compute() == 0.75
    assert metric.clip_values is not None and metric.clip_values.tolist() == [1, 1, 0, 1]
    assert metric.clip_groups is not None and len(metric.clip_groups.unique()) == 2
    assert metric.interval() == metric.interval()


def test_empty_metrics() -> None:
    assert ClassControl().compute().isnan() and MotionEnergy().compute().isnan()
    with pytest.raises(ValueError, match="no clips"):
        ClassControl().interval()


def test_half_precision_models_do_not_round_sums() -> None:
    metric = ClassControl()
    metric.half()
    metric.set_dtype(torch.float16)
    metric.update(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 0, 1]))
    assert metric.compute().dtype == torch.float64 and metric.compute() == 2 / 3


def test_bootstrap_covers_the_mean() -> None:
    chance = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(chance.normal(1.0, 2.0, 60), n=400, seed=trial)
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_over_groups_is_wider_where_groups_agree() -> None:
    chance = np.random.default_rng(0)
    subjects = np.repeat(np.arange(8), 12)
    values = chance.normal(size=8)[subjects] + 0.1 * chance.normal(size=96)
    alone, grouped = bootstrap_interval(values), bootstrap_interval(values, [f"s{s}" for s in subjects])
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    assert bootstrap_interval(values, list(range(96))) == alone
    assert bootstrap_interval(values, torch.from_numpy(subjects)) == grouped
    assert bootstrap_interval([2.0, 4.0], denominator=[1.0, 2.0]) == (2.0, 2.0)
    with pytest.raises(ValueError, match="match"):
        bootstrap_interval([1.0, 2.0], ["a"])


def _rank(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    hits = torch.tensor([0, 1, 1, 1, 0])
    metric, energy = ClassControl(), MotionEnergy()
    part = slice(0, 2) if rank == 0 else slice(2, 5)  # unequal shares
    subjects = ["a", "b", "c", "a", "b"][part]
    metric.update(hits[part], torch.ones(5, dtype=torch.int64)[part], subjects)
    ramp = torch.arange(3.0)[None, None, :, None, None].expand(len(subjects), 3, 3, 4, 4)
    energy.update(ramp * (1 + rank), ramp, subjects)
    lonely = ClassControl()  # one rank has no clip at all
    if rank == 1:
        lonely.update(hits, torch.ones(5, dtype=torch.int64))
    torch.save(
        {
            "lonely": lonely.compute(),
            "interval": energy.interval(),
            "mean": metric.compute(),
            "values": metric.clip_values,
            "groups": metric.clip_groups,
            "e": energy.compute(),
        },
        f"{folder}/rank{rank}.pt",
    )
    torch.distributed.destroy_process_group()


def test_two_ranks(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        result = torch.load(tmp_path / f"rank{rank}.pt")
        assert result["lonely"] == 0.6 and result["interval"][0] <= result["e"] <= result["interval"][1]
        assert result["mean"] == 0.6 and result["values"].tolist() == [0, 1, 1, 1, 0]
        groups = result["groups"].tolist()
        assert groups[0] == groups[3] and groups[1] == groups[4] and len(set(groups)) == 3
        assert result["e"] == pytest.approx((2 * 1 + 3 * 2) / 5)
