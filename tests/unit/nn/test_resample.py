import pytest
import torch
import torch.nn.functional as F

from vgen.nn.resample import box_resample, fir_conv_down, fir_conv_up, fir_down, fir_kernel, fir_up

TAPS = [(1, 1), (1, 3, 3, 1), (1, 2, 1), (1, 2, 4, 3)]


def upfirdn(x, kernel, up=1, down=1, pad=(0, 0)):
    """StyleGAN2's reference: zeros between pixels, padding, true convolution, every n-th pixel; one image at a time."""
    b, c, h, w = x.shape
    wide = x.new_zeros(b, c, h * up, w * up)
    wide[..., ::up, ::up] = x
    wide = F.pad(wide, (*pad, *pad))
    size = len(kernel)
    patches = wide.unfold(2, size, 1).unfold(3, size, 1)
    return (patches * kernel.flip(0, 1)).sum((-1, -2))[..., ::down, ::down]


@pytest.mark.parametrize("taps", TAPS)
def test_resampling_is_upfirdn(taps):
    x, kernel = torch.randn(2, 3, 6, 8, dtype=torch.float64), fir_kernel(taps).double()
    p = len(taps) - 2
    torch.testing.assert_close(fir_up(x, kernel), upfirdn(x, kernel * 4, up=2, pad=((p + 1) // 2 + 1, p // 2)))
    torch.testing.assert_close(fir_down(x, kernel), upfirdn(x, kernel, down=2, pad=((p + 1) // 2, p // 2)))


def test_the_box_is_the_filter_of_two_equal_taps():
    x, kernel = torch.randn(2, 3, 6, 8, dtype=torch.float64), fir_kernel((1, 1)).double()
    torch.testing.assert_close(box_resample(x, "up"), fir_up(x, kernel))
    torch.testing.assert_close(box_resample(x, "down"), fir_down(x, kernel))


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
def test_convolutions_that_resample(taps):
    x, kernel = torch.randn(2, 3, 6, 8, dtype=torch.float64), fir_kernel(taps).double()
    weight, bias = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    p = len(taps)  # with the convolution's own border
    filtered = upfirdn(x, kernel, pad=((p + 1) // 2, p // 2))
    torch.testing.assert_close(fir_conv_down(x, weight, bias, kernel), F.conv2d(filtered, weight, bias, stride=2))
    wide = x.new_zeros(2, 3, 12, 16)
    wide[..., ::2, ::2] = x
    inside = F.conv2d(wide, weight, padding=1)
    expected = upfirdn(inside, kernel * 4, pad=(len(taps) // 2, len(taps) - 1 - len(taps) // 2))
    found = fir_conv_up(x, weight, bias, kernel)
    assert found.shape == (2, 5, 12, 16)
    inner = (..., slice(3, -3), slice(3, -3))  # at the border ours keeps what a cropped convolution would lose
    torch.testing.assert_close(found[inner], (expected + bias.view(-1, 1, 1))[inner])


def test_box_filters_are_means_and_neighbours():
    x, kernel = torch.randn(1, 2, 4, 6), fir_kernel((1, 1))
    torch.testing.assert_close(fir_down(x, kernel), F.avg_pool2d(x, 2))
    torch.testing.assert_close(fir_up(x, kernel), F.interpolate(x, scale_factor=2, mode="nearest"))
