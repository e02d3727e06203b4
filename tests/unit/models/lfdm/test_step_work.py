"""A training step does the needed work once and never makes the host wait for the device."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_lfdm import FRAMES, SIDE, autoencoder, lfdm
from vgen.conditioning import LabelEmbedding

aten = torch.ops.aten
#: what reads a number on the host, or whose result has a size that only the device knows
WAITING = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim,
    aten._unique2, aten.linalg_svd, aten._linalg_svd, aten.linalg_inv_ex, aten.linalg_eigh, aten._linalg_eigh,
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Names of the operators that ran, and those among them that make the host wait."""

    def __init__(self):
        super().__init__()
        self.calls, self.waiting = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        self.calls.append((packet, args))
        masks = packet in (aten.index, aten.index_put_) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if packet in WAITING or masks:
            self.waiting.append(str(func))
        return func(*args, **(kwargs or {}))


def batch(frames):
    video = torch.rand(2, 3, frames, SIDE, SIDE) * 2 - 1
    return {"video": video, "label": torch.tensor([0, 1]), "text": ["calm", None]}


def two_stages(**changes):
    return lfdm(autoencoder(), **changes)


@pytest.mark.parametrize(
    "make, frames",
    [
        (autoencoder, 2),
        (two_stages, FRAMES),
        (lambda: two_stages(conditioner=LabelEmbedding(8), shared_noise=0.5), FRAMES),
    ],
    ids=["autoencoder", "diffusion", "diffusion with a learned label"],
)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_never_waits_for_the_device(make, frames, bf16):
    model, clips = make().train(), batch(frames)
    with Recorder() as recorder:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(clips)["loss"]
        loss.backward()
    assert len(recorder.calls) > 100
    assert not recorder.waiting


def test_the_recorder_sees_what_waits():
    x = torch.rand(3, 3)
    with Recorder() as recorder:
        bool(x[0, 0] > 0), x[x > 0.5], torch.linalg.inv(x)
    assert len(recorder.waiting) >= 3


def test_a_diffusion_step_decodes_nothing_and_encodes_the_picture_once(monkeypatch):
    model, clips = two_stages().train(), batch(FRAMES)
    network = model.autoencoder.network
    counts = {"encode": [], "regions": [], "flow": []}

    def count(owner, name, key):
        original = getattr(owner, name)

        def counted(first, *args, **kwargs):
            counts[key].append(len(first))
            return original(first, *args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(network.generator, "encode", "encode")
    count(network.region_predictor, "forward", "regions")
    count(network.flow_predictor, "forward", "flow")
    monkeypatch.setattr(network.generator, "decode", None)
    model.loss(clips)
    # z0 of two pictures; regions of the two pictures, then of all frames at once; all flows in one call
    assert counts == {"encode": [2], "regions": [2, 2 * FRAMES], "flow": [2]}


def test_the_static_features_are_convolved_once():
    model, clips = two_stages().train(), batch(FRAMES)
    with Recorder() as recorder:
        model.loss(clips)
    conv, side = model.denoiser.init_conv, SIDE // 4
    kernels = [args[:2] for packet, args in recorder.calls if packet is aten.convolution]
    first = {
        tuple(x.shape)
        for x, weight in kernels
        if (len(weight), *weight.shape[-2:]) == (conv.out_channels, 7, 7) and x.shape[-1] == side
    }
    assert first == {(2, 3, FRAMES, side, side), (2, model.denoiser.channels - 3, side, side)}


def test_position_bias_and_angles_are_computed_once_a_forward(monkeypatch):
    denoiser = two_stages().denoiser
    calls = []
    for part in (denoiser.time_rel_pos_bias, denoiser.rotary_emb):
        original = part.forward
        monkeypatch.setattr(part, "forward", lambda n, original=original: (calls.append(n), original(n))[1])
    x, fea = torch.randn(1, 3, FRAMES, 8, 8), torch.randn(1, 16, 8, 8)
    denoiser(x, torch.tensor([3]), torch.randn(1, 8), fea)
    assert calls == [FRAMES, FRAMES]
    denoiser.forward_with_guidance(x, torch.tensor([3]), torch.randn(1, 8), fea, scale=2.0)
    assert calls == [FRAMES] * 4
