import pytest
import torch

from vgen.errors import UserError
from vgen.losses import (
    FrozenVGG19,
    ImagePyramid,
    L1Pyramid,
    RandomTransform,
    TransformConfig,
    VGGPyramid,
    equivariance_affine,
    equivariance_shift,
    logit_penalty,
)


def transform(batch=2, **changes):
    return RandomTransform.draw(batch, TransformConfig(**changes))


def test_transform_follows_the_global_seed():
    torch.manual_seed(3)
    first = transform()
    torch.manual_seed(3)
    assert torch.equal(first.theta, transform().theta)
    assert not torch.equal(first.theta, transform().theta)


@pytest.mark.parametrize("sigma_tps", [0.0, 0.01])
def test_closed_form_jacobian_is_autograd(sigma_tps):
    drawn, coordinates = transform(sigma_tps=sigma_tps), torch.rand(2, 5, 2).mul(2).sub(1).requires_grad_()
    moved = drawn.warp_coordinates(coordinates)
    rows = [torch.autograd.grad(moved[..., i].sum(), coordinates, retain_graph=True)[0] for i in range(2)]
    torch.testing.assert_close(drawn.jacobian(coordinates), torch.stack(rows, dim=-2))


def test_losses_vanish_for_an_equivariant_predictor():
    drawn = transform(sigma_tps=0.0)
    seen = torch.rand(2, 4, 2) - 0.5
    affine = torch.randn(2, 4, 2, 2) + 2 * torch.eye(2)
    driving = drawn.jacobian(seen) @ affine
    assert equivariance_shift(drawn.warp_coordinates(seen), drawn, seen) == 0
    assert equivariance_affine(driving, drawn, seen, affine) < 1e-5
    assert equivariance_affine(-driving, drawn, seen, affine) < 1e-5
    assert equivariance_affine(-driving, drawn, seen, affine, revert_axis_swap=False) > 0.5


def test_identity_transform_keeps_the_middle_of_a_frame():
    frame = torch.linspace(0, 1, 33)[None, None, None].expand(1, 3, 33, 33)
    kept = RandomTransform(torch.eye(2, 3)[None]).transform_frame(frame)
    torch.testing.assert_close(kept[..., 16], frame[..., 16])


def test_l1_pyramid_sums_levels():
    pyramid, a, b = ImagePyramid((1, 0.5)), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    expected = sum((x - y).abs().mean() for x, y in zip(pyramid(a), pyramid(b), strict=True))
    torch.testing.assert_close(L1Pyramid((1, 0.5), weight=10)(a, b), 10 * expected)
    assert not L1Pyramid().state_dict()


def test_missing_vgg_names_file_and_source():
    with pytest.raises(UserError) as error:
        VGGPyramid(weights="/nowhere/vgg19.pth")
    assert "/nowhere/vgg19.pth" in str(error.value)
    assert "download.pytorch.org" in str(error.value)
    with pytest.raises(UserError, match="VGG19"):
        VGGPyramid()  # the hub cache of the tests is empty


@pytest.fixture(scope="module")
def vgg_loss():
    return VGGPyramid(scales=(1, 0.5), random_init=True)


def test_vgg_is_frozen_and_not_stored(vgg_loss):
    assert not list(vgg_loss.parameters())
    assert not vgg_loss.state_dict()
    numbers = sum(b.numel() for name, b in vgg_loss.vgg.named_buffers() if name not in ("mean", "std"))
    assert numbers == 12_944_960


def test_vgg_equals_torchvision(vgg_loss, tmp_path):
    from torchvision.models import vgg19

    with torch.device("meta"):
        features = vgg19().features[:30]
    from vgen.losses.perceptual import _random_state

    state = _random_state()
    features = features.to_empty(device="cpu")
    features.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    torch.save(state, tmp_path / "vgg.pth")
    ours, x = FrozenVGG19(str(tmp_path / "vgg.pth")), torch.rand(1, 3, 32, 32)
    y, taps = (x - ours.mean) / ours.std, []
    for index, layer in enumerate(features.eval()):
        y = layer(y)
        if index in (1, 6, 11, 20, 29):
            taps.append(y.detach().clone())
    for mine, theirs in zip(ours(x), taps, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_vgg_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for weights, place, where in (
        (str(tmp_path / "own.pth"), tmp_path / "own.pth", "perceptual.weights"),
        (None, tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth", "torch's hub cache (vgg19-dcbb9e9d.pth)"),
    ):
        with pytest.raises(UserError) as error:
            FrozenVGG19(weights)
        assert error.value.what == f"VGG19 weights for the perceptual loss are not at {place}"
        assert error.value.where == where
        assert error.value.hint == (
            "download https://download.pytorch.org/models/vgg19-dcbb9e9d.pth to that place; or use an L1Pyramid, "
            "or write out `random_init: true`"
        )


def test_vgg_loss_leads_to_the_target(vgg_loss):
    target = torch.rand(1, 3, 32, 32)
    prediction = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert vgg_loss(target, target) == 0
    vgg_loss(prediction, target).backward()
    assert prediction.grad.abs().sum() > 0
    with pytest.raises(UserError, match="too small"):
        vgg_loss(target[..., :16, :16], target[..., :16, :16])


def test_logit_penalty():
    assert logit_penalty(torch.tensor([-3.0, 0.0, 3.0])) == 0
    assert logit_penalty(torch.tensor([5.0])) == 4
