"""The one reader and writer of model files: self-description, handoffs, warm start, damaged and foreign files."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import vgen
from tests.tiny_lfdm import autoencoder, lfae, lfdm, spec
from vgen.codecs import Companion, open_codec
from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.training import SingleLossModule
from vgen.video import ClipSpec
from vgen.weights import Handoff, WarmStart
from vgen.weights.checkpoint import (
    build_model,
    describe_model,
    open_handoff,
    read_model_file,
    stages_of_run,
    warm_start,
    weights_file,
)
from vgen.weights.export import Export, bundle, foreign_paths, write_export


class Network(Configurable, nn.Module):
    """A network of a family that is not vgen's."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.register_buffer("count", torch.zeros(()))


class Loss(Configurable, nn.Module):
    """A loss whose pretrained weights are not on this machine."""

    there: ClassVar[bool] = True

    def __init__(self, file: str = "vgg.pth") -> None:
        super().__init__()
        if not Loss.there:
            raise UserError("the pretrained weights are missing", file)


class Model(SingleLossModule):
    """A model of a family that is not vgen's."""

    training_only: ClassVar[tuple[str, ...]] = ("metric",)

    def __init__(self, clip_spec: ClipSpec, network: Network, metric: Loss | None = None) -> None:
        super().__init__(clip_spec)
        self.network, self.metric = network, metric


def save(model: Any, path: Path, run_dir: Path | None = None, stage: str = "stage", **more: Any) -> Path:
    """What a Trainer writes, without a training."""
    model.run_dir, model.stage_name = None if run_dir is None else str(run_dir), stage
    checkpoint: dict[str, Any] = {"global_step": 7, "state_dict": model.state_dict(), **more}
    model.on_save_checkpoint(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two stages; the second one names the first by a handoff."""
    folder = tmp_path / "run"
    first = save(autoencoder(), folder / "first" / "checkpoints" / "last.ckpt", folder, "first")
    second = lfdm(Handoff(str(first)))
    save(second, folder / "second" / "checkpoints" / "last.ckpt", folder, "second")
    return folder


def clip(model: Any) -> Tensor:
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32)
    return model.sample(image=image, label="glad", seeds=[1])


def test_the_description_is_plain_and_relative(run: Path) -> None:
    content = torch.load(run / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    header = content["vgen"]
    codec = header["init_args"]["codec"]
    assert codec["path"] == "run://first/checkpoints/last.ckpt" and len(codec["sha256"]) == 64
    assert header["family"] == "lfdm" and header["stage"] == "second" and header["step"] == 7
    assert header["class_path"] == "vgen.models.lfdm.LFDM" and "clip_spec" not in header["init_args"]
    assert json.loads(json.dumps(header)) == header and str(run) not in json.dumps(header)
    assert not any(key.startswith("codec.") for key in content["state_dict"])


def test_it_opens_from_anywhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = clip(vgen.load(run))
    for source in (run / "second", run / "second" / "checkpoints", run / "second" / "checkpoints" / "last.ckpt"):
        if source.name != "checkpoints":
            assert torch.equal(clip(vgen.load(source)), wanted)
    moved = shutil.move(run, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(clip(vgen.load("elsewhere")), wanted) and Path(moved).is_dir()
    assert type(vgen.load("elsewhere", stage="first")).__name__ == "LatentFlowAutoencoder"


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(autoencoder(), Path("first.ckpt"))
    header = save(lfdm(Handoff("first.ckpt")), Path("second.ckpt")) and read_model_file("second.ckpt").header
    assert header["init_args"]["codec"]["path"] == str(tmp_path / "first.ckpt")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert clip(vgen.load(tmp_path / "second.ckpt")).shape == (1, 3, 5, 32, 32)


def test_a_codec_given_as_module_is_stored(tmp_path: Path) -> None:
    model = lfdm(autoencoder())
    wanted = clip(model)
    state = torch.load(save(model, tmp_path / "one.ckpt"), weights_only=True)["state_dict"]
    assert "codec.network.network.generator.final.weight" in state
    assert not any(p.requires_grad for p in model.codec.parameters())
    assert torch.equal(clip(vgen.load(tmp_path / "one.ckpt")), wanted)
    del state["codec.network.network.generator.final.weight"]
    content = torch.load(tmp_path / "one.ckpt", weights_only=True)
    torch.save(content | {"state_dict": state}, tmp_path / "one.ckpt")
    with pytest.raises(UserError, match=r"lacks weight 'codec\.network"):  # never left at random values
        vgen.load(tmp_path / "one.ckpt")


def test_the_fingerprint_of_a_stored_codec(run: Path) -> None:
    codec = open_codec(autoencoder(), "codec")
    before = codec.fingerprint()
    assert before == codec.fingerprint() and len(before or "") == 64
    next(codec.parameters()).add_(1e-3)
    assert codec.fingerprint() != before  # caches of its latents are then made anew
    assert open_codec(Handoff(str(run / "first")), "codec").fingerprint() is None


def test_codecs_are_checked() -> None:
    with pytest.raises(UserError, match="needs a trained first stage"):
        open_codec(None, "codec")
    with pytest.raises(UserError, match="Linear is no codec"):
        open_codec(nn.Linear(1, 1), "codec")
    with pytest.raises(UserError, match="stands for a stage of a recipe"):
        open_handoff(Handoff("stage://autoencoder/last"))


def test_a_changed_or_missing_first_stage(run: Path) -> None:
    file = run / "first" / "checkpoints" / "last.ckpt"
    save(autoencoder(), file, run, "first")
    with pytest.raises(UserError, match="has changed since this model was trained with it") as caught:
        vgen.load(run)
    assert caught.value.where == str(file)
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        vgen.load(run)


def test_a_companion_is_opened_when_it_is_asked_for(run: Path) -> None:
    file = run / "first" / "checkpoints" / "last.ckpt"
    companion = Companion(Handoff(str(file)))
    network = companion.open()
    assert network is companion.open()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    with pytest.raises(UserError, match="no such file"):
        Companion(Handoff(str(run / "gone.ckpt"))).open()


def test_what_only_training_needs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(spec(), Network(), Loss())
    file = save(model, tmp_path / "m.ckpt")
    assert read_model_file(file).header["init_args"]["metric"]["init_args"] == {"file": "vgg.pth"}
    monkeypatch.setattr(Loss, "there", False)
    opened = vgen.load(file)
    assert opened.metric is None and torch.equal(opened.network.layer.weight, model.network.layer.weight)
    with pytest.raises(UserError, match="no loss to train with"):
        opened = vgen.load(save(autoencoder(), tmp_path / "a.ckpt"))
        opened.loss({"video": torch.zeros(1, 3, 2, 32, 32)})


def test_raw_and_averaged_weights(tmp_path: Path) -> None:
    model = Model(spec(), Network())
    shadow = {name: torch.full_like(value, 0.25) for name, value in model.named_parameters()}
    model.network.count.fill_(3)
    file = save(model, tmp_path / "m.ckpt", callbacks={"EMA": {"shadow": shadow, "updates": 2}, "Other": {"x": 1}})
    assert vgen.load(file).network.layer.bias.eq(0.25).all() and vgen.load(file).network.count == 3
    assert torch.equal(vgen.load(file, weights="raw").network.layer.bias, model.network.layer.bias)
    plain = save(model, tmp_path / "plain.ckpt")
    assert torch.equal(vgen.load(plain).network.layer.bias, model.network.layer.bias)
    with pytest.raises(UserError, match="no averaged"):
        vgen.load(plain, weights="ema")


def test_the_step_of_the_file_and_its_clips_come_back(tmp_path: Path) -> None:
    model = Model(spec(), Network())
    model.clips_seen = 96
    content = torch.load(save(model, tmp_path / "m.ckpt"), weights_only=True)
    assert content["vgen"]["clips"] == 96 and content["vgen"]["clip_spec"]["class_names"] == ["calm", "glad"]
    again = Model(spec(), Network())
    again.on_load_checkpoint(content)
    assert again.clips_seen == 96


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    content = torch.load(save(Model(spec(), Network()), tmp_path / "m.ckpt"), weights_only=True)

    def change(**weights: Any) -> str:
        state = {k: v for k, v in (content["state_dict"] | weights).items() if v is not None}
        torch.save(content | {"state_dict": state}, tmp_path / "x.ckpt")
        with pytest.raises(UserError) as caught:
            vgen.load(tmp_path / "x.ckpt")
        assert caught.value.where == str(tmp_path / "x.ckpt")
        return str(caught.value)

    assert "lacks weight 'network.layer.bias' (1 names differ)" in change(**{"network.layer.bias": None})
    assert "unknown weight 'network.more'" in change(**{"network.more": torch.zeros(1)})
    assert "has shape (4,), the model wants (3,)" in change(**{"network.layer.bias": torch.zeros(4)})
    lost = change(**{"network.layer.bias": None, "network.layer.bais": torch.zeros(3)})
    assert "did you mean 'network.layer.bais'?" in lost


def test_warm_start(run: Path) -> None:
    path = str(run / "first")
    source = vgen.load(path)

    def differing(model: Any) -> set[str]:
        own, theirs = model.state_dict(), source.state_dict()
        return {k.split(".")[1] for k in own if k in theirs and not torch.equal(own[k].float(), theirs[k].float())}

    model = autoencoder()
    assert len(warm_start(model, WarmStart(path))) == len(model.state_dict()) and not differing(model)
    model = autoencoder()
    before = differing(model)
    warm_start(model, WarmStart(path, include=("network.generator",)))
    assert differing(model) == before - {"generator"}
    other = autoencoder(network=lfae(num_regions=4))
    with pytest.raises(UserError, match="has shape"):
        warm_start(other, WarmStart(path))
    names = warm_start(other, WarmStart(path, strict=False))
    assert 0 < len(names) < len(other.state_dict())
    with pytest.raises(UserError, match="begins with any of"):
        warm_start(model, WarmStart(path, include=("nothing",)))
    with pytest.raises(UserError, match="no weight of the file fits"):
        warm_start(Model(spec(), Network()), WarmStart(path, strict=False))


def test_finding_the_file(run: Path, tmp_path: Path) -> None:
    assert stages_of_run(run) == ["first", "second"]
    (run / "config.yaml").write_text("stages: {second: {}, first: {}, third: {}}\n")
    assert stages_of_run(run) == ["second", "first"]  # in the order of the recipe
    assert weights_file(run) == run / "first" / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="no trained stage 'thrd'"):
        weights_file(run, "thrd")
    with pytest.raises(UserError, match="no checkpoint in this folder"):
        weights_file(tmp_path)
    with pytest.raises(UserError, match="no such file or folder") as caught:
        weights_file(tmp_path / "ran")
    assert str(run) in str(caught.value)


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, effect: Path) -> None:
        self.effect = effect

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.effect}",)


def test_damaged_foreign_and_hostile_files(run: Path, tmp_path: Path) -> None:
    good = (run / "first" / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.ckpt").touch()
    for name in ("cut", "empty"):
        with pytest.raises(UserError, match="damaged"):
            read_model_file(tmp_path / f"{name}.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="not a vgen checkpoint") as caught:
        read_model_file(tmp_path / "foreign.ckpt")
    assert "vgen convert" in str(caught.value)
    torch.save({"vgen": Shell(tmp_path / "effect")}, tmp_path / "hostile.ckpt")
    with pytest.raises(UserError, match="objects that could run code"):
        read_model_file(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "effect").exists()


def described(tmp_path: Path, **changes: Any) -> Path:
    """A checkpoint whose description was changed."""
    content = torch.load(save(Model(spec(), Network()), tmp_path / "m.ckpt"), weights_only=True)
    header = {k: v for k, v in (content["vgen"] | changes).items() if v is not None}
    torch.save(content | {"vgen": header}, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_descriptions_that_cannot_be_built(tmp_path: Path) -> None:
    def error(**changes: Any) -> str:
        with pytest.raises(UserError) as caught:
            vgen.load(described(tmp_path, **changes))
        return str(caught.value)

    assert "later vgen (format 99)" in error(format=99)
    assert "lacks class_path" in error(class_path=None)
    assert "at least 1" in error(clip_spec={"frames": 0, "height": 1, "width": 1})
    assert "has no attribute 'Modell'" in error(class_path=f"{__name__}.Modell")
    network = {"class_path": f"{__name__}.Network", "init_args": {"width": "wide"}}
    assert "Expected a <class 'int'>" in error(init_args={"network": network})
    assert "'depth' is not accepted" in error(init_args={"network": network | {"init_args": {"depth": 2}}})
    system = {"class_path": "os.system"}
    assert "does not correspond to a subclass" in error(init_args={"network": system})


def test_code_of_other_packages_is_not_imported_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages"
    package.mkdir()
    (package / "somebodys.py").write_text(f"open({str(tmp_path / 'effect')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(package)
    network = {"class_path": "somebodys.Network", "init_args": {}}
    with pytest.raises(UserError, match="needs code of another package") as caught:
        vgen.load(described(tmp_path, init_args={"network": network}))
    assert "import somebodys first" in str(caught.value) and not (tmp_path / "effect").exists()
    with pytest.raises(UserError, match="install the package nobodys"):
        try:
            vgen.load(described(tmp_path, init_args={"network": {"class_path": "nobodys.Network"}}))
        except UserError as error:
            raise UserError(error.hint or "") from error


def test_a_module_that_records_nothing_is_refused_before_training(tmp_path: Path) -> None:
    model = Model(spec(), nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Linear does not record its constructor arguments") as caught:
        model.setup("fit")
    assert caught.value.where == "Model.network"
    with pytest.raises(UserError):
        describe_model(model, spec(), None)


def test_damaged_exports(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_export(bundle(read_model_file(run)), out)
    wanted = clip(vgen.load(run))
    assert torch.equal(clip(vgen.load(out)), wanted)
    with pytest.raises(UserError, match="holds one model"):
        vgen.load(out, stage="first")
    config = (out / "config.json").read_text()
    for text, message in (("{", "damaged export"), ("[]", "holds no mapping"), ("{}", "lacks class_path")):
        (out / "config.json").write_text(text)
        with pytest.raises(UserError, match=message):
            vgen.load(out)
    (out / "config.json").unlink()
    with pytest.raises(UserError, match=r"needs config\.json"):
        vgen.load(out)
    (out / "config.json").write_text(config)
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:-8])
    with pytest.raises(UserError, match="damaged export"):
        vgen.load(out)


def test_shared_and_strided_tensors_are_exported(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"a": whole, "b": whole.T, "c": whole[1], "d": torch.tensor(True)}
    write_export(Export({"init_args": {}, "class_path": "x", "clip_spec": spec().to_dict()}, state), tmp_path)
    read = read_model_file(tmp_path)
    assert all(torch.equal(read.state[name], value) for name, value in state.items())


def test_paths_of_this_machine_are_found(tmp_path: Path) -> None:
    description = {"model": "bert-base-cased", "cache": [str(tmp_path)], "codec": {"path": "run://codec"}}
    assert list(foreign_paths(description)) == [("init_args.cache[0]", str(tmp_path))]


def test_a_loaded_model_can_be_saved_again(run: Path, tmp_path: Path) -> None:
    model = vgen.load(run)
    again = save(model, tmp_path / "again.ckpt")
    header = read_model_file(again).header
    assert header["init_args"]["codec"]["path"] == str(run / "first" / "checkpoints" / "last.ckpt")
    assert torch.equal(clip(build_model(read_model_file(again))), clip(model))
