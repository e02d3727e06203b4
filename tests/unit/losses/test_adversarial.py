"""Adversarial losses and LPIPS against their formulas."""

import math

import pytest
import torch

from vgen.errors import UserError
from vgen.losses import LPIPS, adaptive_weight, discriminator_loss, feature_matching


def test_hinge_and_logistic_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([[-3.0], [0.0]])
    assert float(discriminator_loss(real, fake)) == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1) / 2) / 2)
    said = sum(math.log1p(math.exp(-x)) for x in (2.0, 0.5, -1.0)) / 3
    said += sum(math.log1p(math.exp(x)) for x in (-3.0, 0.0)) / 2
    assert float(discriminator_loss(real, fake, "vanilla")) == pytest.approx(said / 2)


def test_feature_matching_sums_layers_and_spares_the_real_ones():
    found = [torch.zeros(2, 3, requires_grad=True), torch.ones(1, 4, requires_grad=True)]
    wanted = [torch.full((2, 3), 2.0, requires_grad=True), torch.zeros(1, 4, requires_grad=True)]
    loss = feature_matching(found, wanted)
    loss.backward()
    assert loss == 3.0 and found[0].grad is not None and wanted[0].grad is None


def test_lpips_is_a_distance_that_teaches():
    torch.manual_seed(0)
    loss = LPIPS(random_init=True)
    assert not loss.train().training and not any(p.requires_grad for p in loss.parameters())
    target = torch.rand(2, 3, 32, 32) * 2 - 1
    picture = (target + 0.2 * torch.randn_like(target)).requires_grad_()
    assert loss(target, target) == 0
    near, far = loss(picture, target), loss(target.flip(0), target)
    assert 0 < near < far
    near.backward()
    assert picture.grad.abs().sum() > 0
    grey = target[:, :1]
    torch.testing.assert_close(loss(grey, -grey), loss(grey.expand(-1, 3, -1, -1), -grey.expand(-1, 3, -1, -1)))


def test_lpips_takes_torchvisions_file(tmp_path):
    plain = LPIPS(random_init=True)
    names = {key: key.split(".", 2)[2] for key in plain.network.state_dict() if key.startswith("net.")}
    state = {f"features.{name}": plain.network.state_dict()[key] * 2 for key, name in names.items()}
    torch.save(state, tmp_path / "vgg16.pth")
    loss = LPIPS(str(tmp_path / "vgg16.pth"))
    assert torch.equal(loss.network.net.slice1[0].weight, plain.network.net.slice1[0].weight * 2)


def test_lpips_without_its_weights_says_where_they_belong(tmp_path):
    with pytest.raises(UserError, match="VGG16 weights for LPIPS are not at") as error:
        LPIPS(str(tmp_path / "none.pth"))
    assert "vgg16-397923af.pth" in str(error.value.hint) and "perceptual: null" in str(error.value.hint)


def test_the_adaptive_weight_balances_gradients_at_a_layer():
    layer, x = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.tensor([3.0, 4.0])
    loss, judgement = (layer * x).sum() * 2, (layer * x).sum() / 10  # gradients of norms 10 and 0.5
    weight = adaptive_weight(loss, judgement, layer, 1e4)
    assert float(weight) == pytest.approx(10 / 0.5, rel=1e-3) and not weight.requires_grad
    assert adaptive_weight(loss, judgement, layer, 7.0) == 7
    (loss + weight * judgement).backward()
    torch.testing.assert_close(layer.grad, 4 * x, rtol=1e-3, atol=0)
