"""Random numbers are a function of seed, step and rank, and of nothing that came before."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from vgen.callbacks import StepSeed
from vgen.callbacks.step_seed import seed_of


class Dice(Callback):
    """Draws from every generator in every batch, after StepSeed."""

    def __init__(self):
        self.train, self.val = [], []

    @staticmethod
    def draw():
        return float(torch.rand(())), float(np.random.rand()), random.random()

    def on_train_batch_start(self, *args):
        self.train.append(self.draw())

    def on_validation_batch_start(self, *args):
        self.val.append(self.draw())


def rolled(trainer, model, data, seed=0, **options):
    dice = Dice()
    trainer(StepSeed(seed), dice, **options).fit(model, datamodule=data)
    return dice


def test_seeds_do_not_collide():
    seeds = {seed_of(s, stream, i, r) for s in range(4) for stream in range(4) for i in range(200) for r in range(4)}
    assert len(seeds) == 4 * 4 * 200 * 4 and all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize("first, second", [((0, 0, 0, 0), (0, 0, 1, 0)), ((0, 0, 0, 0), (1, 0, 0, 0))])
def test_neighbours_are_far_apart(first, second):
    bits = bin(seed_of(*first) ^ seed_of(*second)).count("1")
    assert 15 < bits < 48


def test_every_generator_and_every_step(trainer, model, data):
    dice = rolled(trainer, model, data, max_steps=4)
    for stream in zip(*dice.train, strict=True):
        assert len(set(stream)) == 4


def test_what_was_drawn_before_does_not_matter(trainer, model, data):
    first = rolled(trainer, model, data)
    torch.rand(100), np.random.rand(100), random.random()
    assert rolled(trainer, model, data).train == first.train
    assert rolled(trainer, model, data, seed=1).train != first.train


def test_batches_of_one_step_differ(trainer, model, data):
    dice = rolled(trainer, model, data, max_steps=2, accumulate_grad_batches=2)
    assert len(set(dice.train)) == 4


def test_every_validation_has_the_same_noise(trainer, model, data):
    dice = rolled(trainer, model, data, max_steps=4, val_check_interval=2)
    assert dice.val[:2] == dice.val[2:] and dice.val[0] != dice.val[1]
    assert not set(dice.val) & set(dice.train)
