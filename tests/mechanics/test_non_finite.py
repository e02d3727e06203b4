"""A loss or gradient that is not finite stops the training, or costs one step, and the clips are named."""

import re

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from tests.mechanics.poison import PoisonedAutoencoder, Recorder
from tests.mechanics.processes import apart
from tests.mechanics.runs import (
    RECIPE,
    assert_same,
    checkpoint,
    checkpoint_path,
    differences,
    fit,
    rows,
    with_callbacks,
)
from tests.mechanics.toy import ToyClips, ToyNetwork
from vgen.callbacks import EMA, AtomicCheckpointIO, Checkpoint, NonFinite, StepSeed
from vgen.errors import UserError

ONLY = ("--only", "autoencoder")
SKIP = "{class_path: vgen.callbacks.NonFinite, init_args: {action: skip}}"


def recipe(tmp_path, poison="clip6", kind="input", skip=False):
    """The toy recipe with a first stage that cannot stand a clip."""
    text = RECIPE.read_text().replace(
        "tests.mechanics.toy.ToyAutoencoder", "tests.mechanics.poison.PoisonedAutoencoder"
    )
    text = text.replace(
        "        network: {class_path",
        f"        poison: {poison!r}\n        kind: {kind}\n        network: {{class_path",
        1,
    )
    text = text.replace("      callbacks:\n", f"      callbacks:\n        - {SKIP}\n") if skip else text
    path = tmp_path / f"poison_{poison}_{kind}_{skip}.yaml"
    path.write_text(text)
    return path


def train(folder, poison="clip6", kind="input", action="skip", steps=7, callbacks=(), **options):
    """Trains in Python; returns what was recorded."""
    recorder = Recorder()
    model = PoisonedAutoencoder(ToyClips().clip_spec, ToyNetwork(dim=4), poison, kind)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, logger=False, default_root_dir=folder, enable_progress_bar=False,
        callbacks=[StepSeed(0), EMA(decay=0.9), NonFinite(action), recorder, Checkpoint(every_n_steps=2), *callbacks],
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        **{"plugins": [AtomicCheckpointIO()], **options},
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.fit(model, datamodule=ToyClips())
    return recorder.seen


@pytest.fixture(scope="module")
def poisoned_step(tmp_path_factory):
    """In which step of the first epoch the poisoned clip comes."""
    seen = train(tmp_path_factory.mktemp("healthy"), poison="")
    return next(entry["step"] for entry in seen if "clip6" in entry["clips"])


@pytest.mark.parametrize("kind", ["input", "loss", "gradient"])
def test_stop_names_step_stage_and_clips(tmp_path, capsys, poisoned_step, kind):
    run = fit(tmp_path / "toy", *ONLY, recipe=recipe(tmp_path, kind=kind), code=2)
    message = capsys.readouterr().err
    what, where, hint = message[message.index("error: ") :].splitlines()
    subject = "gradient of network" if kind == "gradient" else "loss"
    assert subject in what and f"step {poisoned_step} of stage 'autoencoder'" in what
    assert re.search(r"\bclip6\b", where) and where.count("clip") == 2 and "skip" in hint
    assert "Traceback" not in message and not (run / "autoencoder" / "done.json").exists()


def test_stop_is_late_but_names_the_right_clips_and_saves_nothing_of_it(tmp_path, capsys, poisoned_step):
    """Looked at once in five steps: the checkpoint of every second one must not hold what came of it."""
    run = fit(tmp_path / "toy", *ONLY, "--all_stages.trainer.log_every_n_steps=5", recipe=recipe(tmp_path), code=2)
    message = capsys.readouterr().err
    assert f"in step {poisoned_step} " in message and "clip6" in message
    saved = checkpoint_path(run, "autoencoder")
    if saved.is_file():
        content = checkpoint(run, "autoencoder")
        assert content["global_step"] < poisoned_step
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    assert not list((run / "autoencoder").rglob("*.tmp*"))


def test_the_previous_checkpoint_stays_and_skipping_goes_on_from_it(tmp_path, capsys):
    """The poisoned clip comes in the first or second epoch; the same command with the option goes on."""
    run = fit(tmp_path / "toy", *ONLY, "--all_stages.trainer.max_steps=5", recipe=recipe(tmp_path, poison=""))
    before = checkpoint_path(run, "autoencoder").read_bytes()
    fit(run, *ONLY, "--resume", recipe=recipe(tmp_path, poison="all"), code=2)
    assert "step 6 of stage" in capsys.readouterr().err
    assert checkpoint_path(run, "autoencoder").read_bytes() == before
    fit(run, *ONLY, "--resume", recipe=recipe(tmp_path, poison="all", skip=True))
    assert checkpoint(run, "autoencoder")["global_step"] == 7


def test_healthy_runs_are_the_same_with_and_without(finished, tmp_path):
    """Watching changes no bit, under either option."""
    other = fit(tmp_path / "skip", *ONLY, recipe=recipe(tmp_path, poison="", skip=True))
    one, two = (checkpoint(run, "autoencoder") for run in (finished, other))
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert not differences(one[key], two[key])
    assert not differences(one["callbacks"]["EMA"], two["callbacks"]["EMA"])


@pytest.mark.parametrize("kind", ["input", "loss", "gradient"])
def test_a_skipped_step_changes_nothing(tmp_path, poisoned_step, kind):
    seen = train(tmp_path, kind=kind)
    skipped, before = seen[poisoned_step - 1], seen[poisoned_step - 2]
    assert "clip6" in skipped["clips"] and skipped["step"] == poisoned_step
    for part in ("model", "optimizer", "average"):
        assert not differences(skipped[part], before[part]), part
    assert skipped["updates"] == before["updates"] == poisoned_step - 1
    assert all(torch.isfinite(v).all() for entry in seen for v in entry["model"].values())
    assert [entry["step"] for entry in seen] == list(range(1, 8))
    assert differences(seen[poisoned_step]["model"], skipped["model"])


def test_skipped_steps_are_counted_in_the_log_and_named(tmp_path, caplog, poisoned_step):
    run = fit(tmp_path / "toy", *ONLY, recipe=recipe(tmp_path, skip=True))
    counts = {
        int(row["step"]): float(row["train/skipped_steps"]) for row in rows(run, "autoencoder") if row["train/loss"]
    }
    assert counts[poisoned_step - 1] == 0 and counts[poisoned_step] == 1
    assert checkpoint(run, "autoencoder")["callbacks"]["NonFinite"]["skipped"] == counts[7]
    said = [record.getMessage() for record in caplog.records if "is skipped" in record.getMessage()]
    assert f"step {poisoned_step} of stage 'autoencoder'" in said[0] and "clip6" in said[0]


def test_skipping_is_exact_over_a_resume(tmp_path, monkeypatch, poisoned_step):
    poisoned = recipe(tmp_path, skip=True)
    whole = fit(tmp_path / "whole", *ONLY, recipe=poisoned)
    run = tmp_path / "stopped"
    for step in (poisoned_step, 6):
        monkeypatch.setenv("TOY_TRAP", f"autoencoder:{step}:raise")
        fit(run, *ONLY, "--resume", recipe=poisoned, code=1)
        monkeypatch.delenv("TOY_TRAP")
    assert_same(whole, fit(run, *ONLY, "--resume", recipe=poisoned), ["autoencoder"])


def test_all_batches_of_a_step_are_dropped_under_accumulation(tmp_path):
    seen = train(tmp_path, steps=3, accumulate_grad_batches=2)
    bad = next(i for i, entry in enumerate(seen) if "clip6" in entry["clips"]) // 2 * 2
    before = seen[bad - 1] if bad else None
    assert seen[bad + 1]["step"] == bad // 2 + 1
    if before is not None:
        assert not differences(seen[bad + 1]["model"], before["model"])
    assert seen[bad + 1]["updates"] == bad // 2


def test_weights_that_have_gone_are_not_skipped_for_ever(tmp_path, capsys):
    fit(tmp_path / "toy", *ONLY, "--all_stages.trainer.max_steps=30", recipe=recipe(tmp_path, "all", skip=True), code=2)
    message = capsys.readouterr().err
    assert "as in the 10 steps before it" in message and "step 11 " in message


def test_weights_that_the_last_step_made_infinite_are_not_saved(tmp_path):
    """The gradients were finite, the step was too large: only the weights show it."""

    class Breaks(torch.optim.Adam):
        def step(self, closure=None):
            loss = super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("inf"))
            return loss

    model = PoisonedAutoencoder(ToyClips().clip_spec, ToyNetwork(dim=4), "", optimizer=Breaks)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=1, logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        callbacks=[NonFinite(), Checkpoint()], enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"not finite after step 1 .*network\.encoder\.0\.weight"):
        trainer.fit(model, datamodule=ToyClips())
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("precision", ["bf16-mixed", "fp16 with a scaler"])
def test_lower_precision(tmp_path, poisoned_step, precision):
    if precision == "bf16-mixed":
        options = {"precision": precision}
    else:
        # Lightning refuses fp16 by name on CPUs; the plugin with its scaler works there.
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))]}
    seen = train(tmp_path, **options)
    skipped, before = seen[poisoned_step - 1], seen[poisoned_step - 2]
    for part in ("model", "optimizer", "average"):
        assert not differences(skipped[part], before[part]), part
    assert differences(seen[-1]["model"], skipped["model"])


def test_what_a_scaler_skips_is_its_own_business(tmp_path):
    """A scale so large that every gradient overflows: the scaler lowers it, nothing is counted, the average waits."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-64)
    seen = train(tmp_path, poison="", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert seen[0]["updates"] == 0 and seen[-1]["updates"] > 0
    assert not differences(seen[0]["optimizer"], {})
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["callbacks"]["NonFinite"] == {"skipped": 0, "in_a_row": 0}


def test_one_ranks_clip_skips_the_step_on_both(tmp_path):
    """Only one of the ranks has the clip in its batch; both leave the step out, and weights stay the same on both."""
    path = with_callbacks(tmp_path / "ranks.yaml", "toy.RankRecorder", recipe=recipe(tmp_path, skip=True))
    run = tmp_path / "toy"
    codes, output = apart(run, *ONLY, recipe=path, ranks=2)
    assert codes == [0, 0], output
    found = [torch.load(run / "autoencoder" / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for part in ("weights", "average"):
        # Each rank has BatchNorm statistics of its own clips.
        own = [{k: v for k, v in r[part].items() if "running" not in k} for r in found]
        assert not differences(*own)
        assert all(torch.isfinite(v).all() for r in found for v in r[part].values())
    skipped = checkpoint(run, "autoencoder")["callbacks"]["NonFinite"]["skipped"]
    met = [sum(clip.endswith(":clip6") for clip in r["clips"]) for r in found]
    assert skipped == sum(met) > 0
    assert "is skipped" in output and "clip6" in output
    codes, output = apart(tmp_path / "stop", *ONLY, recipe=recipe(tmp_path), ranks=2)
    assert 0 not in codes
    assert "not a finite number in step" in output and "clip6" in output and "Traceback" not in output
