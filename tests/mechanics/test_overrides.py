"""Overlays, overrides on the command line, and what is printed or saved, run again."""

import pytest
import torch
import yaml

from tests.mechanics.runs import RECIPE, assert_same, checkpoint, command, differences, fit, rows
from vgen.cli.main import main
from vgen.configurable import describe

SHORT = "--all_stages.trainer.max_steps=2"


def overlay(tmp_path, text, name="overlay.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return ("--config", path)


def configuration(run):
    return yaml.safe_load((run / "config.yaml").read_text())["stages"]


def callbacks(config, stage):
    return [entry["class_path"].split(".")[-1] for entry in config[stage]["trainer"]["callbacks"]]


def test_all_stages_on_the_command_line(tmp_path):
    run = fit(tmp_path / "toy", SHORT)
    assert [checkpoint(run, stage)["global_step"] for stage in ("autoencoder", "diffusion")] == [2, 2]


def test_all_stages_with_the_value_behind_a_space(tmp_path):
    run = fit(tmp_path / "toy", "--all_stages.trainer.max_steps", "1", "--only", "autoencoder")
    assert checkpoint(run, "autoencoder")["global_step"] == 1


def test_bf16_of_all_stages_by_an_overlay(finished, tmp_path):
    run = fit(tmp_path / "toy", *overlay(tmp_path, "all_stages: {trainer: {precision: bf16-mixed}}"))
    for stage in ("autoencoder", "diffusion"):
        weights = checkpoint(run, stage)["state_dict"]
        assert all(w.dtype == torch.float32 for w in weights.values() if w.is_floating_point())
        exact = checkpoint(finished, stage)["state_dict"]
        assert differences(weights, exact)
        assert all(torch.allclose(weights[k].float(), exact[k].float(), atol=0.05) for k in weights)
        assert configuration(run)[stage]["trainer"]["precision"] == "bf16-mixed"


def test_bf16_resumes_exactly(tmp_path, monkeypatch):
    bf16 = ("--all_stages.trainer.precision=bf16-mixed", "--only", "autoencoder")
    whole = fit(tmp_path / "whole", *bf16)
    monkeypatch.setenv("TOY_TRAP", "autoencoder:5:raise")
    run = fit(tmp_path / "stopped", *bf16, code=1)
    monkeypatch.delenv("TOY_TRAP")
    assert_same(whole, fit(run, *bf16, "--resume"), ["autoencoder"])


def test_callbacks_are_appended(tmp_path):
    text = "all_stages: {trainer: {callbacks+: [{class_path: LearningRateMonitor}]}}"
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text))
    config = configuration(run)
    assert callbacks(config, "autoencoder") == ["Checkpoint", "EMA", "Trap", "LearningRateMonitor"]
    assert callbacks(config, "diffusion") == ["Checkpoint", "EMA", "SampleLogger", "Trap", "LearningRateMonitor"]
    assert [float(row["lr-AdamW"]) for row in rows(run) if row["lr-AdamW"]] == [0.01]  # once per epoch
    assert "EMA" in checkpoint(run)["callbacks"]


def test_appended_in_all_stages_and_in_one(tmp_path):
    text = """
all_stages: {trainer: {callbacks+: [{class_path: LearningRateMonitor}]}}
stages: {diffusion: {trainer: {callbacks+: [{class_path: tests.mechanics.toy.Witness}]}}}
"""
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text))
    assert callbacks(configuration(run), "autoencoder")[-1] == "LearningRateMonitor"
    assert callbacks(configuration(run), "diffusion")[-2:] == ["LearningRateMonitor", "Witness"]


def test_what_all_stages_append_joins_a_list_of_the_same_file(tmp_path):
    text = """
all_stages: {trainer: {callbacks+: [{class_path: LearningRateMonitor}]}}
stages: {diffusion: {trainer: {callbacks: [{class_path: tests.mechanics.toy.Witness}]}}}
"""
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text))
    assert callbacks(configuration(run), "diffusion") == ["Witness", "LearningRateMonitor"]
    assert callbacks(configuration(run), "autoencoder") == ["Checkpoint", "EMA", "Trap", "LearningRateMonitor"]


def test_two_overlays_both_append(tmp_path):
    append = "all_stages: {trainer: {callbacks+: [{class_path: %s}]}}"
    one = overlay(tmp_path, append % "LearningRateMonitor", "one.yaml")
    two = overlay(tmp_path, append % "tests.mechanics.toy.Witness", "two.yaml")
    run = fit(tmp_path / "toy", SHORT, "--only", "autoencoder", *one, *two)
    assert callbacks(configuration(run), "autoencoder")[-2:] == ["LearningRateMonitor", "Witness"]


def test_a_list_is_replaced(tmp_path):
    text = "stages: {diffusion: {trainer: {callbacks: [{class_path: vgen.callbacks.EMA, init_args: {decay: 0.5}}]}}}"
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text))
    assert callbacks(configuration(run), "diffusion") == ["EMA"]
    assert len(callbacks(configuration(run), "autoencoder")) == 3


def test_the_stage_beats_all_stages_and_the_later_file_the_earlier(tmp_path):
    text = "all_stages: {trainer: {max_steps: 1}}\nstages: {diffusion: {trainer: {max_steps: 3}}}"
    one = overlay(tmp_path, text, "1.yaml")
    run = fit(tmp_path / "one", *one)
    assert [checkpoint(run, stage)["global_step"] for stage in ("autoencoder", "diffusion")] == [1, 3]
    two = overlay(tmp_path, "all_stages: {trainer: {max_steps: 2}}", "2.yaml")
    run = fit(tmp_path / "two", *one, *two)
    assert [checkpoint(run, stage)["global_step"] for stage in ("autoencoder", "diffusion")] == [2, 2]


def test_nested_arguments_merge(tmp_path):
    text = "stages: {diffusion: {model: {init_args: {denoiser: {init_args: {dropout: 0.0}}}}}}"
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text))
    denoiser = checkpoint(run)["vgen"]["init_args"]["denoiser"]["init_args"]
    assert (denoiser["dim"], denoiser["dropout"]) == (5, 0.0)


@pytest.mark.parametrize("hops", ["model.denoiser.dim", "model.init_args.denoiser.init_args.dim"])
def test_dotted_overrides_with_and_without_hops(tmp_path, hops):
    run = fit(tmp_path / "toy", SHORT, f"--stages.diffusion.{hops}=3")
    assert checkpoint(run)["vgen"]["init_args"]["denoiser"]["init_args"]["dim"] == 3
    assert checkpoint(run)["state_dict"]["denoiser.encoder.0.weight"].shape[0] == 3


def test_dotted_overrides_of_a_group_and_a_scientific_number(tmp_path):
    relu = "{class_path: tests.mechanics.toy.Activation, init_args: {kind: relu}}"
    changes = ("model.optimizer.lr=2e-4", f"model.network.activation={relu}")
    run = fit(tmp_path / "toy", SHORT, "--only", "autoencoder", *(f"--stages.autoencoder.{c}" for c in changes))
    arguments = checkpoint(run, "autoencoder")["vgen"]["init_args"]
    assert arguments["optimizer"]["init_args"]["lr"] == 2e-4
    assert arguments["network"]["init_args"]["activation"]["init_args"] == {"kind": "relu", "slope": 0.1}
    assert checkpoint(run, "autoencoder")["optimizer_states"][0]["param_groups"][0]["lr"] == 2e-4


def test_a_changed_class_keeps_no_argument_that_it_does_not_have(tmp_path, capsys):
    text = "stages: {diffusion: {model: {init_args: {lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, "
    run = fit(tmp_path / "toy", SHORT, *overlay(tmp_path, text + "init_args: {step_size: 1, gamma: 0.1}}}}}}"))
    schedule = checkpoint(run)["vgen"]["init_args"]["lr_scheduler"]
    assert schedule["class_path"].endswith("StepLR") and schedule["init_args"]["step_size"] == 1


def test_short_class_names_of_what_is_imported(tmp_path):
    import tests.mechanics.toy  # noqa: F401

    text = RECIPE.read_text().replace("vgen.callbacks.EMA", "EMA")
    path = tmp_path / "short.yaml"
    path.write_text(text.replace("tests.mechanics.toy.", ""))
    run = fit(tmp_path / "toy", SHORT, recipe=path)
    # What is written down are the full paths: a short name depends on what else is imported.
    assert checkpoint(run)["vgen"]["class_path"] == "tests.mechanics.toy.ToyDiffusion"
    assert checkpoint(run)["vgen"]["init_args"]["denoiser"]["class_path"] == "tests.mechanics.toy.ToyNetwork"
    assert "EMA" in checkpoint(run)["callbacks"]


def test_the_run_directory_is_named_after_the_recipe_where_it_says_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipe.yaml").write_text(RECIPE.read_text().replace("run_dir: runs/toy\n", ""))
    assert main(["fit", "--config", "my_recipe.yaml", SHORT, "--only", "autoencoder"]) == 0
    assert (tmp_path / "runs" / "my_recipe" / "autoencoder" / "done.json").is_file()


def test_what_is_printed_is_a_recipe(finished, tmp_path, capsys):
    assert main(command(tmp_path / "unused", "--print_config")) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "unused").exists()
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    assert_same(finished, fit(tmp_path / "toy", recipe=path))
    assert main(command(tmp_path / "unused", "--print_config", recipe=path)) == 0
    assert capsys.readouterr().out.endswith(text)


def test_what_is_printed_holds_overlays_and_overrides(tmp_path, capsys):
    changes = (SHORT, *overlay(tmp_path, "all_stages: {trainer: {precision: bf16-mixed}}"))
    assert main(command(tmp_path / "unused", *changes, "--print_config")) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert_same(fit(tmp_path / "one", *changes), fit(tmp_path / "two", recipe=path))


def test_the_saved_configuration_repeats_the_run(finished, tmp_path):
    assert_same(finished, fit(tmp_path / "toy", recipe=finished / "config.yaml"))


def test_the_saved_configuration_holds_what_was_overridden(tmp_path):
    run = fit(tmp_path / "one", SHORT, "--stages.diffusion.model.denoiser.dim=3")
    assert_same(run, fit(tmp_path / "two", recipe=run / "config.yaml"))


def test_a_stages_own_configuration_repeats_the_stage(finished, tmp_path):
    first = fit(tmp_path / "first", recipe=finished / "autoencoder" / "config.yaml")
    assert_same(finished, first, ["autoencoder"])
    second = fit(tmp_path / "second", recipe=finished / "diffusion" / "config.yaml")
    one, other = checkpoint(finished), checkpoint(second)
    # The codec is a file outside of the new run: its path differs, and the training's own id.
    assert list(differences(one, other)) == ["/vgen/init_args/codec/path", "/vgen/run"]


def test_the_file_says_what_the_recipe_says(finished):
    """A checkpoint's description is the recipe's model block with the defaults filled in."""
    recipe = yaml.safe_load((finished / "config.yaml").read_text())["stages"]["autoencoder"]["model"]
    header = checkpoint(finished, "autoencoder")["vgen"]
    assert header["class_path"] == recipe["class_path"]
    assert header["init_args"] == describe(recipe["init_args"])
