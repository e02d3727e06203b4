"""The networks, their files, and what is said where one is missing or another."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.tiny_detector import moving_clips
from vgen.errors import UserError
from vgen.metrics.detectors import c3d, i3d, opening, recipe, registry, status
from vgen.metrics.detectors.base import Identity, state_hash
from vgen.metrics.detectors.flow import FlowEstimator
from vgen.metrics.detectors.image import ClipDetector, FrameDetector, normalised
from vgen.metrics.detectors.motion import Dynamics, Flickering, Smoothness
from vgen.metrics.detectors.opening import open_detector, open_flow, random_detector
from vgen.metrics.detectors.videomae import GIANT, VideoMAEDetector, VisionTransformer, sine_table
from vgen.weights.torchscript import is_torchscript, read_torchscript


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VGEN_DETECTORS", str(tmp_path / "detectors"))
    (tmp_path / "detectors").mkdir()
    return tmp_path / "detectors"


@pytest.fixture(scope="module")
def random_i3d():
    return random_detector("i3d", batch=1)


def parameters(network):
    return sum(value.numel() for value in network.parameters())


# ---- networks --------------------------------------------------------------------------------------------------------


def test_sizes_of_the_published_networks():
    with torch.device("meta"):
        inception, conv, giant = i3d.InceptionI3d(), c3d.C3D(), VisionTransformer(**GIANT)
    statistics = sum(value.numel() for key, value in inception.named_buffers() if "running" in key)
    assert (parameters(inception), statistics) == (12_697_264, 14_560)
    assert parameters(conv) == 78_409_573
    assert parameters(giant) == 1_011_855_918 and giant.fc_norm.normalized_shape == (1408,)


def test_padding_is_that_of_tensorflow():
    for size, kernel, stride in ((7, 3, 2), (8, 3, 2), (8, 7, 2), (9, 2, 2), (5, 1, 1)):
        x = torch.arange(1.0, size + 1).view(1, 1, size, 1, 1)
        padded = i3d.pad_same(x, (kernel, 1, 1), (stride, 1, 1)).flatten()
        assert (len(padded) - kernel) // stride + 1 == -(-size // stride)
        front = int((padded != 0).nonzero()[0])
        assert front == (len(padded) - size) // 2  # the odd one goes last


def test_i3d_takes_nine_frames_and_the_shortest_side_decides_the_crop(random_i3d):
    assert random_i3d.identity.kind == "random" and random_i3d.identity.settings["epsilon"] == 1e-3
    with torch.no_grad():
        assert random_i3d(moving_clips(1, frames=9, side=20)).shape == (1, 400)
    with pytest.raises(UserError, match="at least 9"):
        random_i3d(moving_clips(1, frames=8))
    pixels = moving_clips(1, frames=2, side=30).float()[..., :20]
    assert i3d.prepare(pixels, "stretch").shape == i3d.prepare(pixels, "crop").shape == (1, 3, 2, 224, 224)
    square = moving_clips(1, frames=2, side=30).float()
    assert torch.equal(i3d.prepare(square, "stretch"), i3d.prepare(square, "crop"))
    tall = F.interpolate(pixels[:, :, 0], (336, 224), mode="bilinear")[:, :, 56:280] / 127.5 - 1
    assert torch.allclose(i3d.prepare(pixels, "crop")[:, :, 0], tall)


def test_recipes_depend_on_name_and_salt_alone():
    a = recipe.uniform("x", (4, 3))
    assert torch.equal(a, recipe.uniform("x", (4, 3))) and not torch.equal(a, recipe.uniform("x", (4, 3), "s"))
    assert -1 <= float(a.min()) < 0 < float(a.max()) < 1
    with pytest.raises(UserError, match="for i3d and c3d"):
        random_detector("clip")


def test_a_transformer_of_longer_clips_stretches_its_positions():
    network = VisionTransformer(28, 14, embed_dim=8, depth=1, num_heads=2, num_classes=3, qkv_bias=True)
    assert torch.equal(network.positions(8), network.pos_embed) and network.positions(64).shape == (1, 256, 8)
    assert torch.equal(network.pos_embed, sine_table(32, 8))
    # the two ends of the table keep their places
    longer = network.positions(16).unflatten(1, (16, 4))
    assert torch.allclose(longer[:, 0], network.pos_embed.unflatten(1, (8, 4))[:, 0], atol=0.02)
    detector = VideoMAEDetector(network, Identity("videomae", "small", ""), batch=2)
    assert detector(moving_clips(3, frames=16)).shape == (3, 8) and detector(moving_clips(1, frames=32)).shape == (1, 8)
    scaled = VisionTransformer(28, 14, embed_dim=8, depth=1, num_heads=2, init_values=0.1, use_mean_pooling=False)
    assert scaled(torch.rand(1, 3, 16, 28, 28)).shape == (1, 1000)


class Means(FrameDetector):
    def __init__(self):
        super().__init__(Identity("means", "small", ""), batch=2)
        self.eval()

    def frames(self, pixels):
        return pixels.mean((2, 3))


def test_frames_keep_their_places():
    clips = moving_clips(3, frames=4)
    assert torch.allclose(Means()(clips), clips.float().mean((3, 4)).transpose(1, 2))
    wide = normalised(torch.full((1, 3, 20, 40), 255.0), 10, ((0.5,) * 3, (0.5,) * 3))
    assert wide.shape == (1, 3, 10, 10) and torch.allclose(wide, torch.ones_like(wide))


class Shift(nn.Module):
    """A flow network that always says the same, in the pixels it was given."""

    def forward(self, a, b):
        assert a.shape[-1] % 8 == 0 and a.shape[-1] >= 128
        flow = torch.zeros(len(a), 2, *a.shape[-2:])
        flow[:, 0] = 3.0 * a.shape[-1] / 20
        return [flow * 0, flow]


def test_flow_is_in_pixels_of_the_clip_and_moves_the_scores():
    estimator = FlowEstimator(Shift(), Identity("raft", "small", ""), pairs=2)
    clips = moving_clips(2, frames=5, side=20)
    flow = estimator(clips, step=2)
    assert flow.shape == (2, 2, 3, 20, 20)
    assert torch.allclose(flow[:, 0], torch.full_like(flow[:, 0], 3.0)) and float(flow[:, 1].abs().max()) == 0
    assert Dynamics(estimator)(clips).tolist() == [[1.0], [1.0]]  # 3 > 6 * 20 / 256
    assert Dynamics(estimator, fps=80)(clips).tolist() == [[0.0], [0.0]]  # a single frame is left
    assert Smoothness(estimator)(clips).shape == (2, 1) and 0 < float(Smoothness(estimator)(clips).min()) < 1
    assert Flickering()(clips[:, :, :1].expand(-1, -1, 3, -1, -1)).tolist() == [[1.0], [1.0]]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_i3d_of_the_pytorch_ports(folder, random_i3d):
    state = {k: v for k, v in random_i3d.network.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = folder / "i3d_pretrained_400.pt"
    torch.save(state, path)
    opened = open_detector("i3d", epsilon=1e-5, spatial="crop")
    assert state_hash(opened.network) == state_hash(random_i3d.network)
    assert opened.identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened.identity.settings == {"epsilon": 1e-5, "spatial": "crop", "layer": "logits"}
    assert opened.network.Mixed_5c.b3b.bn.eps == 1e-5
    with pytest.raises(UserError, match="has SHA-256"):
        open_detector("i3d", sha256="0" * 64)
    del state["logits.conv3d.bias"]
    torch.save(state, path)
    with pytest.raises(UserError, match="no I3D of Kinetics-400"):
        open_detector("i3d")
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"no I3D of the known layout.*but weight"):
        open_detector("i3d")


class Scripted(nn.Module):
    """StyleGAN-V's interface around a network that is never run here."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x, rescale: bool = True, resize: bool = True, return_features: bool = True):
        if resize:
            x = x[:, :, :, :4, :4]
        if rescale:
            x = 2 * x.float() / 255 - 1
        x = x.mean(4).flatten(1)
        return x if return_features else x.softmax(1)


def holder(state):
    """Modules that hold a state under its names, and no code."""
    root = nn.Module()
    for key, value in state.items():
        module = root
        for name in key.split(".")[:-1]:
            if not hasattr(module, name):
                module.add_module(name, nn.Module())
            module = module.get_submodule(name)
        module.register_buffer(key.rpartition(".")[2], value)
    return root


def test_the_tensors_of_a_torchscript_are_taken_and_its_code_is_not_run(folder, random_i3d, monkeypatch):
    path = folder / "i3d_torchscript.pt"
    torch.jit.script(Scripted(holder(random_i3d.network.state_dict()))).save(str(path))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the script was loaded"))
    assert is_torchscript(path)
    opened = open_detector("i3d")
    assert state_hash(opened.network) == state_hash(random_i3d.network)
    assert opened.identity.settings["epsilon"] == 1e-3
    with pytest.raises(UserError, match="name the file and its SHA-256"):
        open_detector("i3d", script="run")


def test_a_torchscript_runs_where_a_person_vouches_for_it(tmp_path):
    path = tmp_path / "any_name.pt"
    torch.jit.script(Scripted(nn.Linear(1, 1))).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    opened = open_detector("i3d", path, sha256=digest, script="run")
    clips = moving_clips(2, frames=9)
    expected = (2 * clips.float() / 255 - 1)[:, :, :, :4, :4].mean(4).flatten(1)
    assert torch.allclose(opened(clips), expected) and opened.identity.settings["run"] == "script"
    with pytest.raises(UserError, match="no I3D of the known layout"):
        open_detector("i3d", path, sha256=digest)


def test_a_torchscript_that_says_more_than_tensors_stays_words(tmp_path):
    path, marker = tmp_path / "evil.pt", tmp_path / "ran"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("evil/code/__torch__.py", "")
        # calls os.system, if anything would unpickle it for real
        archive.writestr("evil/data.pkl", f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    assert read_torchscript(path) == {} and not marker.exists()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="no TorchScript file"):
        read_torchscript(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_torchscript(tmp_path / "none.pt")


def test_halves_and_shared_storages_of_a_torchscript(tmp_path):
    module = nn.Module()
    base = torch.arange(12.0).view(3, 4)
    module.register_buffer("whole", base)
    module.register_buffer("turned", base.T)
    module.register_buffer("row", base[1])
    module.register_buffer("narrow", base.half())
    torch.jit.script(Scripted(module)).save(str(tmp_path / "m.pt"))
    read = read_torchscript(tmp_path / "m.pt")
    for name in ("whole", "turned", "row", "narrow"):
        assert torch.equal(read[f"network.{name}"], getattr(module, name)), name


def test_files_that_are_no_c3d(folder, monkeypatch):
    # the release's layers at their places, but narrow: the full-size network is a parity vector
    monkeypatch.setattr(c3d, "_CONVOLUTIONS", {f"conv{i}": (8, 8) for i in ("2a", "3a", "3b", "4a", "4b", "5a", "5b")})
    monkeypatch.setitem(c3d._CONVOLUTIONS, "conv1a", (None, 8))
    with torch.device("meta"):
        network = c3d.C3D(num_classes=101)
    shapes = {name: shape for name, shape in c3d.release_shapes(network).items() if not name.startswith("fc")}
    path = folder / "conv3d_deepnetA_ucf.npz"
    np.savez(path, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    with pytest.raises(UserError, match=r"needs mean2\.npz beside"):
        open_detector("c3d")
    np.savez(folder / "mean2.npz", mean=np.zeros((1, 3, 16, 100, 128), np.float32))
    with pytest.raises(UserError, match=r"no mean clip .* but mean \(1, 3, 16, 100, 128\)"):
        open_detector("c3d")
    np.savez(folder / "mean2.npz", mean=np.zeros((1, 3, 16, 128, 171), np.float32))
    with pytest.raises(UserError, match="no C3D of UCF-101"):
        open_detector("c3d")
    np.savez(path, objects=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"cannot be read as an \.npz of arrays"):
        open_detector("c3d")


@pytest.mark.slow
def test_c3d_of_the_chainer_release(folder):
    """Writes and reads 300 MB."""
    expected = random_detector("c3d", batch=1)
    arrays, mean = recipe.chainer_c3d(c3d.release_shapes(expected.network))
    np.savez(folder / "conv3d_deepnetA_ucf.npz", **{name: value.numpy() for name, value in arrays.items()})
    np.savez(folder / "mean2.npz", mean=mean.numpy())
    opened = open_detector("c3d", batch=1)
    assert state_hash(opened.network) == state_hash(expected.network)
    assert (opened.identity.kind, expected.identity.kind) == ("published", "random")
    assert len(opened.identity.settings["mean_sha256"]) == 64
    assert opened(moving_clips(1, frames=16)).shape == (1, 101)
    with pytest.raises(UserError, match="at most 16"):
        opened(moving_clips(1, frames=17))


def test_c3d_pools_reach_the_last_row_and_the_mean_is_cut_out():
    with torch.device("meta"):
        network = c3d.C3D()
    x = torch.rand(1, 3, 16, 7, 7)
    assert network.pool5(x).shape == (1, 3, 8, 4, 4)  # an even pool would leave 3
    mean = torch.arange(128.0).view(1, 1, 1, 128).expand(3, 16, 128, 128)
    small = c3d.C3D.__new__(c3d.C3D)
    nn.Module.__init__(small)
    small.register_buffer("mean", torch.empty(3, 16, 112, 112))
    c3d.load_state(small, {}, mean)
    video = torch.zeros(1, 3, 16, 8, 8)
    video[:, 0] = 1  # red, which is last in BGR
    prepared = small.prepare(video)
    assert torch.equal(prepared[0, 2, 0, 0], 256 - torch.arange(8.0, 120)) and prepared.shape[-1] == 112
    assert torch.equal(prepared[0, 0, 0, 0], 128 - torch.arange(8.0, 120))


def test_models_of_transformers_from_local_folders(folder):
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**tiny, "image_size": 16, "patch_size": 8}
    text = {**tiny, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder / "clip-vit-base-patch32")
    clips = moving_clips(2, frames=3, side=20)
    opened = open_detector("clip", batch=2)
    assert opened.tokenizer is None and opened.identity.kind == "published" and len(opened.identity.sha256) == 64
    seen = normalised(
        clips[:, :, 1].float(), 16, ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=seen).pooler_output)
    assert opened(clips).shape == (2, 3, 6) and torch.allclose(opened(clips)[:, 1], expected, atol=1e-6)
    dino = ViTModel(ViTConfig(**vision), add_pooling_layer=False)
    dino.save_pretrained(folder / "dino-vitb16")
    assert open_detector("dino", batch=2)(clips).shape == (2, 3, 16)
    (folder / "dino-vitb16" / "config.json").write_text("{")
    with pytest.raises(UserError, match="transformers cannot open it"):
        open_detector("dino")


class Words:
    """A tokenizer of letters."""

    def __call__(self, prompts, **settings):
        assert settings == {"padding": "max_length", "truncation": True, "max_length": 8, "return_tensors": "pt"}
        rows = torch.zeros(len(prompts), 8, dtype=torch.int64)
        for row, prompt in zip(rows, prompts, strict=True):
            row[: len(prompt)] = torch.tensor([ord(letter) - 96 for letter in prompt])
            row[len(prompt)] = 19
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


def test_prompts_are_embedded_one_by_one(folder):
    from transformers import CLIPConfig, CLIPModel

    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**tiny, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19}
    config = CLIPConfig(text_config=text, vision_config={**tiny, "image_size": 16, "patch_size": 8}, projection_dim=6)
    detector = ClipDetector(CLIPModel(config), Words(), Identity("clip", "small", ""))
    together = detector.text(["abc", "b"], batch=1)
    assert together.shape == (2, 6) and torch.allclose(detector.text(["b"]), together[1:], atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_videomae_of_the_release(folder, monkeypatch):
    small = {**GIANT, "img_size": 28, "embed_dim": 16, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(opening, "GIANT", small)
    network = VisionTransformer(**small)
    path = folder / "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
    halves = {key: value.half() for key, value in network.state_dict().items()}
    network.load_state_dict(halves)
    torch.save({"module": halves}, path)
    opened = open_detector("videomae", batch=2)
    assert state_hash(opened.network) == state_hash(network)
    assert torch.equal(opened.network.pos_embed, sine_table(32, 16))
    clips = moving_clips(2, frames=16, side=28)
    with torch.no_grad():
        assert torch.allclose(opened(clips), network.features(clips.float() / 255), atol=1e-5)
    torch.save({"module": {"head.weight": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match="no VideoMAE-v2 ViT-g"):
        open_detector("videomae")


def test_raft_of_torchvision(tmp_path):
    from torchvision.models.optical_flow import raft_large

    torch.save(raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    estimator = open_flow(tmp_path / "raft.pth")
    assert estimator.identity.sha256 == hashlib.sha256((tmp_path / "raft.pth").read_bytes()).hexdigest()
    assert estimator(moving_clips(1, frames=2, side=20)).shape == (1, 2, 1, 20, 20)
    torch.save({}, tmp_path / "raft.pth")
    with pytest.raises(UserError, match="no RAFT large"):
        open_flow(tmp_path / "raft.pth")


# ---- what is there ---------------------------------------------------------------------------------------------------


def test_status_says_where_each_belongs(folder):
    found = {entry.card.name: entry for entry in status()}
    assert set(found) == set(registry.CARDS) and all(entry.path is None for entry in found.values())
    for entry in found.values():
        assert entry.text.startswith(("missing, belongs at", "needs the package")) and entry.card.source in entry.text
    (folder / "i3d_pretrained_400.pt").touch()
    (folder / "clip-vit-base-patch32").mkdir()
    found = {entry.card.name: entry for entry in status()}
    assert found["i3d"].text == str(folder / "i3d_pretrained_400.pt") and found["clip"].path is not None


def test_files_are_looked_for_where_libraries_put_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    path = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match="damaged") as raised:  # found, but its name promises another hash
        registry.find("lpips_vgg")
    assert raised.value.where == str(path)
    monkeypatch.delenv("VGEN_DETECTORS")
    assert registry.folder() == Path("~/.cache/vgen/detectors").expanduser()


@pytest.mark.parametrize("name", ["i3d", "c3d", "videomae", "clip", "dino"])
def test_a_missing_file_names_itself_and_its_source(name, folder):
    with pytest.raises(UserError, match="is missing") as raised:
        open_detector(name)
    card = registry.card(name)
    assert card.files[0] in raised.value.what and card.source in raised.value.hint
    assert raised.value.where == str(folder / card.files[0])


def test_names_and_packages(monkeypatch):
    with pytest.raises(UserError, match="no detector of clips 'i3b'") as raised:
        open_detector("i3b")
    assert "i3d" in raised.value.hint
    with pytest.raises(UserError, match="no detector 'rafd'"):
        registry.find("rafd")
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package torch_fidelity"):
        open_detector("inception")
    with pytest.raises(UserError, match="RAFT large, optical flow is missing"):
        open_flow()
