"""What people may ask a model for, and what they are told when they ask for something else."""

import numpy as np
import pytest
import torch
from PIL import Image

from vgen.errors import UserError
from vgen.training import SamplesClips, VideoModule
from vgen.video import ClipSpec, Samples

SPEC = ClipSpec(4, 6, 8, class_names=("left", "right"), condition_keys=("label",))


class Recorder(SamplesClips, VideoModule):
    """Returns noise; keeps what it was asked for."""

    def __init__(self, clip_spec=SPEC):
        super().__init__(clip_spec)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def generate(self, conditions, n, frames, seeds, options):
        self.asked = (conditions, n, frames, seeds, options, self.training, torch.is_grad_enabled())
        return torch.zeros(n, 3, frames, self.clip_spec.height, self.clip_spec.width)


@pytest.fixture
def model():
    return Recorder()


def test_it_is_a_sampler(model):
    assert isinstance(model, Samples)


def test_defaults(model):
    assert model.sample().shape == (1, 3, 4, 6, 8)
    conditions, n, frames, seeds, options, training, gradients = model.asked
    assert (conditions, n, frames, seeds, options) == ({}, 1, 4, [0], {})
    assert not training and not gradients and model.training
    model.eval().sample()
    assert not model.training


def test_seeds_and_frames(model):
    assert model.sample(n=3, frames=9, seeds=[7, 8, 9], options={"steps": 2}).shape[2] == 9
    assert model.asked[3:5] == ([7, 8, 9], {"steps": 2})
    model.sample(n=3)
    assert model.asked[3] == [0, 1, 2]


@pytest.mark.parametrize(
    "label, indices", [("right", [1, 1]), (0, [0, 0]), (["left", "right"], [0, 1]), ([1, 0], [1, 0])]
)
def test_labels(model, label, indices):
    model.sample(n=2, label=label)
    assert model.asked[0]["label"].tolist() == indices
    assert model.asked[0]["text"] == [SPEC.class_names[i] for i in indices]


def test_texts(model):
    model.sample(n=2, text="a wave")
    assert model.asked[0] == {"text": ["a wave", "a wave"]}
    model.sample(n=2, text=["a", "b"])
    assert model.asked[0]["text"] == ["a", "b"]


def test_images_of_all_kinds(model, tmp_path):
    pixels = np.zeros((6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    kinds = [tmp_path / "face.png", str(tmp_path / "face.png"), Image.fromarray(pixels), pixels, -torch.ones(3, 6, 8)]
    for image in kinds:
        model.sample(n=2, image=image)
        assert model.asked[0]["image"].shape == (2, 3, 6, 8) and (model.asked[0]["image"] == -1).all()
    model.sample(n=2, image=[pixels, pixels + 255])
    assert model.asked[0]["image"].flatten(1).mean(1).tolist() == [-1, 1]


@pytest.mark.parametrize(
    "asked, what",
    [
        ({"n": 2, "seeds": [1]}, "1 seeds for 2 clips"),
        ({"label": "rihgt"}, "'rihgt' is not a class"),
        ({"label": 2}, "label 2 is out of range"),
        ({"n": 3, "label": ["left", "right"]}, "2 "),
        ({"n": 3, "text": ["a"]}, "'text' has 1 entries for 3 clips"),
        ({"n": 3, "conditions": {"label": torch.zeros(2)}}, "'label' has 2 entries for 3 clips"),
        ({"image": "nowhere.png"}, "no such picture"),
    ],
)
def test_mistakes(model, asked, what):
    with pytest.raises(UserError, match=what):
        model.sample(**asked)


def test_a_close_class_is_named(model):
    with pytest.raises(UserError) as error:
        model.sample(label="rihgt")
    assert "right" in str(error.value.hint)


def test_a_model_without_classes():
    with pytest.raises(UserError, match="no class names"):
        Recorder(ClipSpec(4, 6, 8)).sample(label="left")


def test_an_exception_leaves_the_mode_as_it_was(model):
    model.generate = lambda *a: (_ for _ in ()).throw(RuntimeError("broken"))
    with pytest.raises(RuntimeError):
        model.sample()
    assert model.training
