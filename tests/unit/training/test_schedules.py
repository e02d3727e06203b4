"""Learning-rate schedules against their formula."""

import math
from itertools import pairwise

import pytest
import torch

from vgen.training.schedules import LinearWarmup, WarmupCosine


def rates(steps, **arguments):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rise_and_fall():
    found = rates(21, warmup_steps=5, total_steps=20)
    assert found[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert found[5] == pytest.approx(2.0) and found[20] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(found[5:]))
    expected = 1 + math.cos(math.pi * (12 - 5) / 15)
    assert found[12] == pytest.approx(expected)


def test_it_stays_at_the_end():
    assert rates(40, warmup_steps=0, total_steps=20, final=0.1)[20:] == pytest.approx([0.2] * 20)


def test_without_warmup_it_starts_at_the_rate():
    assert rates(1, warmup_steps=0, total_steps=10) == [2.0]


def test_it_resumes_exactly():
    whole = rates(10, warmup_steps=3, total_steps=10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, 3, 10)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    state = schedule.state_dict()
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    resumed = WarmupCosine(other, 3, 10)
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    assert other.param_groups[0]["lr"] == pytest.approx(whole[4])
    other.step()
    resumed.step()
    assert other.param_groups[0]["lr"] == pytest.approx(whole[5])


def test_linear_warmup():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, found = LinearWarmup(optimizer, warmup_steps=4, start=0.2), []
    for _ in range(6):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])
