import copy

import pytest
import torch
from torch import nn

from vgen.errors import UserError
from vgen.models.svg import FAMILY, SVGNetwork
from vgen.models.svg.networks import Decoder, Encoder, FrameNorm
from vgen.video import ClipSpec


def count(module):
    return sum(value.numel() for value in module.parameters())


def network(backbone, prior, side, channels, latent, **sizes):
    made = SVGNetwork(backbone, prior, latent_dim=latent, **sizes)
    made.prepare(ClipSpec(3, side, side, channels))
    return made


def test_full_size_counts():
    with torch.device("meta"):
        encoders, decoders = (
            {
                (kind, side, channels): count(part(kind, side, channels, 64, 128))
                for kind, side, channels in (
                    ("dcgan", 64, 1), ("vgg", 64, 3), ("vgg", 64, 1), ("vgg", 128, 1), ("dcgan", 128, 1),
                )
            }
            for part in (Encoder, Decoder)
        )  # fmt: skip
        wholes = {
            "SVG-LP of Moving MNIST (dcgan 64)": network("dcgan", "learned", 64, 1, 10),
            "SVG-FP of KTH (vgg 64)": network("vgg", "fixed", 64, 1, 24),
            "SVG-LP of BAIR (vgg 64)": network("vgg", "learned", 64, 3, 64),
            "SVG-LP of KTH (vgg 128)": network("vgg", "learned", 128, 1, 24),
        }
    assert list(encoders.values()) == [3_805_376, 8_689_600, 8_688_448, 15_770_944, 8_001_216]
    assert list(decoders.values()) == [6_558_529, 11_822_659, 11_821_505, 21_263_297, 14_948_673]
    assert {name: count(whole) for name, whole in wholes.items()} == FAMILY.parameters
    for name, latent, lstm, gaussian in (
        ("SVG-LP of Moving MNIST (dcgan 64)", 10, 1_121_152, 564_500),
        ("SVG-LP of KTH (vgg 128)", 24, 1_124_736, 571_696),
        ("SVG-LP of BAIR (vgg 64)", 64, 1_134_976, 592_256),
    ):
        assert wholes[name].latent_dim == latent
        assert (count(wholes[name].frame_predictor), count(wholes[name].posterior)) == (lstm, gaussian)
        assert count(wholes[name].prior) == gaussian


@pytest.mark.parametrize("calls", ["once", "twice"])
def test_all_frames_at_once_are_one_call_for_each(calls):
    x = torch.randn(3, 5, 4, 6, 6, dtype=torch.double)
    norm = FrameNorm(4, calls).double()
    reference = nn.BatchNorm2d(4).double()
    reference.load_state_dict(norm.state_dict())
    given, single = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = norm(given)
    expected = torch.stack([reference(frame) for frame in single.unbind(1)], 1)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward(), expected.square().sum().backward()
    torch.testing.assert_close(given.grad, single.grad)
    torch.testing.assert_close(norm.weight.grad, reference.weight.grad)
    if calls == "twice":  # as SVG-LP's release calls its encoder: frame t-1, then frame t
        reference.load_state_dict({**norm.state_dict(), **nn.BatchNorm2d(4).double().state_dict()})
        for t in range(1, 5):
            reference(x[:, t - 1]), reference(x[:, t])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(norm, name), getattr(reference, name))


def test_all_frames_together_are_one_batch():
    x = torch.randn(3, 5, 4, 6, 6, dtype=torch.double)
    norm, reference = FrameNorm(4, "together").double(), nn.BatchNorm2d(4).double()
    reference.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x).flatten(0, 1), reference(x.flatten(0, 1)))
    torch.testing.assert_close(norm.running_var, reference.running_var)
    norm.eval(), reference.eval()
    torch.testing.assert_close(norm(x).flatten(0, 1), reference(x.flatten(0, 1)))
    made = network("vgg", "learned", 16, 1, 3, frame_dim=6, width=2, rnn_size=8, normalise="clip")
    assert {part.calls for part in made.modules() if isinstance(part, FrameNorm)} == {"together"}


def test_statistics_of_evaluation():
    x, norm = torch.randn(3, 2, 4, 6, 6) * 3 + 1, FrameNorm(4).eval()
    before = copy.deepcopy(norm.state_dict())
    plain = norm(x)
    norm.statistics = "batch"
    own = norm(x)
    assert (own.mean((0, 3, 4)) - norm.bias).abs().max() < 1e-5 and (plain - own).abs().max() > 0.5
    torch.testing.assert_close(norm(x[:, :1]), own[:, :1])
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("prior", ["fixed", "learned", "none"])
@pytest.mark.parametrize("shared_from", [None, 1])
def test_frame_by_frame_is_the_whole_clip(prior, shared_from):
    """With the real frames fed back, steps of the release's order give what the fused pass gives."""
    model = network("vgg", prior, 16, 1, 3, frame_dim=6, width=2, rnn_size=8).double().eval()
    for value in model.parameters():
        nn.init.normal_(value, 0.1, 0.2)
    video, noise = torch.rand(2, 5, 1, 16, 16).double(), torch.randn(2, 4, model.latent_dim).double()
    whole = model(video, noise, shared_from)
    past = 3
    state = model.begin(video[:, :past], noise[:, : past - 1], shared_from)
    for t in range(past, 5):
        # the posterior's latent takes the place of the prior's draw
        wanted = torch.cat([whole.mean, noise * torch.exp(0.5 * whole.log_variance)], 2)[:, t - 1]
        latent = wanted[:, : model.latent_dim] + wanted[:, model.latent_dim :]
        if prior == "learned":
            mean, log_variance = whole.prior_mean[:, t - 1], whole.prior_log_variance[:, t - 1]
            latent = (latent - mean) / torch.exp(0.5 * log_variance)
        frame, state = model.step({**state, "frame": video[:, t - 1]}, latent)
        torch.testing.assert_close(frame, whole.frames[:, t - 1])


def test_no_latent_has_no_divergence():
    model = network("dcgan", "none", 16, 1, 3, frame_dim=6, width=2, rnn_size=8)
    made = model(torch.rand(2, 3, 1, 16, 16), torch.zeros(2, 2, 0), None)
    assert made.mean.shape == made.prior_mean.shape == (2, 2, 0) and model.posterior is None
    assert (
        count(model.frame_predictor) < count(network("dcgan", "fixed", 16, 1, 3, frame_dim=6, rnn_size=8).posterior) * 9
    )


@pytest.mark.parametrize(("height", "width"), [(64, 32), (48, 48), (4, 4)])
def test_sizes_that_do_not_fit(height, width):
    with pytest.raises(UserError, match=r"square|pixels a side"):
        SVGNetwork().prepare(ClipSpec(4, height, width))
