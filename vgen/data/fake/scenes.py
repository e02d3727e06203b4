"""Tiny sets of things in motion in the layouts of SkyTimelapse, CLEVRER, BAIR, FaceForensics and Cityscapes."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vgen.data.fake.actions import even, write_xvid
from vgen.data.fake.faces import EXPRESSIONS, Face, Portrait, motion
from vgen.data.tfrecord import masked_crc32c
from vgen.files import atomic_path
from vgen.video.io import encode

Pixels = NDArray[np.uint8]
_ROAD, _BUILDING, _SKY, _CAR = 7, 11, 23, 26  # numbers of Cityscapes' classes
_BAIR_FRAMES = 30


def write_skytimelapse(
    root: str | Path,
    height: int = 72,
    subjects: int = 4,
    takes: int = 2,
    min_frames: int = 32,
    max_frames: int = 40,
    seed: int = 0,
) -> Path:
    """Writes `sky_timelapse/{sky_train,sky_test}/<video>/<video>_<k>/<video>_<k>_frames_<8 digits>.jpg` of clouds.

    An empty folder and the video that loaders delete are there, too.

    Args:
        root: Folder to write into.
        height: Height of the pictures (360 in the real set); the width is 16/9 of it.
        subjects: Source videos, each of one sky; every fourth is for testing.
        takes: Sequences of each.
        min_frames: Shortest sequence.
        max_frames: Longest sequence.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    top, width = Path(root, "sky_timelapse"), even(height * 16 / 9)
    names = [f"sky{index:08d}" for index in range(max(subjects, 2))]
    for index, name in enumerate([*names, "z6Yr7KDZhm0"]):
        rng = np.random.default_rng([seed, index])
        split = "sky_test" if index % 4 == 1 else "sky_train"
        blue, ground = rng.integers((30, 90, 150), (120, 170, 255)), rng.integers(10, 70, 3)
        for take in range(takes):
            rng = np.random.default_rng([seed, index, take])
            clouds, speed = _clouds(rng, height, width), rng.uniform(-2, 2, 2)
            folder = top / split / name / f"{name}_{take + 1}"
            folder.mkdir(parents=True)
            for t in range(int(rng.integers(min_frames, max_frames + 1))):
                drift = (round(float(speed[0]) * t / 2), round(float(speed[1]) * t))
                cover = np.roll(clouds, drift, (0, 1))[:height, :width, None]
                picture = blue * (1 - cover) + 245 * cover
                picture[-height // 8 :] = ground
                file = folder / f"{name}_{take + 1}_frames_{t + 1:08d}.jpg"
                Image.fromarray(picture.astype(np.uint8)).save(file, quality=92)
    (top / "sky_train" / names[0] / f"{names[0]}_{takes + 1}").mkdir()
    return Path(root)


def _clouds(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Cover (H, W) in 0..1 that joins at its borders."""
    cover = np.zeros((height, width))
    for octave in range(2, 5):
        cells = rng.uniform(-1, 1, (2**octave, 2**octave))
        joined = np.pad(cells, 2, mode="wrap").astype(np.float32)
        step = (height / 2**octave, width / 2**octave)
        box = (2.0, 2.0, 2.0 + 2**octave, 2.0 + 2**octave)
        layer = Image.fromarray(joined, "F").resize((width, height), Image.Resampling.BICUBIC, box=box)
        cover += np.asarray(layer) * (step[0] / height) * 2
    return np.clip(cover * 1.5 + 0.3, 0, 1)


def write_clevrer(
    root: str | Path,
    height: int = 64,
    subjects: int = 4,
    takes: int = 1,
    frames: int = 32,
    seed: int = 0,
) -> Path:
    """Writes `video_{train,validation,test}/video_<range>/video_<5 digits>.mp4` of discs that push each other.

    Args:
        root: Folder to write into.
        height: Height of the pictures (320 in the real set); the width is 3/2 of it.
        subjects: Training videos; of validation and test videos there are half as many.
        takes: Factor of all three numbers.
        frames: Frames of every video (128 in the real set).
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root = Path(root)
    for split, first, count in (
        ("train", 0, subjects),
        ("validation", 10_000, subjects // 2),
        ("test", 15_000, subjects // 2),
    ):
        for number in range(first, first + max(count, 1) * takes):
            low = number // 1000 * 1000
            path = root / f"video_{split}" / f"video_{low:05d}-{low + 1000:05d}" / f"video_{number:05d}.mp4"
            video = _discs(np.random.default_rng([seed, number]), frames, height, even(height * 1.5))
            encode(path, video, 25, options={"crf": "16"})
    return root


def _discs(rng: np.random.Generator, frames: int, height: int, width: int) -> Pixels:
    count, radius = 4, height / 10
    place = rng.uniform((radius, radius), (width - radius, height - radius), (count, 2))
    speed = rng.uniform(-height / 24, height / 24, (count, 2))
    colours = [tuple(int(v) for v in rng.integers(40, 230, 3)) for _ in range(count)]
    video = []
    for _ in range(frames):
        picture = Image.new("RGB", (width * 2, height * 2), (128, 126, 124))
        pen = ImageDraw.Draw(picture)
        for (x, y), colour in zip(place * 2, colours, strict=True):
            pen.ellipse([x - 2 * radius, y - 2 * radius, x + 2 * radius, y + 2 * radius], fill=colour)
        video.append(np.asarray(picture.reduce(2)))
        place = place + speed
        outside = (place < radius) | (place > (width - radius, height - radius))
        speed[outside] *= -1
        for i in range(count):
            for j in range(i):
                gap = place[i] - place[j]
                distance = float(np.hypot(*gap))
                closing = float((speed[i] - speed[j]) @ gap)
                if 0 < distance < 2 * radius and closing < 0:
                    push = closing / distance**2 * gap
                    speed[i] -= push
                    speed[j] += push
    return np.stack(video)


def write_bair(root: str | Path, subjects: int = 4, takes: int = 1, seed: int = 0) -> Path:
    """Writes `softmotion30_44k/{train,test}/traj_<first>_to_<last>.tfrecords`: a gripper among things, 64x64.

    Args:
        root: Folder to write into.
        subjects: Training clips of 30 frames, in two files; of test clips there are half as many.
        takes: Factor of both numbers.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    top = Path(root, "softmotion30_44k")
    half = max(1, subjects * takes // 2)
    for split, first in (("train", 0), ("train", half), ("test", 0)):
        path = top / split / f"traj_{first}_to_{first + half - 1}.tfrecords"
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            for number in range(first, first + half):
                content = _trajectory(np.random.default_rng([seed, int(split == "test"), number]))
                length = struct.pack("<Q", len(content))
                file.write(length + struct.pack("<I", masked_crc32c(length)))
                file.write(content + struct.pack("<I", masked_crc32c(content)))
    return Path(root)


def _trajectory(rng: np.random.Generator) -> bytes:
    """An Example with all features of the real set."""
    things = [(rng.uniform(8, 56, 2), tuple(int(v) for v in rng.integers(40, 250, 3))) for _ in range(5)]
    hand, features = rng.uniform(12, 52, 2), {}
    for t in range(_BAIR_FRAMES):
        action = rng.uniform(-4, 4, 2)
        for camera, shift in (("aux1", 0), ("main", 6)):
            picture = Image.new("RGB", (64, 64), (150, 120, 90))
            pen = ImageDraw.Draw(picture)
            for (x, y), colour in things:
                pen.rectangle([x - 4 + shift, y - 4, x + 4 + shift, y + 4], fill=colour)
            x, y = hand
            pen.line([x + shift, 0, x + shift, y], fill=(40, 40, 44), width=5)
            pen.ellipse([x - 4 + shift, y - 4, x + 4 + shift, y + 4], fill=(200, 40, 40))
            features[f"{t}/image_{camera}/encoded"] = _message(1, _message(1, picture.tobytes()))
        features[f"{t}/action"] = _message(2, _message(1, struct.pack("<4f", *action, 0, 0)))
        features[f"{t}/endeffector_pos"] = _message(2, _message(1, struct.pack("<3f", *hand, 0)))
        hand = np.clip(hand + action, 6, 58)
        for place, _ in things:
            if np.hypot(*(place - hand)) < 7:
                place += action
    entries = [_message(1, name.encode()) + _message(2, feature) for name, feature in features.items()]
    return _message(1, b"".join(_message(1, entry) for entry in entries))


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    length, encoded = len(content), bytearray([field << 3 | 2])
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    return bytes(encoded) + bytes([length]) + content


def write_faceforensics(
    root: str | Path,
    height: int = 96,
    subjects: int = 4,
    takes: int = 1,
    min_frames: int = 32,
    max_frames: int = 40,
    seed: int = 0,
) -> Path:
    """Writes `FaceForensics_compressed/{train,val,test}/{original,mask,altered}/<video>.avi` of moving faces.

    Masks are white but for the face. In one frame of each video the face is partly out of the picture.

    Args:
        root: Folder to write into.
        height: Height of the pictures (480 and more in the real set); the width is 4/3 of it.
        subjects: Persons, at least 3: one each for validation and test.
        takes: Videos of each.
        min_frames: Shortest video.
        max_frames: Longest video.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    top, width = Path(root, "FaceForensics_compressed"), even(height * 4 / 3)
    people = max(subjects, 3)
    for index in range(people):
        split = {people - 2: "val", people - 1: "test"}.get(index, "train")
        portrait = Portrait(Face.of(np.random.default_rng([seed, index])), height)
        for take in range(takes):
            rng = np.random.default_rng([seed, index, take])
            count = int(rng.integers(min_frames, max_frames + 1))
            course = motion(EXPRESSIONS[str(rng.choice(list(EXPRESSIONS)))], count, rng)
            frames, masks = [], []
            for t in range(count):
                picture, _ = portrait.draw({name: float(values[t]) for name, values in course.items()})
                x, y = (float(course[axis][t]) if axis in course else 0.0 for axis in ("x", "y"))
                scene = np.pad(picture, ((0, 0), ((width - height) // 2, (width - height + 1) // 2), (0, 0)), "edge")
                shift = -width // 2 if t == count - 1 else 0
                frames.append(np.roll(scene, shift, axis=1))
                mask = Image.new("L", (width, height), 255)
                centre = width / 2 + x * height / 2 + shift, height / 2 + y * height / 2
                box = [
                    centre[0] - height / 4,
                    centre[1] - height / 3.2,
                    centre[0] + height / 4,
                    centre[1] + height / 3.2,
                ]
                ImageDraw.Draw(mask).ellipse(box, fill=0)
                masks.append(np.repeat(np.asarray(mask)[..., None], 3, axis=2))
            for kind, video in (("original", frames), ("mask", masks), ("altered", frames)):
                write_xvid(top / split / kind / f"{index:03d}_{take}.avi", np.stack(video), 25)
    return Path(root)


def write_cityscapes(
    root: str | Path, height: int = 48, subjects: int = 3, takes: int = 1, frames: int = 30, seed: int = 0
) -> Path:
    """Writes streets in both layouts: vid2vid's with maps of every frame, and that of the official archive.

    `{train,test}_{A,B,inst}/<sequence>/*.png` and
    `leftImg8bit_sequence/{train,val,test}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png`.

    Args:
        root: Folder to write into.
        height: Height of the pictures (1024 in the real set); the width is twice that.
        subjects: Streets, at least 3: one each for validation and test (both of them `test` for vid2vid).
        takes: Snippets of each.
        frames: Frames of a snippet.
        seed: Decides everything.

    Returns:
        The root folder.
    """
    root, streets = Path(root), max(subjects, 3)
    for index in range(streets):
        split = {streets - 2: "val", streets - 1: "test"}.get(index, "train")
        city = f"city{'abcdefghijklmnopqrstuvwxyz'[index % 26]}"
        for take in range(takes):
            rng = np.random.default_rng([seed, index, take])
            for t, maps in enumerate(_street(np.random.default_rng([seed, index]), rng, frames, height)):
                sequence, first = f"seq{index:04d}_{take}", 40 * take
                plain = f"{city}_000000_{first + t:06d}_leftImg8bit.png"
                _save(root / "leftImg8bit_sequence" / split / city / plain, maps[0])
                set_name = "train" if split == "train" else "test"
                for number, kind in enumerate(("B", "A", "inst")):
                    _save(root / f"{set_name}_{kind}" / sequence / f"{t:06d}.png", maps[number])
    return root


def _street(
    place: np.random.Generator, rng: np.random.Generator, frames: int, height: int
) -> list[tuple[Pixels, Pixels, NDArray[np.uint16]]]:
    """Frames, label maps and instance maps of a drive past houses and cars."""
    width = 2 * height
    houses = [
        (place.uniform(0, 3 * width), place.uniform(0.15, 0.4), tuple(int(v) for v in place.integers(60, 220, 3)))
        for _ in range(9)
    ]
    cars = [(rng.uniform(0, 2 * width), tuple(int(v) for v in rng.integers(40, 250, 3))) for _ in range(3)]
    speed, found = rng.uniform(1, 2.5), []
    for t in range(frames):
        picture, labels = Image.new("RGB", (width, height), (150, 190, 230)), Image.new("L", (width, height), _SKY)
        pens = ImageDraw.Draw(picture), ImageDraw.Draw(labels)
        middle = height * 0.55
        for x, tall, colour in houses:
            box = [x - speed * t, middle - tall * height, x - speed * t + width / 5, middle]
            pens[0].rectangle(box, fill=colour)
            pens[1].rectangle(box, fill=_BUILDING)
        pens[0].rectangle([0, middle, width, height], fill=(90, 90, 95))
        pens[1].rectangle([0, middle, width, height], fill=_ROAD)
        # Instance maps: the class, or class * 1000 + number where a class has instances (pix2pixHD, vid2vid).
        instances = np.asarray(labels).astype(np.uint16)
        for number, (x, colour) in enumerate(cars):
            left = x - 2 * speed * t
            box = [left, middle - height / 12, left + width / 8, middle + height / 8]
            pens[0].rectangle(box, fill=colour)
            pens[1].rectangle(box, fill=_CAR)
            alone = Image.new("L", (width, height))
            ImageDraw.Draw(alone).rectangle(box, fill=1)
            instances[np.asarray(alone) > 0] = _CAR * 1000 + number
        found.append((np.asarray(picture), np.asarray(labels), instances))
    return found


def _save(path: Path, picture: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
