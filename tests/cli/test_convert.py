"""Official files, written here in the layout of the LFDM release, become exports that vgen opens."""

import json
import os
import re
from collections import OrderedDict

import pytest
import torch

import vgen
from tests.tiny_lfdm import autoencoder, lfae
from vgen.cli.commands.convert import families
from vgen.cli.main import main
from vgen.conditioning import LabelEmbedding
from vgen.diffusion import DDIM, GaussianDiffusion
from vgen.models.lfdm import LFAE, LatentFlowAutoencoder, RegionPredictorConfig, Unet3D
from vgen.models.lfdm.weights import lfae_config, lfae_state, unet_config, unet_state
from vgen.weights import WarmStart
from vgen.weights.checkpoint import instantiate, read_model_file, warm_start
from vgen.weights.factorised_unet import SCHEDULE_BUFFERS

WIDTH = 16  # of the text model
PARTS = ("generator", "region_predictor", "bg_predictor")


def convert(*arguments):
    return main(["convert", "lfdm", *(str(a) for a in arguments)])


def official_lfae(network, **more):
    """{example, epoch, generator, region_predictor, bg_predictor, optimizer}, BatchNorm counters included."""
    states = {part: getattr(network, part).state_dict() for part in PARTS}
    return {"example": 4650000, "epoch": 100, **states, "optimizer": {"state": {}, "param_groups": []}, **more}


def official_unet(network):
    """The official names: each attention is a Residual(PreNorm(Rearrange(Attention))), the rotary buffer is in each."""
    state = OrderedDict()
    for key, value in network.state_dict().items():
        spatial = re.match(r"(downs|ups)\.\d+\.2\.", key)
        temporal = re.match(r"(init_temporal_attn|mid_temporal_attn|mid_spatial_attn|(downs|ups)\.\d+\.3)\.", key)
        if match := spatial or temporal:
            inner = "fn.norm." if ".norm." in key else "fn.fn.to_" if spatial else "fn.fn.fn.to_"
            key = match[0] + inner + key[match.end() :].removeprefix("norm.").removeprefix("to_")
            if temporal and ".norm." in key and "spatial" not in key:
                state["denoise_fn." + match[0] + "fn.fn.fn.rotary_emb.freqs"] = torch.zeros(16)
        state["denoise_fn." + key] = value
    return state


def official_dm(network):
    """{example, diffusion: 12 schedule buffers and denoise_fn.*, optimizer_diff}."""
    schedule = GaussianDiffusion().schedule
    buffers = {name: getattr(schedule, name, torch.zeros(1000)).clone() for name in SCHEDULE_BUFFERS}
    return {"example": 558000, "diffusion": OrderedDict(buffers) | official_unet(network), "optimizer_diff": {}}


def small_unet(**changes):
    arguments = {"dim": 8, "cond_dim": WIDTH, "dim_mults": (1, 2), "channels": 19, "attn_heads": 2, "attn_dim_head": 8}
    return Unet3D(**(arguments | changes))


def taught(network):
    """Fills buffers and zero-initialised weights, so that nothing is equal by chance."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * 0.05)
    return network.eval()


@pytest.fixture
def files(tmp_path):
    networks = taught(lfae()), taught(small_unet())
    torch.save(official_lfae(networks[0]), tmp_path / "LFAE_MUG.pth")
    torch.save(official_dm(networks[1]), tmp_path / "DM_MUG.pth", _use_new_zipfile_serialization=False)
    return tmp_path, *networks


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "anger", "fear", "happiness"]
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 12}
    BertModel(BertConfig(vocab_size=len(words), hidden_size=WIDTH, **sizes)).save_pretrained(folder)
    BertTokenizer(vocab={w: i for i, w in enumerate(words)}, do_lower_case=False).save_pretrained(folder)
    return folder


def test_the_autoencoder(files, capsys):
    folder, network, _ = files
    assert convert("--lfae", folder / "LFAE_MUG.pth", "--preset", "mug", "--size", 32, "--out", folder / "out") == 0
    assert "all 131 tensors found their place" in capsys.readouterr().out
    model = vgen.load(folder / "out")
    assert isinstance(model, LatentFlowAutoencoder) and model.clip_spec.height == 32 and model.clip_spec.fps == 19
    assert len(model.clip_spec.class_names) == 7
    source, driving = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 2, 32, 32)
    for ours, theirs in zip(model.network.flow(source, driving), network.flow(source, driving), strict=True):
        assert torch.equal(ours, theirs)
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["stage"] == "autoencoder" and config["source"][0]["file"] == "LFAE_MUG.pth"
    assert config["source"][0]["epoch"] == 100 and str(folder) not in json.dumps(config)
    assert "converted from `LFAE_MUG.pth`" in (folder / "out" / "README.md").read_text()


def test_it_begins_a_training(files):
    folder, network, _ = files
    assert convert("--lfae", folder / "LFAE_MUG.pth", "--preset", "mug", "--size", 32, "--out", folder / "out") == 0
    fresh = autoencoder()
    assert len(warm_start(fresh, WarmStart(str(folder / "out")))) == 131
    own, theirs = fresh.network.state_dict(), network.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)
    decoder = autoencoder()
    names = warm_start(decoder, WarmStart(str(folder / "out"), include=("network.generator.final",)))
    assert names == ["network.generator.final.bias", "network.generator.final.weight"]


def test_both_stages_with_a_text_model(files, bert, capsys):
    folder, network, unet = files
    stages = ["--lfae", folder / "LFAE_MUG.pth", "--dm", folder / "DM_MUG.pth"]
    given = ["--preset", "mug", "--size", 32, "--frames", 4, "--text_model", bert, "--out", folder / "out"]
    assert convert(*stages, *given) == 0
    assert f"class names encoded by {bert}" in capsys.readouterr().out
    model = vgen.load(folder / "out")
    assert not model.codec.stored and model.clip_spec.frames == 4
    x, time = torch.randn(1, 3, 4, 8, 8), torch.tensor([500])
    arguments = (x, time, torch.randn(1, WIDTH), torch.randn(1, 16, 8, 8))
    assert torch.equal(model.denoiser(*arguments), unet(*arguments))
    first = vgen.load(folder / "out" / "codec")
    assert torch.equal(first.network.generator.final.weight, network.generator.final.weight)
    image = torch.zeros(3, 32, 32)
    options = {"sampler": DDIM(2), "guidance": 2.0}
    fear = model.sample(image=image, label="fear", options=options)
    assert fear.shape == (1, 3, 4, 32, 32)
    assert not torch.equal(model.sample(image=image, label="anger", options=options), fear)
    (folder / "LFAE_MUG.pth").unlink()  # nothing leads back to the files
    (folder / "DM_MUG.pth").unlink()
    moved = (folder / "out").rename(folder / "moved")
    assert torch.equal(vgen.load(moved).sample(image=image, label="fear", options=options), fear)


def test_without_a_text_model_classes_wait(files, capsys):
    folder, *_ = files
    stages = ["--lfae", folder / "LFAE_MUG.pth", "--dm", folder / "DM_MUG.pth"]
    assert convert(*stages, "--preset", "mug", "--size", 32, "--frames", 2, "--out", folder / "out") == 0
    assert "class names are not encoded yet, bert-base-cased is needed" in capsys.readouterr().out
    model = vgen.load(folder / "out")
    image, options = torch.zeros(3, 32, 32), {"sampler": DDIM(2)}
    assert model.sample(image=image, text="None", options=options).shape == (1, 3, 2, 32, 32)
    with pytest.raises(vgen.errors.UserError, match=r"bert-base-cased.*not on this machine"):
        model.sample(image=image, label="fear", options=options)


def test_mraa_weights(tmp_path):
    network = taught(lfae())
    avd = {"avd_network": torch.nn.Linear(2, 2).state_dict(), "optimizer_avd": {}, "epoch_avd": 3}
    torch.save(official_lfae(network, **avd), tmp_path / "vox256.pth")
    options = ["--preset", "natops", "--size", 32, "--out", tmp_path / "out"]
    assert convert("--mraa", tmp_path / "vox256.pth", *options) == 0
    model = vgen.load(tmp_path / "out")
    assert model.network.region_predictor.regions.padding == (0, 0)  # natops starts from taichi256, which has none
    assert len(model.clip_spec.class_names) == 24
    assert len(warm_start(autoencoder(), WarmStart(str(tmp_path / "out")))) == 131


def test_the_natops_layout(tmp_path):
    unet = taught(small_unet(learn_null_cond=True, use_deconv=False, padding_mode="reflect"))
    torch.save(official_lfae(lfae()), tmp_path / "LFAE.pth")
    torch.save(official_dm(unet), tmp_path / "DM.pth")
    names = ["--lfae", tmp_path / "LFAE.pth", "--dm", tmp_path / "DM.pth", "--size", 32, "--out", tmp_path / "out"]
    assert convert(*names, "--preset", "natops") == 0
    denoiser = vgen.load(tmp_path / "out").denoiser
    assert torch.equal(denoiser.null_cond_emb, unet.null_cond_emb)
    assert denoiser.ups[0][4][1].padding_mode == "reflect"


def test_a_preset_that_does_not_fit_is_pointed_out(files, capsys):
    folder, *_ = files
    stages = ["--lfae", folder / "LFAE_MUG.pth", "--dm", folder / "DM_MUG.pth", "--size", 32]
    assert convert(*stages, "--preset", "natops", "--out", folder / "out") == 0
    assert "is the preset right?" in capsys.readouterr().out


class _Hostile:
    def __init__(self, effect):
        self.effect = effect

    def __reduce__(self):
        return os.system, (f"touch {self.effect}",)


def test_hostile_files_are_refused(files, tmp_path, capsys):
    folder, network, _ = files
    effect = tmp_path / "effect"
    torch.save(official_lfae(network, optimizer=_Hostile(effect)), tmp_path / "bad.pth")
    assert convert("--lfae", tmp_path / "bad.pth", "--preset", "mug", "--size", 32, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "refused" in error and "system" in error
    torch.save({"diffusion": {}, "more": _Hostile(effect)}, tmp_path / "worse.pth")
    stages = ["--lfae", folder / "LFAE_MUG.pth", "--dm", tmp_path / "worse.pth"]
    assert convert(*stages, "--preset", "mug", "--size", 32, "--out", tmp_path / "out") == 2
    assert not effect.exists() and not (tmp_path / "out").exists()


def test_mistakes(files, capsys):
    folder, network, unet = files
    out = ["--preset", "mug", "--size", 32, "--out", folder / "out"]

    def error(*arguments):
        assert convert(*arguments) == 2
        assert not (folder / "out").exists()
        return capsys.readouterr().err

    assert "name one auto-encoder" in error(*out)
    assert "add --lfae" in error("--mraa", folder / "LFAE_MUG.pth", "--dm", folder / "DM_MUG.pth", *out)
    assert "not an LFAE checkpoint" in error("--lfae", folder / "DM_MUG.pth", *out)
    assert "no `denoise_fn.*`" in error("--lfae", folder / "LFAE_MUG.pth", "--dm", folder / "LFAE_MUG.pth", *out)
    assert "did you mean '--lfae'?" in error("--lfea", folder / "LFAE_MUG.pth", *out)
    assert "did you mean 'mug'?" in error("--lfae", folder / "LFAE_MUG.pth", "--preset", "mgu", "--out", folder / "out")
    assert "--preset is needed" in error("--lfae", folder / "LFAE_MUG.pth", "--out", folder / "out")
    assert "no such checkpoint file" in error("--lfae", folder / "none.pth", *out)
    content = official_lfae(network)
    del content["generator"]["final.weight"]
    torch.save(content, folder / "cut.pth")
    assert "1 missing (generator.final.weight)" in error("--lfae", folder / "cut.pth", *out)
    content["generator"] = {"other": torch.zeros(1)}
    torch.save(content, folder / "cut.pth")
    assert "not those of an LFAE" in error("--lfae", folder / "cut.pth", *out)
    content = official_dm(unet)
    content["diffusion"]["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    torch.save(content, folder / "linear.pth")
    assert "another noise schedule" in error("--lfae", folder / "LFAE_MUG.pth", "--dm", folder / "linear.pth", *out)
    assert "cannot be halved" in error("--lfae", folder / "LFAE_MUG.pth", "--preset", "mug", "--size", 36, *out[4:])
    assert main(["convert", "lfmd"]) == 2
    assert "did you mean 'lfdm'?" in capsys.readouterr().err


def test_help_names_the_options(capsys):
    assert "lfdm" in families()
    assert convert("--help") == 0
    text = capsys.readouterr().out
    assert "--lfae" in text and "--mraa" in text and "class_names" not in text


@pytest.mark.parametrize("preset, unets", [("mug", 302), ("natops", 303)])
def test_full_size_layouts(preset, unets):
    natops = {"learn_null_cond": True, "use_deconv": False, "padding_mode": "reflect"} if preset == "natops" else {}
    with torch.device("meta"):
        network = LFAE(region_predictor=RegionPredictorConfig(pad=3 if preset == "mug" else 0))
        unet = Unet3D(64, use_bert_text_cond=True, channels=259, **natops)
        files = official_lfae(network), {"diffusion": official_unet(unet)}
        assert [len(files[0][part]) for part in PARTS] == [196, 73, 37]  # as in the release
        state, denoiser = lfae_state(files[0]), unet_state(files[1])
        # 324 keys of MUG's file: 12 schedule buffers and ten copies of the rotary frequencies
        assert len(denoiser) - unets == 10 and unets + 10 + 12 == (324 if preset == "mug" else 325)
        rebuilt, again = LFAE(**lfae_config(state, preset)), Unet3D(**unet_config(denoiser, preset))
    counts = 66_004_557, 42_129_859 if natops else 42_731_203
    for ours, theirs, count in zip((rebuilt, again), (network, unet), counts, strict=True):
        shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (ours, theirs)]
        assert shapes[0] == shapes[1] and sum(p.numel() for p in ours.parameters()) == count
    assert rebuilt.configuration["region_predictor"]["pad"] == (3 if preset == "mug" else 0)


def test_descriptions_build_again(files):
    folder, *_ = files
    assert convert("--lfae", folder / "LFAE_MUG.pth", "--preset", "mug", "--size", 32, "--out", folder / "out") == 0
    header = read_model_file(folder / "out").header
    built = instantiate(header, vgen.load(folder / "out").clip_spec, "test")
    assert isinstance(built, LatentFlowAutoencoder) and not isinstance(built, LabelEmbedding)
