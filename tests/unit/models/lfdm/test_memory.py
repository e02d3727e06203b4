"""Less memory by a flag: the same numbers, names and statistics."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_lfdm import FRAMES, SIDE, autoencoder, lfae, spec
from vgen.errors import UserError
from vgen.losses import VGGPyramid
from vgen.models.lfdm import LatentFlowAutoencoder, Unet3D


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that a forward pass keeps for its backward pass, each storage once."""

    def __init__(self):
        self.storages = {}

        def pack(tensor):
            self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    @property
    def bytes(self):
        return sum(self.storages.values())


def unet(checkpointing):
    torch.manual_seed(0)
    return Unet3D(
        8, 5, dim_mults=(1, 2), channels=7, attn_heads=2, resnet_groups=4, checkpointing=checkpointing
    ).train()


def unet_loss(network):
    torch.manual_seed(1)
    x, fea = torch.randn(2, 3, FRAMES, 16, 16), torch.randn(2, 4, 16, 16)
    return network(x, torch.tensor([5, 700]), torch.randn(2, 5), fea).square().mean()


def flow_autoencoder(checkpointing):
    torch.manual_seed(0)
    return lfae(checkpointing=checkpointing).train()


def lfae_loss(network):
    torch.manual_seed(1)
    out = network(*torch.rand(2, 2, 3, SIDE, SIDE))
    return out["prediction"].sub(0.3).square().mean() + out["driving_region_params"]["affine"].square().mean()


CASES = pytest.mark.parametrize("make, loss", [(unet, unet_loss), (flow_autoencoder, lfae_loss)], ids=["unet", "lfae"])


@CASES
def test_checkpointing_changes_no_number_and_no_name(make, loss):
    plain, saving = make(False), make(True)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    for _ in range(2):  # the second step also sees the BatchNorm statistics of the first
        losses = [loss(network) for network in (plain, saving)]
        assert torch.equal(*losses)
        for value in losses:
            value.backward()
    ours, theirs = ({n: p.grad for n, p in network.named_parameters()} for network in (saving, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if theirs[name] is not None)
    for name, value in plain.state_dict().items():  # running statistics and their counters were updated once
        assert torch.equal(value, saving.state_dict()[name]), name


@CASES
def test_checkpointing_keeps_less(make, loss):
    kept = []
    for checkpointing in (False, True):
        network = make(checkpointing)
        with (saved := Kept()):
            loss(network)
        kept.append(saved.bytes)
    assert kept[1] < 0.6 * kept[0]


def test_checkpointing_of_the_perceptual_loss():
    pictures = torch.rand(2, 1, 3, 32, 32)
    values, gradients, kept = [], [], []
    for checkpointing in (False, True):
        loss = VGGPyramid((1, 0.5), random_init=True, checkpointing=checkpointing)
        prediction = pictures[0].clone().requires_grad_()
        with (saved := Kept()):
            values.append(loss(prediction, pictures[1]))
        values[-1].backward()
        gradients.append(prediction.grad)
        kept.append(saved.bytes)
    assert torch.equal(*values) and torch.equal(*gradients)
    assert kept[1] < kept[0]


def test_nothing_is_recomputed_without_gradients():
    class Count(TorchDispatchMode):
        convolutions = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.convolutions += func.overloadpacket is torch.ops.aten.convolution
            return func(*args, **(kwargs or {}))

    counts = []
    for checkpointing in (False, True):
        with Count() as count, torch.no_grad():
            unet_loss(unet(checkpointing))
        counts.append(count.convolutions)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunked_decoding_gives_the_same_video(chunk):
    whole = autoencoder(spec(FRAMES)).eval()
    pieces = LatentFlowAutoencoder(spec(FRAMES), whole.network, None, decode_chunk=chunk).eval()
    video = torch.rand(2, 3, FRAMES, SIDE, SIDE) * 2 - 1
    with torch.no_grad():
        latent = whole.encode(video)
        expected, found = whole.decode(latent), pieces.decode(latent)
    # a convolution may add in another order for another number of frames
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_chunked_decoding_decodes_so_many_frames_at_once(monkeypatch):
    model = autoencoder(spec(FRAMES), decode_chunk=2).eval()
    sizes = []
    original = model.network.generator.decode
    monkeypatch.setattr(model.network.generator, "decode", lambda *a: (sizes.append(len(a[0])), original(*a))[1])
    with torch.no_grad():
        model.reconstruct({"video": torch.rand(1, 3, FRAMES, SIDE, SIDE)})
    assert sizes == [2, 2, 1]
    with pytest.raises(UserError, match="at least one frame"):
        autoencoder(decode_chunk=0)
