"""Every recipe with its tiny overlay, three steps per stage, on fake data in the layout of the real one."""

import json
import math
from pathlib import Path

import pytest
import torch

import vgen
from tests.configs.conftest import CONFIGS, RECIPES, arguments, configuration, provide_data, tiny_of
from tests.mechanics.processes import apart
from tests.mechanics.runs import RECIPE as TOY
from tests.mechanics.runs import rows, with_callbacks
from vgen.cli.main import main
from vgen.cli.trained import model_inputs
from vgen.video import Samples

SHORT = [
    "--all_stages.trainer.max_steps=3",
    "--all_stages.trainer.limit_val_batches=1",
    "--all_stages.trainer.val_check_interval=3",
    "--all_stages.trainer.check_val_every_n_epoch=null",
    "--all_stages.trainer.log_every_n_steps=1",
    "--all_stages.data.batch_size=2",
    "--all_stages.data.val_clips=2",
]


def smoke(recipe):
    """Trains a recipe for three steps per stage, once; first those whose weights it starts from."""
    config = configuration(recipe, tiny_of(recipe), more=SHORT)
    run = Path(config["run_dir"])
    if not run.exists():
        for stage in config["stages"].values():
            path = Path((stage["init_from"] or {}).get("path", ""))
            before = [r for r in RECIPES if path.parts[:2] == ("runs", f"{r.stem}_tiny")]
            for other in before:
                smoke(other)
        provide_data(config)
        assert main(["fit", *arguments(recipe, tiny_of(recipe)), *SHORT]) == 0
    return run, config


@pytest.mark.smoke
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_three_steps_of_every_stage(recipe, here, tmp_path, monkeypatch):
    run, config = smoke(recipe)
    run = run.absolute()
    for name in config["stages"]:
        stage = run / name
        assert json.loads((stage / "done.json").read_text())["step"] == 3
        losses = [float(row["train/loss"]) for row in rows(run, name) if row["train/loss"]]
        assert len(losses) == 3 and all(math.isfinite(loss) for loss in losses)
        assert [row["step"] for row in rows(run, name) if row["val/loss"]] == ["3"]
        assert list((stage / "samples").glob("step_00000003_*.mp4"))
        content = torch.load(stage / "checkpoints" / "last.ckpt", weights_only=True)
        assert content["vgen"]["stage"] == name and content["global_step"] == 3
        assert all(w.isfinite().all() for w in content["state_dict"].values() if w.is_floating_point())
    monkeypatch.chdir(tmp_path)
    for name in config["stages"]:
        out = works_without_recipe_and_data(vgen.load(run, stage=name))
    assert main(["export", str(run), "--out", "exported"]) == 0
    kinds = {path.suffix for path in Path("exported").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".md", ".mp4"}
    assert torch.equal(works_without_recipe_and_data(vgen.load("exported")), out)


def works_without_recipe_and_data(model):
    """What the model makes of nothing but its inputs; its seeds are fixed."""
    spec = model.clip_spec
    if isinstance(model, Samples):
        inputs, whole = model_inputs(model), (spec.channels, spec.frames, spec.height, spec.width)
        given = {"image": torch.zeros(spec.channels, spec.height, spec.width)} if "image" in inputs else {}
        given |= {"label": spec.class_names[0]} if "label" in inputs else {}
        given |= {"video": torch.zeros(whole)} if "video" in inputs else {}
        clip = model.sample(n=1, **given, seeds=[0], options={"steps": 2} if hasattr(model, "sampler") else {})
        assert clip.shape == (1, *whole) and clip.isfinite().all()
        return clip
    video = torch.zeros(1, 3, max(2, spec.frames), spec.height, spec.width)
    made = model.reconstruct({"video": video})
    assert made.shape == video.shape
    return made


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_two_ranks_train_the_same_weights(recipe, here, tmp_path):
    """Codebooks and critics too; statistics of BatchNorm are each rank's own."""
    smoke(recipe)  # the data, and runs whose weights it starts from
    tiny = with_callbacks(tmp_path / "tiny.yaml", "toy.RankRecorder", recipe=tiny_of(recipe))
    run = tmp_path / "run"
    two = ["--all_stages.trainer.accelerator=cpu", "--all_stages.data.repeats=4"]  # tiny sets have two clips
    more = [*arguments(tiny, CONFIGS / "overlays" / "ddp.yaml"), *SHORT, *two]
    codes, output = apart(run, *more, "--run_dir", str(run), recipe=recipe, ranks=2)
    assert codes == [0, 0], output
    for stage in configuration(recipe)["stages"]:
        ranks = [torch.load(run / stage / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        for key, value in ranks[0]["weights"].items():
            assert torch.equal(value, ranks[1]["weights"][key]) or "running_" in key, f"{stage}: {key}"


@pytest.mark.parametrize("name", ["bf16", "debug_overfit", "wandb"])
def test_overlays_train(name, tmp_path, monkeypatch):
    """On the toy, which takes seconds; `ddp` asks for GPUs."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    overlay = CONFIGS / "overlays" / f"{name}.yaml"
    short = ["--run_dir", str(tmp_path / "toy"), "--all_stages.trainer.max_steps=3"]
    assert main(["fit", *arguments(TOY, overlay), *short]) == 0
    assert (tmp_path / "toy" / "diffusion" / "done.json").is_file()


def test_overfitting_repeats_one_batch(tmp_path):
    overlay = CONFIGS / "overlays" / "debug_overfit.yaml"
    recipe = TOY.read_text().replace(
        "        - {class_path: tests.mechanics.toy.Trap}\n",
        "        - {class_path: tests.mechanics.toy.RankRecorder}\n",
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    short = ["--run_dir", str(tmp_path / "toy"), "--all_stages.trainer.max_steps=3", "--only", "autoencoder"]
    assert main(["fit", *arguments(tmp_path / "recipe.yaml", overlay), *short]) == 0
    seen = torch.load(tmp_path / "toy" / "autoencoder" / "rank0.pt", weights_only=True)["clips"]
    assert len(seen) == 6 and len({clip.partition(":")[2] for clip in seen}) == 2
