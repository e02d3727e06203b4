"""Geometry and colours as LFDM has them."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vgen.data.datamodules import MHAD, NATOPS
from vgen.data.transforms import ColourJitter, Crop, augment, pad, resize, to_tensor


def noise(frames, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def borders(clip):
    """(top, bottom, left, right) numbers of black rows and columns."""
    rows, columns = clip.any((0, 2, 3)), clip.any((0, 1, 3))
    return (
        int(rows.argmax()), int(rows[::-1].argmax()), int(columns.argmax()), int(columns[::-1].argmax()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "native", "cropped", "resized", "expected"),
    [
        (MHAD, (480, 640), (480, 336), (128, 89), (0, 0, 19, 20)),
        (NATOPS, (240, 320), (229, 260), (112, 128), (8, 8, 0, 0)),
    ],
)
def test_published_letterbox(module, native, cropped, resized, expected):
    clip = module.crop(np.full((1, *native, 3), 255, np.uint8))
    assert clip.shape[1:3] == cropped
    clip = resize(clip, 128, "letterbox")
    assert clip.shape[1:3] == resized
    padded = pad(clip, 128)
    assert padded.shape == (1, 128, 128, 3)
    assert borders(padded) == expected


def test_area_resize_takes_means_of_areas():
    clip = noise(2, 6, 8)
    expected = clip.reshape(2, 3, 2, 4, 2, 3).astype(float).mean((2, 4))
    assert np.abs(resize(clip, 4, "letterbox") - expected).max() <= 0.5
    # Fractional: a pixel covers 1.5 x 1.5 source pixels.
    square = noise(1, 3, 3)
    corner = (square[0, :2, :2] * np.array([[1, 0.5], [0.5, 0.25]])[..., None]).sum((0, 1)) / 2.25
    assert np.abs(resize(square, 2, "letterbox")[0, 0, 0] - corner).max() <= 0.5


def test_crop_scales_with_the_picture():
    crop = Crop(0, 480, 156, 492, height=480, width=640)
    assert crop(noise(1, 96, 128)).shape == (1, 96, 67, 3)


def test_crop_and_stretch_are_antialiased_and_square():
    clip = noise(1, 48, 64)
    for mode in ("crop", "stretch"):
        assert resize(clip, 16, mode).shape == (1, 16, 16, 3)
    wide = np.zeros((1, 10, 30, 3), np.uint8)
    wide[:, :, 10:20] = 200
    assert (resize(wide, 10, "crop") == 200).all()
    reference = np.asarray(Image.fromarray(clip[0]).resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(clip, 16, "stretch")[0].astype(int) - reference).max() <= 1


def test_colour_jitter_is_pillows():
    frame = noise(1, 8, 8)
    image = Image.fromarray(frame[0])
    image = ImageEnhance.Brightness(image).enhance(1.2)
    image = ImageEnhance.Contrast(image).enhance(0.8)
    image = ImageEnhance.Color(image).enhance(1.1)
    assert np.array_equal(ColourJitter(1.2, 0.8, 1.1, 0.0)(frame, [0, 1, 2])[0], np.asarray(image))
    red = np.zeros((1, 1, 1, 3), np.uint8)
    red[..., 0] = 255
    turned = ColourJitter(1, 1, 1, 1 / 3)(red, [3])[0, 0, 0]
    assert turned[1] > 250 and turned[0] < 10  # a third of the circle: green
    backwards = ColourJitter(1, 1, 1, -2 / 3)(red, [3])[0, 0, 0].astype(int)
    assert np.abs(backwards - turned).max() <= 8  # the other way round: one of 255 hues apart


def test_augmentation_is_the_same_for_all_frames_and_for_the_same_numbers():
    clip = np.repeat(noise(1, 8, 8), 3, axis=0)
    for name in ("lfae_pair", "lfdm_clip", "flip"):
        out = augment(clip, name, np.random.default_rng(5))
        assert (out == out[:1]).all()
        assert np.array_equal(out, augment(clip, name, np.random.default_rng(5)))
    assert augment(clip, "none", np.random.default_rng(5)) is clip


def test_pair_augmentation_mirrors_one_pair_in_four():
    # Left half dark, frame 1 brighter than frame 0: both changes can be read off the result.
    clip = np.full((2, 4, 4, 3), 60, np.uint8)
    clip[:, :, 2:] += 60
    clip[1] += 40
    outcomes = []
    for seed in range(400):
        out = augment(clip, "lfae_pair", np.random.default_rng(seed)).astype(int)
        outcomes.append((out[0].sum() > out[1].sum(), out[:, :, 0].sum() > out[:, :, 3].sum()))
    reversed_, mirrored = np.mean(outcomes, axis=0)
    assert abs(reversed_ - 0.5) < 0.08 and abs(mirrored - 0.25) < 0.08
    assert (True, True) not in outcomes


def test_clip_augmentation_never_mirrors():
    clip = np.full((1, 4, 4, 3), 60, np.uint8)
    clip[:, :, 2:] += 90
    for seed in range(50):
        out = augment(clip, "lfdm_clip", np.random.default_rng(seed)).astype(int)
        assert out[:, :, 0].sum() < out[:, :, 3].sum()


def test_to_tensor_puts_channels_first():
    tensor = to_tensor(noise(2, 4, 6)[:, ::-1])
    assert tensor.shape == (3, 2, 4, 6) and tensor.is_contiguous()
