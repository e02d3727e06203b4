"""Every mistake ends before training: exit code 2, one line of what, one of where, and a hint where one is near."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import tests.mechanics.toy  # noqa: F401  so that its classes are known by their short names
from tests.mechanics.runs import RECIPE, checkpoint_path, fit
from vgen.cli.main import main

TOY = "tests.mechanics.toy"


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in ("TOY_TRAP", "VGEN_PLAN", "LOCAL_RANK", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two steps per stage; not to be changed."""
    return fit(tmp_path_factory.mktemp("trained") / "toy", "--all_stages.trainer.max_steps=2")


def failure(capsys, run, *arguments, recipe=RECIPE, command="fit"):
    """Runs into the mistake; returns its lines by their names."""
    capsys.readouterr()
    code = main([command, "--config", str(recipe), "--run_dir", str(run), *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert "Traceback" not in captured.err and not (run / "autoencoder" / "metrics.csv").exists()
    lines = captured.err.strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
    parts = {line.split(":", 1)[0].strip(): line.split(":", 1)[1].strip() for line in lines[start:]}
    assert list(parts) in (["error", "where", "hint"], ["error", "where"]), captured.err
    assert all(len(line) < 400 for line in lines[start:])
    return parts


def edited(tmp_path, edit):
    """The recipe after `edit(content)`."""
    content = yaml.safe_load(RECIPE.read_text())
    edit(content)
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def put(path, value):
    """An edit: sets (or, with the value None, takes out) what a dotted path names."""

    def edit(content):
        *parents, last = path.split("/")
        for name in parents:
            content = content[int(name) if isinstance(content, list) else name]
        if value is None:
            del content[last]
        else:
            content[last] = value

    return edit


MODEL = "stages/diffusion/model/init_args"
DATA = "stages/diffusion/data"
# What is put where; what must be in the line of what, of where, and of the hint.
IN_THE_RECIPE = {
    "top level": ("run_dirr", "x", "unknown key 'run_dirr'", "edited.yaml", "'run_dir'"),
    "top level, far off": ("model", {}, "unknown key 'model'", "edited.yaml", None),
    "stage key": ("stages/diffusion/modle", {}, "unknown key 'modle'", "stages.diffusion.modle", "'model'"),
    "stage key, trainer": ("stages/diffusion/trainr", {}, "'trainr'", "stages.diffusion.trainr", "'trainer'"),
    "all_stages key": ("all_stages/seed_evrything", 1, "'seed_evrything'", "seed_evrything", "'seed_everything'"),
    "trainer key": ("stages/diffusion/trainer/max_step", 1, "'max_step'", "trainer.max_step", "'max_steps'"),
    "model argument": (f"{MODEL}/denoisr", 1, "no argument 'denoisr'", "stages.diffusion.model", "'denoiser'"),
    "data argument": (f"{DATA}/init_args/batchsize", 2, "'batchsize'", "stages.diffusion.data", "'batch_size'"),
    "network argument": (f"{MODEL}/denoiser/init_args/dmi", 2, "no argument 'dmi'", "denoiser", "'dim'"),
    "argument of a network's network": (
        f"{MODEL}/denoiser/init_args/activation",
        {"class_path": f"{TOY}.Activation", "init_args": {"slop": 1.0}},
        "no argument 'slop'",
        "denoiser",
        "'slope'",
    ),
    "codec argument": (f"{MODEL}/codec/pth", "x", "'pth'", "codec", "'path'"),
    "optimiser argument": (
        f"{MODEL}/optimizer/init_args/learning_rate",
        1.0,
        "'learning_rate'",
        "stages.diffusion.model",
        None,
    ),
    "callback argument": (
        "stages/diffusion/trainer/callbacks/1/init_args/deccay",
        0.9,
        "'deccay'",
        "trainer.callbacks",
        "'decay'",
    ),
    "model class": ("stages/diffusion/model/class_path", f"{TOY}.ToyDifusion", "ToyDifusion", "model", "ToyDiffusion"),
    "model module": ("stages/diffusion/model/class_path", "nowhere.Model", "nowhere.Model", "diffusion.model", None),
    "short class": ("stages/diffusion/model/class_path", "LFDMM", "LFDMM", "diffusion.model", "vgen.models.lfdm.LFDM"),
    "class that is no model": ("stages/diffusion/model/class_path", f"{TOY}.ToyNetwork", "ToyNetwork", "model", None),
    "network class": (f"{MODEL}/denoiser/class_path", f"{TOY}.ToyNetwrk", "ToyNetwrk", "denoiser", "ToyNetwork"),
    "data class": (f"{DATA}/class_path", "Foldr", "Foldr", "stages.diffusion.data", "vgen.data.datamodules.Folder"),
    "data class of the package": (f"{DATA}/class_path", "vgen.data.datamodules.MUGS", "MUGS", "data", "MUG'"),
    "callback class": (
        "stages/diffusion/trainer/callbacks/1/class_path",
        "vgen.callbacks.EMMA",
        "vgen.callbacks.EMMA",
        "trainer.callbacks",
        "vgen.callbacks.EMA",
    ),
    "optimiser class": (f"{MODEL}/optimizer/class_path", "torch.optim.AdamX", "AdamX", "optimizer", "torch.optim.Adam"),
    "type of a trainer key": ("stages/diffusion/trainer/max_steps", "many", "whole number", "trainer.max_steps", None),
    "type of a network argument": (f"{MODEL}/denoiser/init_args/dim", "wide", "whole number", "denoiser", None),
    "type of a seed": ("stages/diffusion/seed_everything", "lucky", "whole number", "seed_everything", None),
    "type of a model argument": (f"{MODEL}/denoiser", 3, "3", "denoiser", None),
    "literal": (f"{MODEL}/lr_interval", "steps", "expected one of epoch, step; got 'steps'", "lr_interval", "'step'"),
    "literal of a network": (
        f"{MODEL}/denoiser/init_args/activation",
        {"class_path": f"{TOY}.Activation", "init_args": {"kind": "rellu"}},
        "expected one of relu, leaky; got 'rellu'",
        "denoiser",
        "'relu'",
    ),
    "literal of a handoff": (f"{MODEL}/codec/weights", "emma", "expected one of raw, ema", "codec", "'ema'"),
    "stage of a handoff": (f"{MODEL}/codec/path", "stage://autoencodr/last", "autoencodr", "codec", "'autoencoder'"),
    "end of a handoff": (f"{MODEL}/codec/path", "stage://autoencoder/lst", "/last or /best", "codec.path", "'last'"),
    "handoff from itself": (f"{MODEL}/codec/path", "stage://diffusion/last", "not trained before", "codec.path", None),
    "handoff from a later stage": (
        "stages/autoencoder/init_from",
        {"path": "stage://diffusion/last"},
        "not trained before",
        "stages.autoencoder.init_from.path",
        None,
    ),
    "no model": ("stages/diffusion/model", None, "names no model class", "stages.diffusion.model", None),
    "no data": ("stages/diffusion/data", None, "names no data class", "stages.diffusion.data", None),
    "missing argument": (f"{MODEL}/denoiser", None, "denoiser", "stages.diffusion.model", None),
    "no stages": ("stages", {}, "must be a recipe with stages", "edited.yaml", None),
    "stages as a list": ("stages", ["autoencoder"], "stages", "edited.yaml", None),
    "missing data": (f"{DATA}/init_args/root", "data/nowhere", "no data", "data/nowhere", None),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_THE_RECIPE)
def test_mistakes_in_a_recipe(tmp_path, capsys, name):
    path, value, what, where, hint = IN_THE_RECIPE[name]
    parts = failure(capsys, tmp_path / "run", recipe=edited(tmp_path, put(path, value)))
    assert what in parts["error"] and where in parts["where"]
    assert hint is None or hint in parts["hint"]
    assert not (tmp_path / "run").exists()


ON_THE_COMMAND_LINE = {
    "unknown option": (["--resum"], "--resum", "vgen fit", "'--resume'"),
    "stage of an override": (["--stages.difusion.model.x=1"], "'difusion'", "--stages.difusion", "'diffusion'"),
    "stage key": (["--stages.diffusion.modle.x=1"], "'modle'", "stages.diffusion.modle", "'model'"),
    "trainer key": (["--stages.diffusion.trainer.max_step=1"], "'max_step'", "trainer.max_step", "'max_steps'"),
    "key of all stages": (["--all_stages.trainer.max_step=1"], "'max_step'", "trainer.max_step", "'max_steps'"),
    "network argument": (["--stages.diffusion.model.denoiser.dmi=1"], "'dmi'", "diffusion.model", "'dim'"),
    "type": (["--stages.diffusion.trainer.max_steps=many"], "whole number", "trainer.max_steps", None),
    "literal": (["--stages.diffusion.model.lr_interval=steps"], "epoch, step", "lr_interval", "'step'"),
    "class": (["--stages.diffusion.data=Foldr"], "Foldr", "stages.diffusion.data", "vgen.data.datamodules.Folder"),
    "only": (["--only", "difusion"], "unknown stage 'difusion'", "--only", "'diffusion'"),
    "only without a name": (["--only"], "--only needs the name of a stage", "vgen fit", None),
    "both resume and overwrite": (["--resume", "--overwrite"], "exclude each other", "vgen fit", None),
    "strategy": (["--all_stages.trainer.strategy=ddpp"], "ddpp", "stages.autoencoder.trainer", None),
    "accelerator": (["--all_stages.trainer.accelerator=tpu"], "torch_xla", "stages.autoencoder.trainer", None),
    "a stray word": (["diffusion"], "diffusion", "vgen fit", None),
    "a second recipe that is not there": (["--config", "nowhere.yaml"], "no such config file", "nowhere.yaml", None),
}


@pytest.mark.parametrize("name", ON_THE_COMMAND_LINE)
def test_mistakes_on_the_command_line(tmp_path, capsys, name):
    arguments, what, where, hint = ON_THE_COMMAND_LINE[name]
    parts = failure(capsys, tmp_path / "run", *arguments)
    assert what in parts["error"] and where in parts["where"]
    assert hint is None or hint in parts["hint"]
    assert not (tmp_path / "run").exists()


OVERLAYS = {
    "stage": ("stages: {difusion: {}}", "unknown stage 'difusion'", "overlay.yaml: stages.difusion", "'diffusion'"),
    "stage far off": ("stages: {gan: {}}", "unknown stage 'gan'", "overlay.yaml", "autoencoder, diffusion"),
    "key": ("all_stage: {}", "unknown key 'all_stage'", "overlay.yaml", "'all_stages'"),
    "trainer key": ("all_stages: {trainer: {precison: 32}}", "'precison'", "trainer.precison", "'precision'"),
    "literal": ("all_stages: {trainer: {precision: bf17-mixed}}", "bf17-mixed", "trainer.precision", "'bf16-mixed'"),
    "not YAML": ("all_stages: {trainer: [", "not valid YAML", "overlay.yaml, line", None),
    "no mapping": ("- a\n- b\n", "keys and values", "overlay.yaml", None),
    "empty": ("", "keys and values", "overlay.yaml", None),
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_mistakes_in_an_overlay(tmp_path, capsys, name):
    text, what, where, hint = OVERLAYS[name]
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    parts = failure(capsys, tmp_path / "run", "--config", path)
    assert what in parts["error"] and where in parts["where"]
    assert hint is None or hint in parts["hint"]


def test_no_recipe(capsys):
    assert main(["fit", "--resume"]) == 2
    assert "no recipe given" in capsys.readouterr().err


def test_a_missing_recipe_with_a_close_name(tmp_path, capsys):
    shutil.copy(RECIPE, tmp_path / "toy_clips.yaml")
    parts = failure(capsys, tmp_path / "run", recipe=tmp_path / "toy_clip.yaml")
    assert parts["error"] == "no such config file" and "toy_clips.yaml" in parts["hint"]


def test_a_recipe_that_is_a_folder(tmp_path, capsys):
    parts = failure(capsys, tmp_path / "run", recipe=tmp_path)
    assert "cannot read the config file" in parts["error"] and str(tmp_path) in parts["where"]


def test_invalid_yaml_names_the_line(tmp_path, capsys):
    path = tmp_path / "broken.yaml"
    path.write_text("run_dir: x\nstages:\n  a: [1\n  b: 2\n")
    parts = failure(capsys, tmp_path / "run", recipe=path)
    assert "not valid YAML" in parts["error"] and "broken.yaml, line" in parts["where"]


@pytest.mark.parametrize("text", ["all_stages: {trainer: {precision: bf16-mixed}}", "stages: {diffusion: {}}"])
def test_an_overlay_alone(tmp_path, capsys, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    parts = failure(capsys, tmp_path / "run", recipe=path)
    assert "overlay" in parts["hint"] and "overlay.yaml" in parts["where"]


def test_missing_data_says_what_belongs_there(tmp_path, capsys):
    root = tmp_path / "nowhere"
    data = {"class_path": "vgen.data.datamodules.MUG", "init_args": {"root": str(root), "size": 8, "frames": 2}}
    parts = failure(capsys, tmp_path / "run", recipe=edited(tmp_path, put("stages/autoencoder/data", data)))
    assert "MUG expects" in parts["error"] and "img_0000.jpg" in parts["error"] and str(root) in parts["where"]


def test_empty_data_says_what_belongs_there(tmp_path, capsys):
    root = tmp_path / "empty"
    root.mkdir()
    data = {"class_path": "vgen.data.datamodules.MUG", "init_args": {"root": str(root), "size": 8, "frames": 2}}
    parts = failure(capsys, tmp_path / "run", recipe=edited(tmp_path, put("stages/autoencoder/data", data)))
    assert "img_0000.jpg" in f"{parts}" and str(root) in parts["where"]


def test_a_used_run_directory(tmp_path, capsys):
    (tmp_path / "run" / "autoencoder" / "checkpoints").mkdir(parents=True)
    parts = failure(capsys, tmp_path / "run")
    assert "not empty" in parts["error"] and str(tmp_path / "run") in parts["where"]
    assert "--resume" in parts["hint"] and "--overwrite" in parts["hint"]


WARM = "--stages.autoencoder.init_from.path={}"


def test_a_warm_start_from_another_model(trained, tmp_path, capsys):
    source = checkpoint_path(trained, "diffusion")
    parts = failure(capsys, tmp_path / "run", WARM.format(source))
    assert "weight" in parts["error"] and str(source) in parts["where"] and parts["hint"]


def test_a_warm_start_of_another_size(trained, tmp_path, capsys):
    source = checkpoint_path(trained, "autoencoder")
    parts = failure(capsys, tmp_path / "run", WARM.format(source), "--stages.autoencoder.model.network.dim=9")
    assert "has shape" in parts["error"] and "configuration" in parts["hint"]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "folder"])
def test_a_warm_start_from_no_checkpoint(trained, tmp_path, capsys, damage):
    source = tmp_path / "source.ckpt"
    whole = checkpoint_path(trained, "autoencoder").read_bytes()
    if damage == "folder":
        source.mkdir()
    elif damage != "missing":
        source.write_bytes({"truncated": whole[:1000], "text": b"weights", "empty": b""}[damage])
    parts = failure(capsys, tmp_path / "run", WARM.format(source))
    assert str(source) in parts["where"]


def test_a_warm_start_from_a_file_that_could_run_code(tmp_path, capsys):
    source = tmp_path / "source.ckpt"
    torch.save({"state_dict": {}, "f": print}, source)
    parts = failure(capsys, tmp_path / "run", WARM.format(source))
    assert "could run code" in parts["error"] and "vgen convert" in parts["hint"]


def test_a_codec_that_is_none(trained, tmp_path, capsys):
    """The second stage's file in the place of the first one's."""
    source = checkpoint_path(trained, "diffusion")
    data, model = (yaml.safe_load(RECIPE.read_text())["stages"]["diffusion"][k] for k in ("data", "model"))
    model["init_args"]["codec"] = {"path": str(source)}
    recipe = edited(tmp_path, put("stages", {"diffusion": {"data": data, "model": model}}))
    parts = failure(capsys, tmp_path / "run", recipe=recipe)
    assert "ToyDiffusion is no codec" in parts["error"]


def test_a_resumed_run_with_another_network(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    capsys.readouterr()
    arguments = ["--resume", "--all_stages.trainer.max_steps=4", "--only", "diffusion"]
    arguments += ["--config", str(RECIPE), "--run_dir", str(run), "--stages.diffusion.model.denoiser.dim=9"]
    code = main(["fit", *arguments])
    message = capsys.readouterr().err
    assert code == 2 and "has shape" in message and "last.ckpt" in message and "Traceback" not in message


def test_commands_that_do_not_exist(capsys):
    assert main(["fitt"]) == 2
    assert "did you mean 'fit'" in capsys.readouterr().err


def test_a_run_directory_that_is_a_file(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    assert main(["fit", "--config", str(RECIPE), "--run_dir", str(tmp_path / "run")]) == 2
    assert str(tmp_path / "run") in capsys.readouterr().err


def test_the_fixture_is_what_it_says(trained):
    assert Path(trained, "diffusion", "done.json").is_file()
