"""The faster 3x3 convolution beside torch's own."""

import pytest
import torch
import torch.nn.functional as F

from vgen.losses.perceptual import FrozenVGG19
from vgen.nn import winograd


@pytest.mark.parametrize("shape", [(1, 128, 8, 8), (2, 130, 6, 14), (3, 5, 2, 4)])
def test_outputs_and_gradients_are_those_of_torch(shape):
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    weight, bias = torch.randn(7, shape[1], 3, 3) / shape[1] ** 0.5, torch.randn(7)
    expected = F.conv2d(x, weight, bias, padding=1)
    gradient = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found = winograd.WinogradConv2d.apply(x, winograd.transformed(weight), bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found, x, gradient)[0], wanted, rtol=1e-5, atol=1e-5)


def test_where_it_is_used():
    weight = torch.zeros(256, 128, 3, 3)
    assert winograd.pays(torch.zeros(1, 128, 8, 8), weight)
    assert not winograd.pays(torch.zeros(1, 128, 8, 9), weight), "sides have to be even"
    assert not winograd.pays(torch.zeros(1, 128, 4, 8), weight), "few pixels"
    assert not winograd.pays(torch.zeros(1, 128, 8, 8), weight[:128]), "few channels"
    assert not winograd.pays(torch.zeros(1, 128, 8, 8, dtype=torch.float64), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(torch.zeros(1, 128, 8, 8), weight)


def test_vgg_has_the_features_and_gradients_of_plain_convolutions(monkeypatch):
    network = FrozenVGG19(random_init=True)
    image = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = network(image)
    (gradient,) = torch.autograd.grad(sum(feature.square().mean() for feature in found), image)
    assert network._transformed, "the faster form was used"
    monkeypatch.setattr(winograd, "pays", lambda x, weight: False)
    expected = network(image)
    (wanted,) = torch.autograd.grad(sum(feature.square().mean() for feature in expected), image)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
