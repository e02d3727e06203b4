import pytest
import torch

from vgen.diffusion import Ancestral, ClipNoise, GaussianDiffusion, LossWeighting, Picard, RespacedDDPM
from vgen.diffusion.noise import ConditionNoise
from vgen.errors import UserError
from vgen.models.vidm import ContentGenerator, FlowModel, Layout, MotionGenerator, VIDMContent, VIDMMotion
from vgen.nn.flow import SpyNet
from vgen.video import ClipSpec
from vgen.weights import Handoff
from vgen.weights.checkpoint import build_model, describe_model, read_model_file
from vgen.weights.export import Export, write_export

LAYOUT = Layout(32, 1, (2,), (1, 2), num_head_channels=16, video_timesteps=8)
SPEC = ClipSpec(4, 16, 16)
OPTIONS = {"steps": 2}


@torch.no_grad()
def taught(module):
    """As after some training: nothing is zero any more."""
    for value in module.parameters():
        if value.abs().max() == 0:
            value.normal_(std=0.05)
    return module


def motion(**arguments):
    given = {"network": MotionGenerator(LAYOUT, flow=SpyNet()), "sampler": Ancestral(4)} | arguments
    return taught(VIDMMotion(SPEC, **given))


def content(**arguments):
    network = ContentGenerator(LAYOUT, size=(16, 16))
    return taught(VIDMContent(SPEC, network, sampler=Ancestral(4), **arguments))


def batch(n=3):
    return {"video": torch.rand(n, 3, 4, 16, 16) * 2 - 1}


@pytest.mark.parametrize("make", [motion, content])
def test_losses_reach_every_weight(make):
    charbonnier = GaussianDiffusion("linear", loss_type="charbonnier", variance="learned_range")
    released = GaussianDiffusion("linear", variance="learned_range", weighting=LossWeighting("p2", gamma=1.0))
    for process in (charbonnier, released):
        model = make(diffusion=process)
        terms = model.loss(batch())
        assert set(terms) == {"loss", "distance", "vlb"}
        torch.testing.assert_close(terms["loss"], terms["distance"] + terms["vlb"])
        terms["loss"].backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_frames_that_are_trained(monkeypatch):
    """All but the first; the released script also leaves out the last."""
    for released, allowed in ((False, {1, 2, 3}), (True, {1, 2})):
        model, seen = motion(released=released), set()
        forward = model.network.forward

        def noted(x, t, n, first, flow, forward=forward, seen=seen):
            seen.update(n.tolist())
            return forward(x, t, n, first, flow)

        monkeypatch.setattr(model.network, "forward", noted)
        for _ in range(2):
            model.loss(batch(16))
        assert seen == allowed


def test_previous_frame_is_the_true_one_and_may_be_noisy(monkeypatch):
    model, given = motion(previous_noise=ConditionNoise(mean=0.0, std=0.0)), []
    monkeypatch.setattr(model.network, "motion", lambda first, previous: given.append(previous) or None)
    monkeypatch.setattr(model.network, "forward", lambda x, *rest: torch.cat((x, x), 1))
    data = batch(64)
    for mode in (True, False):
        model.train(mode)
        model.loss(data)
    frames = data["video"].transpose(1, 2).flatten(0, 1)
    clean = torch.stack([(frames - one).flatten(1).abs().amax(1).min() for one in given[1]])
    assert clean.max() == 0
    nearest = torch.stack([(frames - one).flatten(1).square().mean(1).min() for one in given[0]])
    assert 0.8 < nearest.mean() < 1.2


def test_a_clip_begins_with_its_picture_and_does_not_depend_on_its_batch():
    model, images = motion(), torch.rand(2, 3, 16, 16) * 2 - 1
    both = model.sample({"image": images}, 2, seeds=[5, 6], options=OPTIONS)
    assert both.shape == (2, 3, 4, 16, 16)
    assert torch.equal(both[:, :, 0], images)
    alone = model.sample({"image": images[1:]}, 1, seeds=[6], options=OPTIONS)
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=1e-3)  # rounding grows from frame to frame
    other = model.sample({"image": images[1:]}, 1, seeds=[7], options=OPTIONS)
    assert not torch.allclose(other[:, :, 1], alone[:, :, 1])
    longer = model.sample({"image": images[1:]}, 1, frames=6, seeds=[6], options=OPTIONS)
    torch.testing.assert_close(longer[:, :, :4], alone)
    anew = motion(released=True)
    anew.load_state_dict(model.state_dict())
    clip = anew.sample({"image": images}, 2, seeds=[5, 6], options=OPTIONS)
    assert clip.shape == both.shape and not torch.equal(clip[:, :, 0], images)


def test_parallel_sampling_of_a_frame():
    model, images = motion(), torch.rand(2, 3, 16, 16) * 2 - 1
    samplers = (RespacedDDPM(4), Picard(RespacedDDPM(4), window=3, tolerance=0.0))
    clips = [model.sample({"image": images}, 2, 2, seeds=[5, 6], options={"sampler": one}) for one in samplers]
    torch.testing.assert_close(*clips, atol=1e-3, rtol=1e-3)
    first = content()
    frames = [first.sample(n=2, seeds=[5, 6], options={"sampler": one}) for one in samplers]
    torch.testing.assert_close(*frames, atol=1e-3, rtol=1e-3)


def test_the_flow_is_estimated_once_for_a_frame(monkeypatch):
    model, calls = motion(), []
    forward = model.network.flow.forward
    monkeypatch.setattr(model.network.flow, "forward", lambda a, b: calls.append(1) or forward(a, b))
    model.sample({"image": torch.zeros(1, 3, 16, 16)}, 1, options={"steps": 5})
    assert len(calls) == 3


def test_the_content_generator_is_a_companion(tmp_path, monkeypatch):
    first = content()
    (tmp_path / "content").mkdir()
    header = {**describe_model(first, SPEC, None), "stage": "content", "clips": 0}
    write_export(Export(header, first.state_dict()), tmp_path / "content")
    model = motion(content=Handoff(str(tmp_path / "content")))
    assert not [name for name in model.state_dict() if not name.startswith("network.")]
    clip = model.sample(n=2, seeds=[3, 4], options=OPTIONS)
    torch.testing.assert_close(clip[:, :, 0], first.sample(n=2, seeds=[3, 4])[:, :, 0])
    drawn, taken = [], first.sampler.calls(first.diffusion) + 1
    noise = ClipNoise.__call__
    monkeypatch.setattr(ClipNoise, "__call__", lambda self, *args: drawn.append(noise(self, *args)) or drawn[-1])
    model.sample(n=1, seeds=[3], options={"steps": 2})  # the content generator takes more steps than a frame of motion
    assert len(drawn) > taken and len({each.sum().item() for each in drawn}) == len(drawn), "all noise is drawn once"
    with pytest.raises(UserError, match="begins with a first frame"):
        motion().sample(n=1)
    wrong = motion(content=Handoff(str(tmp_path / "content")))
    wrong.content._network = FlowModel(SPEC, SpyNet())
    with pytest.raises(UserError, match="FlowModel, not VIDMContent"):
        wrong.sample(n=1)


def test_content_clips_are_still():
    clip = content().sample(n=2, options=OPTIONS)
    assert clip.shape == (2, 3, 4, 16, 16) and torch.equal(clip[:, :, 0], clip[:, :, 3])
    assert not torch.equal(clip[0], clip[1])


def test_flow_weights_and_freezing(tmp_path):
    network = SpyNet()
    torch.save(network.state_dict(), tmp_path / "flow.pth")
    model = motion(flow_weights=str(tmp_path / "flow.pth"), freeze_flow=True)
    assert torch.equal(model.network.flow.levels[0].convs[0].weight, network.levels[0].convs[0].weight)
    assert not any(value.requires_grad for value in model.network.flow.parameters())
    model.loss(batch())["loss"].backward()
    (tmp_path / "out").mkdir()
    write_export(
        Export({**describe_model(model, SPEC, None), "stage": "motion", "clips": 0}, model.state_dict()),
        tmp_path / "out",
    )
    (tmp_path / "flow.pth").unlink()
    again = build_model(read_model_file(tmp_path / "out"))  # the file is needed for training alone
    assert torch.equal(again.network.flow.levels[0].convs[0].weight, network.levels[0].convs[0].weight)
    with pytest.raises(UserError, match="no such SpyNet weights"):
        motion(flow_weights=str(tmp_path / "flow.pth"))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="needs 6 output channels"):
        motion(network=MotionGenerator(LAYOUT, learned_variance=False))
    with pytest.raises(UserError, match="counts to 8"):
        VIDMMotion(ClipSpec(9, 16, 16), MotionGenerator(LAYOUT))
    with pytest.raises(UserError, match="not 9"):
        motion().sample({"image": torch.zeros(1, 3, 16, 16)}, 1, frames=9)
    with pytest.raises(UserError, match="no frame to learn"):
        VIDMMotion(ClipSpec(1, 16, 16), MotionGenerator(LAYOUT))
    with pytest.raises(UserError, match="constant is 16x16"):
        VIDMContent(ClipSpec(4, 32, 32), ContentGenerator(LAYOUT, size=(16, 16)))
    with pytest.raises(NotImplementedError):
        FlowModel(SPEC, SpyNet()).training_step({}, 0)
