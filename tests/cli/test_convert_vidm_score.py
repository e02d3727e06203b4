"""Official files of VIDM, SpyNet, score SDE and EDM, written here in their own layouts, become exports."""

import pickle
import sys
import types

import pytest
import torch

import vgen
from tests.official_names import edm_state, score_sde_state, spynet_state, vidm_state
from vgen.cli.commands.convert import families
from vgen.cli.main import main
from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet
from vgen.models.vidm import Layout, MotionGenerator
from vgen.models.vidm.weights import read_spynet
from vgen.nn.flow import SpyNet

LAYOUT = Layout(32, 1, (2,), (1, 2), num_head_channels=16, video_timesteps=8)
SMALL = {"resolution": 8, "model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}


def convert(*arguments):
    return main(["convert", *(str(a) for a in arguments)])


@torch.no_grad()
def taught(network):
    for value in network.parameters():
        value.add_(0.05 * torch.randn_like(value))
    return network.eval()


def test_names():
    assert {"vidm", "spynet", "score_sde", "edm", "lfdm"} <= set(families())


@torch.no_grad()
def test_vidm(tmp_path, capsys):
    """{iters, state_dict, ema_state_dict, optimizer}, names of DDP, and caches of coordinates."""
    raw, averaged = (taught(MotionGenerator(LAYOUT, flow=SpyNet())) for _ in range(2))
    caches = {"module.unet.input_blocks.1.0.emb_layers.coords": torch.zeros(2, 3)}
    caches["module.unet.input_blocks.1.0.emb_layers.new_coords"] = torch.zeros(2, 3)
    states = [{f"module.{name}": value for name, value in vidm_state(n).items()} | caches for n in (raw, averaged)]
    content = {"iters": 400000, "state_dict": states[0], "ema_state_dict": states[1], "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "clevrer.pth.tar")
    shape = ["--size", 16, "--frames", 4, "--video_timesteps", 8, "--head_channels", 16]
    given = ["vidm", "--file", tmp_path / "clevrer.pth.tar", "--preset", "clevrer", *shape]
    assert convert(*given, "--out", tmp_path / "out") == 0
    assert "tensors found their place" in capsys.readouterr().out
    model = vgen.load(tmp_path / "out")
    x, first, previous = torch.randn(3, 1, 3, 16, 16)
    t, n = torch.tensor([40]), torch.tensor([3])
    for network, folder in ((averaged, "out"), (raw, "raw")):
        if folder == "raw":
            assert convert(*given, "--averaged", "false", "--out", tmp_path / folder) == 0
        ours = vgen.load(tmp_path / folder).network
        motion = network.motion(first, previous)
        assert torch.equal(ours.motion(first, previous), motion)
        assert torch.equal(ours(x, t, n, first, motion), network(x, t, n, first, motion))
    clip = model.sample(image=torch.zeros(3, 16, 16), options={"steps": 2})
    assert clip.shape == (1, 3, 4, 16, 16)
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    assert convert("vidm", "--file", tmp_path / "other.pth", "--preset", "clevrer", "--out", tmp_path / "no") == 2
    assert "not a VIDM checkpoint" in capsys.readouterr().err
    assert convert("vidm", "--preset", "clevrer", "--out", tmp_path / "no") == 2
    assert "--file is needed" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.parametrize("layout", ["mmediting", "sniklaus"])
def test_spynet(tmp_path, layout, capsys):
    network = SpyNet(layout)
    state = spynet_state(network, layout)
    # mmediting's file has no mean and std, which are buffers that came later
    torch.save({k: v for k, v in state.items() if k not in ("mean", "std")}, tmp_path / "spynet.pth")
    assert convert("spynet", "--file", tmp_path / "spynet.pth", "--out", tmp_path / "out") == 0
    assert "1,440,300" in capsys.readouterr().out
    model = vgen.load(tmp_path / "out")
    a, b = torch.rand(2, 1, 3, 40, 36) * 2 - 1
    torch.testing.assert_close(model(a, b), network((a + 1) / 2, (b + 1) / 2))
    other = SpyNet()
    for place in (tmp_path / "spynet.pth", tmp_path / "out"):
        read_spynet(other, str(place))
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in other.state_dict().items())
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    assert convert("spynet", "--file", tmp_path / "other.pth", "--out", tmp_path / "no") == 2
    assert "not those of a SpyNet" in capsys.readouterr().err


OPTIONS = ["--size", 8, "--model_channels", 8, "--channel_mult", "[1,2]", "--attn_resolutions", "[4]"]
FORMS = {
    "ncsnpp": {},
    "ddpmpp": {"noise_embedding": "positional", "taps": None, "encoder": "standard"},
}


@torch.no_grad()
@pytest.mark.parametrize(("kind", "sde"), [("ncsnpp", "ve"), ("ddpmpp", "vp"), ("ddpmpp", "subvp")])
def test_score_sde(tmp_path, kind, sde, capsys):
    """{optimizer, model, ema: {decay, num_updates, shadow_params}, step}."""
    raw, averaged = (taught(ScoreUNet(**(SMALL | FORMS[kind]))) for _ in range(2))
    if kind == "ncsnpp":
        averaged.map_noise.frequencies.copy_(raw.map_noise.frequencies)
    states = [score_sde_state(each) for each in (raw, averaged)]
    trained = [v for k, v in states[1].items() if not k.endswith(("sigmas", "all_modules.0.W"))]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": trained}
    torch.save({"optimizer": {}, "model": states[0], "ema": ema, "step": 12}, tmp_path / "checkpoint_1.pth")
    given = ["score_sde", "--file", tmp_path / "checkpoint_1.pth", "--network", kind, "--sde", sde, *OPTIONS]
    assert convert(*given, "--out", tmp_path / "out") == 0
    assert "1 blocks a level" in capsys.readouterr().out
    model = vgen.load(tmp_path / "out")
    exploding = sde == "ve"
    wrapped = ScoreNetwork(averaged, centered=not exploding, scale_by_sigma=exploding)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.7])
    torch.testing.assert_close(model.output(x, t), wrapped(x, model.diffusion.label(t)))
    assert model.sample(n=2, options={"steps": 3}).shape == (2, 3, 1, 8, 8)
    ema["shadow_params"] = trained[1:]
    torch.save({"optimizer": {}, "model": states[0], "ema": ema, "step": 12}, tmp_path / "checkpoint_1.pth")
    assert convert(*given, "--out", tmp_path / "no") == 2
    assert "not in the order" in capsys.readouterr().err
    assert convert(*given, "--averaged", "false", "--out", tmp_path / "raw") == 0
    wrapped.unet = raw
    torch.testing.assert_close(vgen.load(tmp_path / "raw").output(x, t), wrapped(x, model.diffusion.label(t)))


def edm_pickle(path, state, **facts):
    """As EDM's `persistence` writes networks: source code beside the object's state, nested for every module."""
    modules = {
        name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }

    class EasyDict(dict):
        pass

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the file's code is not to be run")

    class Persistent:
        def __init__(self, attributes):
            self.attributes = attributes

        def __reduce__(self):
            meta = EasyDict(type="class", version=6, module_src="raise SystemExit", class_name="Net")
            meta["state"] = self.attributes
            return _reconstruct_persistent_obj, (meta,)

    for function, place in ((_reconstruct_persistent_obj, "torch_utils.persistence"), (EasyDict, "dnnlib.util")):
        function.__module__, function.__qualname__ = place, function.__name__
        setattr(modules[place], function.__name__, function)

    def nested(tensors):
        own = {k: v for k, v in tensors.items() if "." not in k}
        children = {}
        for key, value in tensors.items():
            if "." in key:
                # blocks of the encoder and decoder are named "16x16_block0": no dots
                first, _, rest = key.partition(".")
                children.setdefault(first, {})[rest] = value
        parameters = {k: torch.nn.Parameter(v) for k, v in own.items() if k not in ("resample_filter", "freqs")}
        buffers = {k: v for k, v in own.items() if k in ("resample_filter", "freqs")}
        return {
            "_parameters": parameters,
            "_buffers": buffers,
            "_modules": {k: Persistent(nested(v)) for k, v in children.items()},
        }

    network = Persistent(nested(state) | {"training": False, **facts})
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        path.write_bytes(pickle.dumps({"ema": network, "loss_fn": None, "dataset_kwargs": EasyDict(path="x")}))
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ncsnpp", "ddpmpp", "adm"])
def test_edm(tmp_path, kind, capsys):
    if kind == "adm":
        network = ADM(8, 3, None, 64, (1, 2), 1, (4,), label_dim=2)
    else:
        form = {"taps": (1, 1)} if kind == "ddpmpp" else {}
        network = ScoreUNet(**(SMALL | FORMS[kind] | form), augment_dim=9, label_dim=2)
    model = taught(Preconditioned(network))
    state = edm_state(network) | {"model.enc.4x4_down.conv0.resample_filter": torch.ones(1, 1, 2, 2) / 4}
    facts = {"img_resolution": 8, "img_channels": 3, "label_dim": 2, "sigma_data": 0.5}
    edm_pickle(tmp_path / "net.pkl", state, **facts)
    given = ["edm", "--file", tmp_path / "net.pkl", "--network", kind, "--channel_mult", "[1,2]"]
    assert convert(*given, "--attn_resolutions", "[4]", "--steps", 3, "--out", tmp_path / "out") == 0
    assert "8x8, 2 classes" in capsys.readouterr().out
    ours = vgen.load(tmp_path / "out")
    x, sigma, label = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 9.0]), torch.eye(2)
    torch.testing.assert_close(ours.network(x, sigma, label), model(x, sigma, label))
    assert ours.sample(n=1, label="1").shape == (1, 3, 1, 8, 8)


def test_edm_files_that_are_none(tmp_path, capsys):
    edm_pickle(tmp_path / "empty.pkl", {}, img_resolution=8, img_channels=3, label_dim=0)
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "empty.pkl").read_bytes()[:-30])
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1]))
    for name, message in (("empty", "not those of EDM"), ("cut", "damaged"), ("list", "no `ema`"), ("no", "no such")):
        given = ["edm", "--file", tmp_path / f"{name}.pkl", "--network", "adm"]
        assert convert(*given, "--out", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
