"""Help: short, quick, and complete where it is asked for."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.mechanics.runs import RECIPE, REPOSITORY
from vgen import __version__
from vgen.cli.main import COMMANDS, TRAINING, main


def shown(capsys, *arguments, code=0):
    assert main(list(map(str, arguments))) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out


def apart(*arguments):
    """Runs `python -m vgen` in a process of its own; returns seconds, output, and the heavy modules it imported."""
    code = (
        "import json, runpy, sys, atexit\n"
        "heavy = ('torch', 'lightning', 'transformers', 'diffusers', 'wandb', 'av', 'yaml')\n"
        "atexit.register(lambda: print('\\n' + json.dumps([m for m in heavy if m in sys.modules])))\n"
        "runpy.run_module('vgen', run_name='__main__')\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *lines, modules = done.stdout.splitlines()
    return time.monotonic() - began, lines, json.loads(modules)


@pytest.mark.parametrize("arguments", [["--help"], [], ["fit", "--help"], ["--version"]], ids=" ".join)
def test_the_first_screens_come_at_once(arguments):
    seconds, lines, modules = apart(*arguments)
    assert modules == []
    assert seconds < 2
    assert len([*lines]) <= 40


def test_the_first_screen(capsys):
    text = shown(capsys, "--help")
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 120
    for name in (*TRAINING, *COMMANDS):
        assert f"\n  {name}" in text
    assert "exit codes" in text
    assert shown(capsys) == shown(capsys, "help") == text == shown(capsys, "-h")


def test_version(capsys):
    assert shown(capsys, "--version") == f"{__version__}\n"


@pytest.mark.parametrize("name", TRAINING)
def test_help_of_training_commands(capsys, name):
    text = shown(capsys, name, "--help")
    assert len(text.splitlines()) <= 40 and f"vgen {name} --config RECIPE" in text
    for option in ("--only", "--resume", "--overwrite"):
        assert (option in text) == (name == "fit")
    assert ("--stage STAGE" in text) == (name != "fit")
    assert shown(capsys, name) == text  # without any argument, too
    assert shown(capsys, name, "--config", RECIPE, "--help") == text  # short, also with a recipe


def test_all_settings_of_a_recipe(capsys):
    text = shown(capsys, "fit", "--config", RECIPE, "--help_all")
    for stage in ("autoencoder", "diffusion"):
        for key in ("trainer.max_steps", "model", "data", "seed_everything", "init_from"):
            assert f"--stages.{stage}.{key}" in text
    assert "--run_dir" in text
    assert "clip_spec" not in text  # filled in from the data


def test_settings_of_one_class(capsys):
    option = "--stages.autoencoder.model.help"
    text = shown(capsys, "fit", "--config", RECIPE, option, "tests.mechanics.toy.ToyAutoencoder")
    assert "Standard deviation of what is added to the input" in text  # from the docstring
    assert "{epoch,step}" in text and "clip_spec" not in text
    assert text == shown(capsys, "fit", "--config", RECIPE, f"{option}=tests.mechanics.toy.ToyAutoencoder")
    text = shown(capsys, "fit", "--config", RECIPE, "--stages.diffusion.trainer.callbacks.help", "vgen.callbacks.EMA")
    assert "Weight of the old average" in text
    nested = "--stages.diffusion.model.denoiser.help"
    assert "Share of dropped features" in shown(
        capsys, "fit", "--config", RECIPE, nested, "tests.mechanics.toy.ToyNetwork"
    )


def test_settings_of_a_class_that_is_none(capsys):
    shown(capsys, "fit", "--config", RECIPE, "--stages.autoencoder.model.help", "Nope", code=2)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_the_other_commands(capsys, name):
    text = shown(capsys, name, "--help")
    assert text.startswith(f"usage: vgen {name}")


@pytest.mark.parametrize("name", ["data", "sample", "report"])
def test_the_other_commands_without_arguments_say_what_they_need(capsys, name):
    assert main([name]) == 2
    assert "required" in capsys.readouterr().err
