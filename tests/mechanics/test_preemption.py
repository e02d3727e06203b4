"""SIGTERM and SIGUSR1: the step is saved, the exit code says so, and the same command with --resume goes on exactly."""

import os
import signal

import pytest

from tests.mechanics.processes import apart, begin
from tests.mechanics.runs import assert_same, checkpoint, checkpoint_path, fit, with_callbacks

TERM, USR1 = 128 + signal.SIGTERM, 128 + signal.SIGUSR1
BY_EPOCHS = ("--all_stages.trainer.max_steps=-1", "--all_stages.trainer.max_epochs=2", "--only", "autoencoder")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return with_callbacks(tmp_path_factory.mktemp("recipe") / "toy.yaml", "killer.Killer")


def ask(run, where, recipe, *arguments, name="TERM", **options):
    """Sends a signal at a place of the killer; returns exit codes and output."""
    return apart(run, *arguments, recipe=recipe, VGEN_KILL=where, VGEN_SIGNAL=name, **options)


# The end of the epoch, with a validation behind it, is step 5. Steps 2, 4 and 6 are saved in any case.
@pytest.mark.parametrize(
    "where, step",
    [("step:3", 3), ("step:5", 5), ("write:2", 4), ("validation:2", 5)],
    ids=["in a step", "before a validation", "while writing", "in a validation"],
)
def test_one_rank(finished, recipe, tmp_path, where, step):
    run = tmp_path / "toy"
    codes, output = ask(run, f"autoencoder:{where}:rank0", recipe)
    assert codes == [TERM] and f"[autoencoder] SIGTERM: saved step {step}" in output
    assert checkpoint(run, "autoencoder")["global_step"] == step
    assert not (run / "autoencoder" / "done.json").exists() and not (run / "diffusion").exists()
    codes, output = apart(run, "--resume", recipe=recipe)
    assert codes == [0], output
    assert_same(finished, run)
    assert_same(finished, run, ["autoencoder"], ["best"])


@pytest.mark.parametrize("validation", [(), ("--all_stages.trainer.limit_val_batches=0",)], ids=["validation", "none"])
def test_at_the_end_of_an_epoch_that_counts(recipe, tmp_path, validation):
    """Epochs limit the training: without a validation, the checkpoint is that of the epoch's end."""
    arguments = (*BY_EPOCHS, *validation)
    assert apart(tmp_path / "whole", *arguments, recipe=recipe)[0] == [0]
    run = tmp_path / "toy"
    codes, _ = ask(run, "autoencoder:step:5:rank0", recipe, *arguments)
    assert codes == [TERM] and checkpoint(run, "autoencoder")["global_step"] == 5
    assert apart(run, "--resume", *arguments, recipe=recipe)[0] == [0]
    assert_same(tmp_path / "whole", run, ["autoencoder"])


def test_the_last_step_ends_the_stage(finished, recipe, tmp_path):
    """It is trained then: the command ends before the next stage."""
    run = tmp_path / "toy"
    codes, _ = ask(run, "autoencoder:step:7:rank0", recipe)
    assert codes == [TERM]
    assert (run / "autoencoder" / "done.json").exists() and not (run / "diffusion").exists()
    assert apart(run, "--resume", recipe=recipe)[0] == [0]
    assert_same(finished, run)


def test_the_last_step_of_all_is_the_end(finished, recipe, tmp_path):
    run = tmp_path / "toy"
    assert ask(run, "diffusion:step:7:rank0", recipe)[0] == [0]
    assert_same(finished, run)


def test_sigusr1_and_a_second_signal(recipe, tmp_path):
    """Schedulers send signals more than once; the first one counts."""
    run = tmp_path / "toy"
    slow = with_callbacks(tmp_path / "slow.yaml", "toy.SlowSteps", recipe=recipe)
    processes = begin(run, recipe=slow)
    processes.await_output("toy: step 3")
    processes.signal(signal.SIGUSR1)
    processes.signal(signal.SIGTERM)
    processes.signal(signal.SIGUSR1)
    codes, output = processes.wait()
    assert codes == [USR1] and output.count("saved step") == 1
    assert checkpoint_path(run, "autoencoder").is_file()


def test_two_ranks_agree(recipe, tmp_path):
    """Only the second rank is told; both end behind the same step, and leave the same as without it."""
    whole, run = tmp_path / "whole", tmp_path / "toy"
    assert apart(whole, recipe=recipe, ranks=2)[0] == [0, 0]
    codes, output = ask(run, "autoencoder:step:3:rank1", recipe, ranks=2)
    assert codes == [TERM, TERM] and output.count("[autoencoder] SIGTERM: saved step 4") == 1
    codes, output = ask(run, "diffusion:validation:1:rank0", recipe, "--resume", ranks=2)
    assert codes == [TERM, TERM] and "[diffusion] SIGTERM: saved step 3" in output  # an epoch's end
    assert apart(run, "--resume", recipe=recipe, ranks=2)[0] == [0, 0]
    assert_same(whole, run)


def test_workers_do_not_die_first(recipe, tmp_path):
    """A scheduler signals every process of a job: the loader's workers must outlive the step."""
    slow = with_callbacks(tmp_path / "slow.yaml", "toy.SlowSteps", recipe=recipe)
    processes = begin(tmp_path / "toy", "--all_stages.data.num_workers=2", recipe=slow)
    processes.await_output("toy: step 3")
    processes.signal_all(signal.SIGTERM)
    codes, output = processes.wait()
    assert codes == [TERM] and "[autoencoder] SIGTERM: saved step" in output, output


def test_before_the_training(recipe, tmp_path):
    """Nothing is there to be saved."""
    waiting = with_callbacks(tmp_path / "waiting.yaml", "toy.SlowStart", recipe=recipe)
    processes = begin(tmp_path / "toy", recipe=waiting)
    processes.await_output("toy: before the training")
    processes.signal(signal.SIGTERM)
    codes, _ = processes.wait()
    assert codes == [TERM] and not list((tmp_path / "toy").rglob("*.ckpt"))


@pytest.mark.slow
def test_ranks_of_lightning(recipe, tmp_path):
    """The first process alone is told, and its exit code is the command's."""
    codes, output = ask(tmp_path / "toy", "autoencoder:step:3:rank0", recipe, ranks=2, launcher="lightning")
    assert codes == [TERM] and "[autoencoder] SIGTERM: saved step 4" in output, output


def test_handlers_are_put_back(tmp_path):
    for signum in (signal.SIGTERM, signal.SIGUSR1):  # a training that has failed leaves its own, which passes on
        signal.signal(signum, signal.SIG_DFL)
    fit(tmp_path / "toy", "--only", "autoencoder", "--all_stages.trainer.max_steps=1")
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, os.getpid()
