import pytest
import torch

from vgen.errors import UserError
from vgen.models.videogpt import FAMILY, VQVAE, CodeTransformer
from vgen.models.videogpt.networks import BlockLayout, FrameResNet, strided_layout
from vgen.models.videogpt.networks.attention import CausalAttention, KeyValues
from vgen.models.videogpt.networks.vqvae import strides


def count(module):
    return sum(value.numel() for value in module.parameters())


@torch.no_grad()
def taught(network):
    for value in network.parameters():
        value.add_(0.1 * torch.randn_like(value))
    return network.eval()


def test_full_size_counts():
    with torch.device("meta"):
        vqvae = VQVAE()
        others = [VQVAE(downsample=factors) for factors in ((4, 2, 2), (2, 4, 4))]
        priors = {
            "prior, 8 layers": CodeTransformer(),
            "prior, 8 layers, 101 classes": CodeTransformer(class_conditional=True),
            "prior, 8 layers, one given frame (with its ResNet-34)": CodeTransformer(condition_frames=1),
            "prior, 16 layers": CodeTransformer(layers=16),
        }
        for prior in priors.values():
            prior.prepare((4, 32, 32), 2048, 256, 101)
    assert {"VQ-VAE": count(vqvae)} | {name: count(prior) for name, prior in priors.items()} == FAMILY.parameters
    assert all(count(other) == count(vqvae) for other in others)
    encoder = [vqvae.down, vqvae.down_last, vqvae.encoder_blocks]
    decoder = [vqvae.up, vqvae.decoder_blocks]
    assert sum(map(count, encoder)) == 11_286_960 and sum(map(count, decoder)) == 9_731_283
    assert sum(b.numel() for b in vqvae.codebook.buffers()) - 1 == 1_050_624
    given = priors["prior, 8 layers, one given frame (with its ResNet-34)"]
    assert count(given.resnet) == count(FrameResNet()) == 33_890_144
    assert count(given.condition_positions) == 2_640
    assert count(given) - 33_890_144 - 2_640 == 38_579_136


def test_strides():
    assert strides((2, 4, 4)) == [(2, 2, 2), (1, 2, 2)] and strides((2, 2, 2)) == [(2, 2, 2)]
    for wrong in ((3, 4, 4), (1, 1, 1), (0, 2, 2)):
        with pytest.raises(UserError):
            strides(wrong)


@torch.no_grad()
@pytest.mark.parametrize("downsample", [(2, 2, 2), (4, 2, 2), (1, 2, 4)])
def test_sizes_of_the_vqvae(downsample):
    """Factors of 2 alone too, for which the release fails."""
    network = VQVAE(8, 6, 12, 1, downsample).eval()
    video = torch.rand(1, 3, 4, 8, 16) - 0.5
    made, quantised = network(video)
    assert made.shape == video.shape and quantised.codes.shape[1:] == network.grid(4, 8, 16)
    assert torch.equal(network.codes_of(video), quantised.codes)
    torch.testing.assert_close(network.from_codes(quantised.codes), made, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="divided"):
        network.grid(4, 8, 15)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 4, 6), (2, 3, 3)])
def test_attention_by_blocks_is_attention_under_their_mask(shape):
    length, block, local = shape[0] * shape[1] * shape[2], 8, 2
    layout = BlockLayout(shape, block, local)
    wide = strided_layout(shape, block, local).repeat_interleave(block, 0).repeat_interleave(block, 1)
    mask = wide[:length, :length] & torch.ones(length, length, dtype=torch.bool).tril()
    q, k, v = torch.randn(3, 2, 3, length, 4)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(layout.attend(q, k, v), expected)
    for position in range(length):
        assert torch.equal(layout.keys_of(position, q.device), mask[position].nonzero()[:, 0])
    attention, x = CausalAttention(12, 3, 2, 0.3).eval(), torch.randn(2, length, 12)
    for each in (layout, None):
        cache = KeyValues(length)
        one_by_one = [
            attention.step(x[:, p : p + 1], p, cache, None if each is None else each.keys_of(p, x.device))
            for p in range(length)
        ]
        torch.testing.assert_close(torch.cat(one_by_one, 1), attention(x, each))


def prior(attention, classes=0, given=0):
    network = CodeTransformer(
        24, 2, 2, attention=attention, block=8, local_blocks=1, class_conditional=bool(classes),
        condition_frames=given, condition_widths=(4, 4, 8, 12),
    )  # fmt: skip
    network.prepare((2, 4, 6), 10, 5, classes, 3, (8, 12))
    return taught(network)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["full", "sparse"])
@pytest.mark.parametrize(("classes", "given"), [(0, 0), (3, 0), (0, 2), (3, 1)])
def test_kept_keys_and_values_change_nothing(attention, classes, given):
    network, vectors = prior(attention, classes, given), torch.randn(2, 2, 4, 6, 5)
    label = torch.tensor([0, 2]) if classes else None
    frames = torch.rand(2, 3, given, 8, 12) - 0.5 if given else None
    whole = network(vectors, label, frames).flatten(1, 3)
    for cached in (True, False):
        steps, found = network.steps(2, label, frames, cached), []
        for place, logits in enumerate(steps):
            found.append(logits)
            steps.put(vectors.flatten(1, 3)[:, place])
        torch.testing.assert_close(torch.stack(found, 1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["full", "sparse"])
def test_a_code_sees_those_before_it_alone(attention):
    network, vectors = prior(attention), torch.randn(1, 2, 4, 6, 5, requires_grad=True)
    network(vectors)[0, 1, 1].sum().backward()  # the last of these is number 35
    reached = vectors.grad.abs().sum(-1).flatten() > 0
    assert not reached[35:].any() and reached[34]
    assert bool(reached[:8].any()) and (attention == "sparse" or reached[:35].all())


def test_gradients_with_recomputation_are_the_same():
    gradients, vectors = [], torch.randn(2, 2, 4, 6, 5)
    network = prior("full", 3)
    network.dropout, label = 0.0, torch.tensor([1, 2])
    for block in network.blocks:
        block.dropout.p = block.attention.dropout = 0.0
    network.train()
    for network.checkpointing in (False, True):
        network.zero_grad()
        network(vectors, label).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    torch.testing.assert_close(*gradients)


def test_what_does_not_fit():
    with pytest.raises(UserError, match="heads"):
        CodeTransformer(10, 3)
    with pytest.raises(UserError, match="axes"):
        CodeTransformer(8, 2).prepare((2, 2, 2), 4, 4)
    with pytest.raises(UserError, match="no classes"):
        CodeTransformer(class_conditional=True).prepare((2, 2, 2), 4, 4)
    with pytest.raises(UserError, match="quarter"):
        CodeTransformer(12, 2, 1, condition_frames=1).prepare((2, 2, 2), 4, 4, size=(10, 8))
