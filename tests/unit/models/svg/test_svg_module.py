import pytest
import torch

from vgen.errors import UserError
from vgen.models.svg import SVG, SVGNetwork
from vgen.video import ClipSpec, Samples, Streams

SPEC = ClipSpec(6, 16, 16, 1)


@torch.no_grad()
def model(prior="learned", backbone="dcgan", **arguments):
    network = SVGNetwork(backbone, prior, 6, 3, 2, 8)
    made = SVG(SPEC, network, **({"past_frames": 3} | arguments))
    for value in made.parameters():
        value.add_(0.2 * torch.randn_like(value))
    return made.eval()


def batch(n=3):
    return {"video": torch.rand(n, 1, 6, 16, 16) * 2 - 1}


@pytest.mark.parametrize("prior", ["learned", "fixed", "none"])
def test_losses_reach_every_weight(prior):
    made = model(prior).train()
    terms = made.loss(batch())
    torch.testing.assert_close(terms["loss"], terms["mse"] + 1e-4 * terms["kl"])
    terms["loss"].backward()
    assert all(value.grad is not None for value in made.parameters())
    assert (float(terms["kl"]) == 0) == (prior == "none")


@pytest.mark.parametrize("prior", ["learned", "fixed", "none"])
@pytest.mark.parametrize("options", [{}, {"posterior": "mean", "last": True}], ids=["shared features", "own features"])
def test_a_clip_depends_on_its_seed_and_past_alone(prior, options):
    made = model(prior, last_frame_skip=bool(options.get("last")), posterior=options.get("posterior", "sample"))
    video = batch()["video"]
    conditions = made.conditions({"video": video})
    whole = made.sample(conditions, 3, seeds=[1, 2, 3])
    assert whole.shape == video.shape and torch.equal(whole[:, :, :3], video[:, :, :3])
    alone = made.sample({"video": video[2:, :, :3]}, 1, seeds=[3])
    torch.testing.assert_close(alone[0], whole[2])
    other = made.sample({"video": video[2:, :, :3]}, 1, seeds=[4])
    assert torch.equal(other, alone) == (prior == "none")


@pytest.mark.parametrize("prior", ["learned", "fixed"])
def test_any_horizon_in_pieces_that_go_on(prior):
    made, frames = model(prior), 15
    given = made.conditions(batch(2))
    whole = made.sample(given, 2, frames=frames, seeds=[1, 2])
    state, pieces = {}, []
    for number, piece in enumerate(made.stream(given, 2, frames, [1, 2], state=state)):
        pieces.append(piece)
        if number == 1:
            break
    assert [piece.shape[2] for piece in pieces] == [6, 6]
    assert all(value.device.type == "cpu" for value in state.values())
    pieces += list(made.stream(given, 2, frames, [1, 2], state=state))
    assert torch.equal(torch.cat(pieces, 2), whole)
    shorter = made.sample(given, 2, frames=2, seeds=[1, 2])
    assert torch.equal(shorter, given["video"][:, :, :2])


def test_statistics_of_the_batch():
    """As the release samples SVG-LP: other clips of the batch show, and running statistics stay."""
    made, video = model(), batch(4)["video"]
    given = {"video": video[:, :, :3]}
    running = made.sample(given, 4)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    whole = made.sample(given, 4, options={"statistics": "batch"})
    assert not torch.allclose(whole, running)
    part = made.sample({"video": video[:2, :, :3]}, 2, options={"statistics": "batch"})
    assert not torch.allclose(part, whole[:2])
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    torch.testing.assert_close(made.sample(given, 4), running)
    with pytest.raises(UserError, match="one clip"):
        made.sample({"video": video[:1, :, :3]}, 1, options={"statistics": "batch"})


def test_what_does_not_fit():
    for past, skip in ((1, False), (6, False), (0, True)):
        with pytest.raises(UserError):
            SVG(SPEC, SVGNetwork(width=2), past, last_frame_skip=skip)
    assert SVG(SPEC, SVGNetwork(width=2), 1, last_frame_skip=True).shared_from is None
    made = model()
    assert isinstance(made, Samples) and isinstance(made, Streams)
    with pytest.raises(UserError, match="past frames"):
        made.sample(n=1)
    with pytest.raises(UserError, match="past frames"):
        made.sample({"video": torch.zeros(1, 1, 2, 16, 16)}, 1)
    given = made.conditions(batch(1))
    for options in ({"statistic": "batch"}, {"statistics": "none"}, {"posterior": "mode"}):
        with pytest.raises(UserError):
            made.sample(given, 1, options=options)


def test_a_person_gives_a_clip():
    made, clip = model(), (torch.rand(1, 5, 16, 16) * 255).to(torch.uint8)
    found = made.sample(n=2, video=clip)
    expected = clip[:, -3:].float() / 127.5 - 1
    torch.testing.assert_close(found[:, :, :3], expected.expand(2, -1, -1, -1, -1))


@pytest.mark.slow
def test_it_learns_what_moves():
    """A bar that goes left or right, drawn for each clip: predictions beat a copied frame, the best draw a mean one."""
    from vgen.metrics.prediction import predict_and_score

    torch.manual_seed(0)

    def clips(n):
        # all begin in the middle and stand; from the third frame on they go one of two ways
        way = torch.randint(0, 2, (n,)) * 2 - 1
        places = 8 + way[:, None] * (torch.arange(6) - 1).clamp(min=0)
        rows = torch.arange(16)
        video = ((rows - places[:, :, None]).abs() < 2).float()[:, None, :, None].expand(-1, 1, -1, 16, -1)
        return video * 2 - 1

    made = SVG(SPEC, SVGNetwork("dcgan", "learned", 16, 4, 4, 32, normalise="clip"), 2).train()
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        made.loss({"video": clips(16)})["loss"].backward()
        optimizer.step()
    made.eval()
    found = predict_and_score(made, [{"video": clips(16)}], 2, 8)
    best, mean = found.best("psnr").mean(), found.drawn["psnr"].mean()
    assert best > found.copied["psnr"].mean() + 10 and best > mean + 5


@pytest.mark.parametrize("normalise", ["frame", "clip"])
def test_all_of_it_in_bf16(normalise):
    """precision: bf16-true; statistics stay fp32."""
    made = SVG(SPEC, SVGNetwork("dcgan", "learned", 6, 3, 2, 8, normalise=normalise), 3).to(torch.bfloat16)
    made.loss({"video": batch()["video"].bfloat16()})["loss"].backward()
    assert made.network.encoder.head.norm.running_mean.dtype == torch.float32
    for statistics in ("running", "batch"):
        clip = made.sample(n=2, video=batch(2)["video"], options={"statistics": statistics})
        assert clip.dtype == torch.bfloat16 and clip.isfinite().all()
