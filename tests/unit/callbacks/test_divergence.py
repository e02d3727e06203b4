"""The guard of trainings that may fall apart: when it stops, and when not."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from vgen.callbacks import DivergenceGuard
from vgen.errors import UserError


def validated(guard, *values, metric="val/psnr"):
    """Validates once for each value; returns after how many the training was stopped."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer = SimpleNamespace(
        sanity_checking=False, state=state, strategy=strategy, should_stop=False, global_step=0, callback_metrics={}
    )
    for number, value in enumerate(values, 1):
        trainer.callback_metrics = {metric: torch.tensor(value)}
        guard.on_validation_end(trainer, None)
        if trainer.should_stop:
            return number
    return None


def test_it_waits_for_the_margin():
    assert validated(DivergenceGuard("val/psnr", 2.0, "max"), 25.0, 26.0, 24.1, 24.5) is None
    with pytest.warns(match="val/psnr is 23.9, 26 was the best: the training diverges"):
        assert validated(DivergenceGuard("val/psnr", 2.0, "max"), 25.0, 26.0, 23.9, 30.0) == 3
    assert validated(DivergenceGuard("val/psnr", 2.0), 25.0, 20.0, 21.9) is None
    with pytest.warns(match="diverges"):
        assert validated(DivergenceGuard("val/psnr", 2.0), 25.0, 20.0, 22.1) == 3


@pytest.mark.parametrize("values", [(float("nan"),), (20.0, float("inf")), (20.0, float("nan"))])
def test_what_is_not_finite_diverges(values):
    with pytest.warns(match="diverges"):
        assert validated(DivergenceGuard("val/psnr", 2.0, "max"), *values) == len(values)


def test_it_remembers_the_best_over_a_resume():
    first, second = DivergenceGuard("val/psnr", 2.0, "max"), DivergenceGuard("val/psnr", 2.0, "max")
    validated(first, 26.0)
    second.load_state_dict(first.state_dict())
    with pytest.warns(match="diverges"):
        assert validated(second, 23.0) == 1


def test_a_metric_that_is_not_there():
    with pytest.raises(UserError, match="no metric 'val/psrn'") as error:
        validated(DivergenceGuard("val/psrn", 1.0), 3.0)
    assert "val/psnr" in str(error.value.hint)


def test_it_ends_a_training(model, data, trainer):
    class Falling(DivergenceGuard):
        def on_validation_end(self, trainer, pl_module):
            trainer.callback_metrics["val/x"] = torch.tensor(float(trainer.global_step))
            super().on_validation_end(trainer, pl_module)

    made = trainer(Falling("val/x", 1.5), max_steps=8, val_check_interval=1)
    with pytest.warns(match="diverges"):
        made.fit(model, datamodule=data)
    assert made.global_step == 3
