"""Geometry and colours as LFDM has them."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vgen.data.datamodules import MHAD, NATOPS
from vgen.data.transforms import ColourJitter, Crop, augment, fit, pad, random_columns, recompress, resize, to_tensor


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
    clip = resize(clip, (128, 128), "letterbox")
    assert clip.shape[1:3] == resized
    padded = pad(clip, (128, 128))
    assert padded.shape == (1, 128, 128, 3)
    assert borders(padded) == expected


def test_area_resize_takes_means_of_areas():
    clip = noise(2, 6, 8)
    expected = clip.reshape(2, 3, 2, 4, 2, 3).astype(float).mean((2, 4))
    assert np.abs(resize(clip, (4, 4), "letterbox") - expected).max() <= 0.5
    # Fractional: a pixel covers 1.5 x 1.5 source pixels.
    square = noise(1, 3, 3)
    corner = (square[0, :2, :2] * np.array([[1, 0.5], [0.5, 0.25]])[..., None]).sum((0, 1)) / 2.25
    assert np.abs(resize(square, (2, 2), "letterbox")[0, 0, 0] - corner).max() <= 0.5


def test_crop_scales_with_the_picture():
    crop = Crop(0, 480, 156, 492, height=480, width=640)
    assert crop(noise(1, 96, 128)).shape == (1, 96, 67, 3)


def pillow(frame, height, width, method):
    return np.asarray(Image.fromarray(frame).resize((width, height), method)).astype(int)


def test_every_way_of_resizing_ends_at_the_wanted_size():
    for mode in ("crop", "crop_first", "stretch", "wide", "letterbox"):
        for height, width, size in ((48, 64, (16, 16)), (64, 48, (16, 16)), (30, 61, (12, 20)), (9, 9, (16, 8))):
            clip = resize(noise(1, height, width), size, mode)
            assert pad(fit(clip, size), size).shape == (1, *size, 3), (mode, height, width, size)
    assert resize(noise(1, 48, 64), (16, 16), "crop").shape[1:3] == (16, 22)  # 21.3 rounded up, as VideoGPT does
    assert resize(noise(1, 48, 64), (18, 18), "wide").shape[1:3] == (18, 24)  # TGANv2
    assert resize(noise(1, 240, 320), (128, 128), "crop").shape[1:3] == (128, 171)


def test_centred_parts_are_kept():
    wide = np.zeros((1, 10, 30, 3), np.uint8)
    wide[:, :, 10:20] = 200
    for mode in ("crop", "crop_first"):
        assert (fit(resize(wide, (10, 10), mode), (10, 10)) == 200).all()


def test_filters_are_those_of_the_papers():
    """Each against an independent implementation; crop_first first cuts, so no filter sees what is outside."""
    frame = noise(1, 48, 48)[0]
    methods = {"bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS", "area": "BOX", "nearest": "NEAREST"}
    for name, method in methods.items():
        reference = pillow(frame, 16, 16, getattr(Image.Resampling, method))
        assert np.abs(resize(frame[None], (16, 16), "stretch", name)[0].astype(int) - reference).max() <= 1, name
    # Two taps at the centre of every 3x3 block hit a source pixel exactly: sampling, not averaging.
    for name in ("bilinear_no_antialias", "bicubic_no_antialias"):
        assert np.array_equal(resize(frame[None], (16, 16), "stretch", name)[0], frame[1::3, 1::3]), name
    half = resize(frame[None], (24, 24), "stretch", "bilinear_no_antialias")[0].astype(int)
    assert np.abs(half - frame.reshape(24, 2, 24, 2, 3).mean((1, 3))).max() <= 0.5


def test_nearest_keeps_large_numbers():
    numbers = np.arange(12, dtype=np.int32).reshape(1, 3, 4, 1) + 26_000
    assert set(resize(numbers, (6, 8), "stretch", "nearest").ravel().tolist()) == set(numbers.ravel().tolist())


def test_random_columns_keep_off_the_borders():
    clip = np.broadcast_to(np.arange(24, dtype=np.uint8)[None, None, :, None], (1, 4, 24, 3))
    lefts = {int(random_columns(clip, 10, np.random.default_rng(seed))[0, 0, 0, 0]) for seed in range(200)}
    assert lefts == set(range(4, 11))  # 4 columns at either end are never seen: 24 - 10 - 4 is the last
    assert random_columns(clip[:, :, :10], 10, np.random.default_rng(0)).shape == (1, 4, 10, 3)


def test_recompression_is_that_of_a_jpeg_file(tmp_path):
    clip = noise(1, 16, 16)
    Image.fromarray(clip[0]).save(tmp_path / "a.jpg", quality=95)
    assert np.array_equal(recompress(clip, 95)[0], np.asarray(Image.open(tmp_path / "a.jpg")))


def test_one_channel_is_brightness():
    clip = noise(2, 6, 5)
    grey = to_tensor(clip, channels=1)
    assert grey.shape == (1, 2, 6, 5)
    reference = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in clip])
    assert np.array_equal(grey[0].numpy(), reference)
    same = np.repeat(clip[..., :1], 3, axis=3)
    assert np.array_equal(to_tensor(same, 1)[0].numpy(), same[..., 0])


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
