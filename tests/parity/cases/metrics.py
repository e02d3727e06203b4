"""Cases of the metrics: distances, scores of frames, and the detectors with the weights of their recipes."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase as fits

import numpy as np
import torch
from torch import Tensor, nn

from parity.registry import Vector, case
from vgen.metrics import frames
from vgen.metrics.detectors import c3d, i3d, recipe
from vgen.metrics.detectors.videomae import VisionTransformer
from vgen.metrics.distribution import ConditionalFVD
from vgen.metrics.features import Features
from vgen.metrics.frechet import frechet_distance, gaussian, tfgan_frechet_distance
from vgen.metrics.inception_score import inception_score
from vgen.metrics.kernel import kernel_inception_distance, polynomial_mmd
from vgen.metrics.perceptual import LPIPSDistance


def pair(*values: Tensor | float) -> Tensor:
    return torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in values])


# ---- formulas --------------------------------------------------------------------------------------------------------


@case("metrics", "frechet_kernel")
def frechet_kernel(vector):
    inputs, out = vector.tensors("in"), {}
    for name in vector.tensors("out"):
        suffix = "_small" if "rankdef" in name else ""
        fake, real = (inputs[f"feats_{side}{suffix}"] for side in ("gen", "real"))
        if name.startswith("fvd"):
            out[name] = frechet(name, fake, real)
        elif name.startswith("kvd"):
            out[name] = polynomial_mmd(fake, real)
        else:
            out[name] = kid(name, vector.sidecar["outputs"][name], fake, real)
    return out


def frechet(name: str, fake: Tensor, real: Tensor) -> Tensor:
    if "tfgan" in name:
        dtype = torch.float32 if name.endswith("fp32") else torch.float64
        return tfgan_frechet_distance(fake.to(dtype), real.to(dtype))
    # square roots of a singular product by sqrtm are those of the exact form to the digits that sqrtm has
    covariance = "biased" if "styleganv" in name or name.endswith("ddof0") else "unbiased"
    return frechet_distance(gaussian(fake, covariance), gaussian(real, covariance))


def kid(name: str, text: str, fake: Tensor, real: Tensor) -> Tensor:
    """By the words of the sidecar: number and size of the subsets, and seed; the factor is in the name."""
    subsets, most = re.search(r"(\d+) subsets of m ?= ?min\(N, ?(\d+)\)", text).groups()
    seed, factor = re.search(r"seed\((\d+)\)", text)[1], re.search(r"x(\d+)$", name)[1]
    return int(factor) * kernel_inception_distance(fake, real, int(subsets), int(most), int(seed))


@case("metrics", "inception_score")
def isv(vector):
    logits, out = vector.tensors("in")["logits"], {}
    for name in vector.tensors("out"):
        splits = int(re.search(r"splits(\d+)", name)[1])
        seed = re.search(r"seed(\d+)", name)
        dtype = torch.float32 if name.endswith("fp32") else torch.float64
        words = " ".join(text for key, text in vector.sidecar["outputs"].items() if key != "*" and fits(name, key))
        epsilon = re.search(r"eps ([\de.-]+)", words)
        out[name] = pair(
            *inception_score(
                logits.to(dtype), splits, int(seed[1]) if seed else None, float(epsilon[1]) if epsilon else 0.0
            )
        )
    return out


@case("metrics", "conditional_fvd")
def conditional_fvd(vector):
    inputs = vector.tensors("in")
    sides = [Features.of(inputs[f"feats_{side}"], inputs[f"label_{side}"]) for side in ("real", "gen")]
    metric = ConditionalFVD("label")
    mean = metric.score(*sides)
    overall = frechet_distance(*(gaussian(side.values) for side in reversed(sides)))
    return {"mean": mean, "per_class": pair(*metric.per_group.values()), "overall": overall}


@case("metrics", "psnr_ssim")
def psnr_ssim(vector):
    a, b = (vector.tensors("in")[f"video{i}_uint8"].transpose(1, 2).float() / 255 for i in (1, 2))
    psnr, ssim = frames.psnr(a, b), frames.ssim(a, b)
    out = {
        "psnr_per_frame": psnr,
        "psnr_mean": psnr.mean(),
        "psnr_std": psnr.std(correction=0),
        "psnr_per_clip_pvdm": frames.psnr(a, b, "clip"),
        "psnr_skimage_per_channel_range1": frames.psnr(a, b, "channel"),
        "ssim_per_frame": ssim,
        "ssim_mean": ssim.mean(),
    }
    for name in vector.tensors("out"):
        if match := re.fullmatch(r"ssim_skimage_uniform7_range(\d+)", name):
            out[name] = frames.ssim(a, b, "uniform", float(match[1]))
    return out


# ---- networks --------------------------------------------------------------------------------------------------------


def salt(vector: Vector) -> str:
    return vector.sidecar["weights"]["salt"]


class Recorder:
    """Keeps what modules give out, and compares it with the vector's `mid/` tensors."""

    def __init__(self, vector: Vector, correction: int) -> None:
        self.vector, self.correction = vector, correction
        self.kept: dict[str, Tensor] = {}

    def watch(self, name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, _inputs, output: self.kept.__setitem__(name, output))

    def check(self, tolerance: float) -> None:
        mids = self.vector.tensors("mid")
        names = sorted({key.split("/")[0] for key in mids})
        for name in names:
            value = self.kept[name]
            assert list(value.shape) == mids[f"{name}/shape"].tolist(), name
            whole = value.double()
            numbers = pair(whole.mean(), whole.std(correction=self.correction), whole.abs().max())
            self.close(f"{name}/mean_std_absmax", numbers, tolerance)
            part = value[0, :: max(1, value.shape[1] // 8)][:8, value.shape[2] // 2, value.shape[3] // 2]
            self.close(f"{name}/slice", part, tolerance)

    def close(self, name: str, ours: Tensor, tolerance: float) -> None:
        theirs = self.vector.tensors("mid")[name].double()
        difference = float((ours.double() - theirs).abs().max())
        assert difference <= tolerance * (1 + float(theirs.abs().max())), f"mid/{name}: {difference:.2e}"


@case("metrics", "i3d")
@torch.no_grad()
def i3d_network(vector):
    arguments = vector.constructor
    network = i3d.InceptionI3d(arguments["num_classes"], arguments["in_channels"]).eval()
    network.load_state_dict(recipe.batch_norm_network(network.state_dict(), salt(vector)))
    state = network.state_dict()
    assert sum(value.numel() for value in network.parameters()) == vector.sidecar["parameters"]
    values = [state[key].double() for key in vector.sidecar["key_order"]]
    sums = torch.stack([pair(value.sum(), value.abs().sum()) for value in values])
    assert torch.allclose(sums, vector.tensors("check")["param_sums"], rtol=1e-6, atol=1e-6)
    pixels = vector.tensors("in")["video_uint8_bthwc"].permute(0, 4, 1, 2, 3).float()
    recorder, pooled, out = Recorder(vector, correction=1), {}, {}
    for name, layer in network.named_children():
        if name != "logits":
            recorder.watch(name, layer)
    for name in ["logits_stretch_eps1e-3", *vector.tensors("out")]:
        if match := re.fullmatch(r"pre_(\w+)_slice", name):
            out[name] = i3d.prepare(pixels, match[1])[:, :, 0, ::32, ::32]
            continue
        kind, spatial, epsilon = re.fullmatch(r"(logits|pool1024)_(stretch|crop|tmean)_eps([\de.-]+)", name).groups()
        key = ("stretch" if spatial == "tmean" else spatial, epsilon)
        if key not in pooled:
            set_epsilon(network, float(epsilon))
            pooled[key] = network.pooled(i3d.prepare(pixels, key[0]))
            if len(pooled) == 1:  # the vector holds what each layer gave with the first of these settings
                recorder.check(2e-5)
        found = network.logits(pooled[key]) if kind == "logits" else pooled[key]
        out[name] = found.mean((2, 3, 4))
    return out


def set_epsilon(network: nn.Module, epsilon: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = epsilon


@case("metrics", "c3d_ucf101")
@torch.no_grad()
def c3d_network(vector):
    arguments = vector.constructor
    with torch.device("meta"):  # no time for initial values that are replaced at once
        network = c3d.C3D(arguments["n_outputs"], arguments["n_channels"]).eval()
    arrays, mean = recipe.chainer_c3d(c3d.release_shapes(network), salt(vector))
    c3d.load_state(network, arrays, mean)
    assert sum(value.numel() for value in network.parameters()) == vector.sidecar["parameters"]
    for name, (shape, weights, biases) in vector.sidecar["weights"]["sums"].items():
        assert list(arrays[f"{name}/W"].shape) == shape
        found = [float(arrays[f"{name}/{kind}"].double().sum()) for kind in "Wb"]
        assert np.allclose(found, [weights, biases], rtol=1e-4, atol=1e-3), name
    recorder = Recorder(vector, correction=0)
    for name in ("pool1", "pool3", "pool5"):
        recorder.watch(name, network.get_submodule(name))
    prepared = network.prepare(vector.tensors("in")["video_uint8_bcthw"].float() / 127.5 - 1)
    recorder.kept["pre"] = prepared
    hidden = network.hidden(prepared)
    recorder.check(2e-5)
    logits = network.fc8(hidden)
    return {"fc7": hidden, "logits": logits, "prob": logits.softmax(1)}


@case("metrics", "lpips")
def lpips(vector):
    a, b = (vector.tensors("in")[f"video{i}_uint8"].transpose(1, 2).float() / 255 for i in (1, 2))
    out = {}
    for net, checks in vector.sidecar["weights"]["checksums"].items():
        distance = LPIPSDistance(net, random_init=True, salt=salt(vector))
        state = distance.network.state_dict()
        for key, expected in zip(checks["keys"], checks["sum"], strict=True):
            assert abs(float(state[key].double().sum()) - expected) < 1e-3, key
        for key, expected in checks["lin_sums"].items():
            assert abs(float(state[key].double().sum()) - expected) < 1e-4, key
        out[f"{net}_per_frame"] = distance(a, b)
        out[f"{net}_spatial_mean_per_frame"] = distance(a, b, "spatial")
        out[f"{net}_per_layer"] = distance.per_layer(*(video.transpose(1, 2).flatten(0, 1) for video in (a, b)))
    return out


@case("metrics", "videomaev2_small")
@torch.no_grad()
def videomae(vector):
    network = VisionTransformer(**dict(transformer_arguments(vector))).eval()
    network.load_state_dict(vector.tensors("param"))
    video = vector.tensors("in")["video"]
    mids, tokens = vector.tensors("mid"), network.tokens(video)
    placed = tokens + network.positions(tokens.shape[1] // (network.grid[1] * network.grid[2]))
    ours = {"patch_embed": tokens, "block0": network.blocks[0](placed)}
    for name, value in ours.items():
        stored = mids[name]
        # written without a contiguous copy: the bytes are in the order (B, D, N)
        scrambled = stored.reshape(stored.shape[0], stored.shape[2], stored.shape[1]).transpose(1, 2)
        assert min(float((value - each).abs().max()) for each in (stored, scrambled)) < 1e-5, name
    assert torch.equal(network.pos_embed, mids["pos_embed"])
    return {"features": network.features(video), "logits": network(video)}


def transformer_arguments(vector: Vector) -> Iterator[tuple[str, object]]:
    """Ours of the official constructor's: dropouts and the scale of the head's initial weights change no output."""
    inert = {"init_scale", "drop_rate", "attn_drop_rate", "drop_path_rate", "head_drop_rate", "with_cp", "pretrained"}
    for name, value in vector.constructor.items():
        if name == "norm_layer":
            epsilon = re.search(r"eps=([\de.-]+)", value)
            yield "norm_epsilon", float(epsilon[1]) if epsilon else 1e-5
        elif name not in inert:
            yield name, value
    if "norm_layer" not in vector.constructor:
        yield "norm_epsilon", 1e-5  # torch's own
