import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vgen.nn.antialias import AntiAliasDownsample, gaussian_kernel
from vgen.nn.attention import attend
from vgen.nn.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding, rotate
from vgen.nn.geometry import inverse_2x2, principal_axes
from vgen.nn.norm import ChannelLayerNorm
from vgen.nn.recompute import recompute
from vgen.nn.warp import coordinate_grid, resize_grid, warp


def covariances(count, spread=(1.0, 1.0), dtype=torch.float32):
    points = 0.1 * torch.randn(count, 2, 6, dtype=dtype) * torch.tensor(spread, dtype=dtype)[:, None]
    return points @ points.mT / 6


def test_grid_is_corner_aligned_with_x_first():
    grid = coordinate_grid(3, 5)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[0, 4].tolist() == [1, -1]
    assert grid[2, 0].tolist() == [-1, 1]


def test_identity_grid_zooms_as_the_trained_weights_expect():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    read = warp(ramp, coordinate_grid(32, 32)[None])
    assert read[0, 0, 16, 0] == pytest.approx(0.5 * ramp[0, 0, 0, 0].item(), abs=1e-5)  # darkened border
    assert (read[0, 0, 16, 1:-1] - ramp[0, 0, 16, 1:-1]).abs().max() < 0.5


def test_resize_grid_keeps_what_fits():
    grid = coordinate_grid(8, 8)[None]
    assert resize_grid(grid, (8, 8)) is grid
    assert resize_grid(grid, (16, 4)).shape == (1, 16, 4, 2)


@pytest.mark.parametrize(("scale", "side"), [(0.5, 5), (0.25, 13), (0.125, 29)])
def test_kernel_sides(scale, side):
    kernel = gaussian_kernel(scale)
    assert kernel.shape == (side, side)
    assert float(kernel.sum()) == pytest.approx(1)


def test_strided_downsampling_equals_filter_then_pick():
    image, down = torch.rand(2, 3, 33, 32), AntiAliasDownsample(3, 0.25)
    full = F.conv2d(image, down.weight, padding=6, groups=3)[:, :, ::4, ::4]
    torch.testing.assert_close(down(image), full)
    assert AntiAliasDownsample(3, 1)(image) is image


def test_inverse():
    matrix = torch.randn(50, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(inverse_2x2(matrix), torch.linalg.inv(matrix))


@pytest.mark.parametrize("spread", [(1, 1), (1, 0.05), (0.05, 1)])
@pytest.mark.parametrize("guard", [False, True])
def test_principal_axes_equal_lapack_with_its_signs(spread, guard):
    covar = covariances(2000, spread)
    u, s, _ = torch.svd(covar)
    axes, values = principal_axes(covar, guard=guard)
    clear = (s[:, 0] - s[:, 1]) > 1e-2 * s[:, 0]  # elsewhere the axes are ill-defined
    torch.testing.assert_close(axes[clear], u[clear], atol=5e-5, rtol=0)
    torch.testing.assert_close(values, s, atol=1e-7, rtol=1e-3)


def test_guarded_gradients_are_finite_where_svd_gives_nan():
    covar = torch.tensor([[[0.1, 0.0], [0.0, 0.1]], [[0.0, 0.0], [0.0, 0.0]], [[0.1, 0.1], [0.1, 0.1]]])
    covar.requires_grad_()
    axes, values = principal_axes(covar, guard=True)
    (axes * values.sqrt()[:, None]).sum().backward()
    assert covar.grad.isfinite().all()


def test_gradient_through_axes_equals_svd():
    covar = covariances(20, (1, 0.3), torch.float64)
    weight = torch.randn(20, 2, 2, dtype=torch.float64)
    ours, theirs = covar.clone().requires_grad_(), covar.clone().requires_grad_()
    axes, values = principal_axes(ours)
    (axes * values.sqrt()[:, None] * weight).sum().backward()
    u, s, _ = torch.svd(theirs)
    (u * s.sqrt()[:, None] * weight).sum().backward()
    symmetric = (theirs.grad + theirs.grad.mT) / 2
    torch.testing.assert_close((ours.grad + ours.grad.mT) / 2, symmetric, atol=1e-8, rtol=1e-6)


def test_axes_stay_fp32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        axes, values = principal_axes(covariances(3))
    assert axes.dtype == values.dtype == torch.float32


def test_sinusoidal_embedding_starts_with_sines():
    embedding = SinusoidalEmbedding(8)(torch.tensor([0, 5]))
    assert embedding[0].tolist() == [0] * 4 + [1] * 4
    assert float(embedding[1, 0]) == pytest.approx(torch.tensor(5.0).sin().item())


def test_position_bias_tells_keys_before_from_keys_after():
    buckets = RelativePositionBias(2, 32, 32).buckets(40, torch.device("cpu"))
    assert buckets[3, 3] == 0
    assert buckets[5, 3] == 2  # the key lies two frames before
    assert buckets[3, 5] == 16 + 2
    assert buckets.max() == 31


def turn(x, cos, sin):
    """Rotary embedding as complex numbers."""
    pairs = torch.view_as_complex(x[..., : cos.shape[-1]].reshape(*x.shape[:-1], -1, 2).contiguous())
    turned = torch.view_as_real(pairs * torch.complex(cos[..., ::2], sin[..., ::2])).flatten(-2)
    return torch.cat((turned, x[..., cos.shape[-1] :]), dim=-1)


def test_rotation_is_a_complex_product():
    x, angles = torch.randn(6, 2, 5, 12), RotaryEmbedding(8)(5)
    torch.testing.assert_close(rotate(x, *angles), turn(x, *angles))
    weights = torch.randn(7, 2, 12)  # one set for all positions
    spread = [table[:, None, None] for table in angles]
    expected = torch.stack([turn(weights, *(table[i] for table in angles)) for i in range(5)])
    torch.testing.assert_close(rotate(weights, *spread), expected)
    compiled = torch.compile(rotate, backend="aot_eager")
    torch.testing.assert_close(compiled(x, *angles), turn(x, *angles))
    half = x.bfloat16()
    torch.testing.assert_close(rotate(half, *angles), turn(half.float(), *angles).bfloat16())


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("keys", [5, 80])
def test_attention_is_the_plain_formula(learned, bias, keys):
    q, k, v = torch.randn(6, 2, 5, 12), *torch.randn(2, keys, 6, 2, 12).permute(0, 2, 3, 1, 4)
    added = torch.randn(2, 5, keys, requires_grad=learned) if bias else None
    for scale, factor in ((None, 12**-0.5), (1.0, 1.0)):
        logits = q @ k.mT * factor + (added if bias else 0)
        found = attend(q, k, v, added, scale)
        torch.testing.assert_close(found, logits.softmax(-1) @ v, atol=1e-5, rtol=1e-5)


def test_gradient_of_attention_with_a_learned_bias():
    q, k, v = torch.randn(3, 6, 2, 5, 12, dtype=torch.float64, requires_grad=True).unbind(0)
    bias = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    expected = (q @ k.mT * 12**-0.5 + bias).softmax(-1) @ v
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v, bias), retain_graph=True)
    found = torch.autograd.grad(attend(q, k, v, bias).square().sum(), (q, k, v, bias))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_is_fp32_inside_under_autocast():
    q, k, v = (torch.randn(3, 6, 2, 5, 12) * 4).bfloat16().unbind(0)
    bias = torch.randn(2, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v, bias)
    expected = (q.float() @ k.float().mT * 12**-0.5 + bias).softmax(-1) @ v.float()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), atol=1e-2, rtol=1e-2)


def test_channel_norm():
    tokens = torch.randn(2, 3, 4, 6).transpose(1, 2)
    norm = ChannelLayerNorm(6)
    norm.gamma.data = torch.rand(1, 6, 1, 1, 1)
    centred = tokens - tokens.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.gamma.flatten()
    torch.testing.assert_close(norm(tokens), expected)


def test_recomputing_keeps_gradients_and_statistics():
    def block():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    plain, saving, x = block(), block(), torch.randn(2, 3, 8, 8)
    plain(x).square().sum().backward()
    recompute(saving, x).square().sum().backward()
    for ours, theirs in zip(saving.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    for name, value in plain.state_dict().items():
        assert torch.equal(saving.state_dict()[name], value), name
    assert saving[1].momentum == 0.1
    again = recompute(lambda y: saving(y), x, norms_of=saving)
    again.sum().backward()
    assert saving[1].num_batches_tracked == 2
    with torch.no_grad():
        assert recompute(saving.eval(), x).grad_fn is None
