"""How fast clips are read: every reader on the same files, in one run, on one core.

    python benchmarks/data_throughput.py [--clips 24] [--rounds 12] [--out benchmarks/results/data_throughput.json]

The files are like UCF-101's: XviD in AVI, 320x240, 150 frames, one key frame, about 2.6 kB a frame. What is read are 16
frames from a random start, brought to 128x128 (shorter side, centre crop), as a batch of 8 clips (8, 3, 16, 128, 128)
uint8. Readers take turns, so that a busy machine is unfair to none; the figure is CPU time of this process per clip,
the median over the rounds.

* pyav_float: PyAV, then an antialiased resize in floating point: what most loaders do; the baseline.
* pyav: PyAV, then the same resize on bytes (`decoder: pyav`).
* torchcodec: `decoder: torchcodec`, where it loads.
* packed: shards of `vgen data pack` at 128 pixels.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

import vgen
from vgen.data.clips import ClipRecord, build_index
from vgen.data.dataset import ClipDataset, ClipTransform, FileReader, Reader
from vgen.data.packing import pack
from vgen.data.sampling import ClipRequest, Indices, clip_rng, collate, frame_indices
from vgen.data.transforms import Pixels
from vgen.files import write_json
from vgen.video.decoding import why_no_torchcodec
from vgen.video.io import encode, read_frames

LENGTH, FRAMES, SIZE, BATCH = 150, 16, 128, 8
TARGETS = {"pyav": ("pyav_float", 1.7), "torchcodec": ("pyav", 1.6), "packed": ("pyav", 25.0)}


def write_clips(root: Path, count: int) -> list[ClipRecord]:
    """Texture that drifts behind a moving foreground, with some noise: it compresses about as UCF-101 does."""
    records = []
    for number in range(count):
        rng = np.random.default_rng(number)
        texture = _smooth(rng.uniform(0, 255, (400, 500, 3)), 5)
        front = _smooth(rng.uniform(0, 255, (90, 70, 3)), 3)
        drift, place, step = rng.uniform(-0.8, 0.8, 2), rng.uniform(60, 120, 2), rng.uniform(-1.2, 1.2, 2)
        video = np.empty((LENGTH, 240, 320, 3), np.uint8)
        for t in range(LENGTH):
            y, x = (round(80 + drift[0] * t * 0.5), round(90 + drift[1] * t * 0.5))
            frame = texture[y : y + 240, x : x + 320].copy()
            top, left = (int(np.clip(place[i] + step[i] * t, 0, (150, 250)[i])) for i in range(2))
            frame[top : top + 90, left : left + 70] = front
            video[t] = (frame + 1.6 * rng.standard_normal(frame.shape, np.float32)).clip(0, 255)
        name = f"clip{number:03d}.avi"
        options = {"flags": "+qscale", "global_quality": str(118 * 6), "g": "300"}
        encode(root / name, video, 25, "mpeg4", options, codec_tag="XVID")
        records.append(ClipRecord(name))
    return records


def _smooth(picture: np.ndarray, width: int) -> np.ndarray:
    image = torch.from_numpy(picture).float().permute(2, 0, 1)[None]
    for _ in range(2):
        image = F.avg_pool2d(F.pad(image, (width // 2,) * 4, mode="reflect"), width, 1)
    low, high = image.amin(), image.amax()
    return ((image - low) / (high - low) * 255)[0].permute(1, 2, 0).numpy()


class FloatResize(Dataset[Any]):
    """The baseline: all frames to float, antialiased resize, back to bytes."""

    def __init__(self, root: Path, records: list[ClipRecord]) -> None:
        self.root, self.records = root, records

    def __getitem__(self, request: ClipRequest) -> dict[str, torch.Tensor]:
        record = self.records[request.position % len(self.records)]
        indices = frame_indices("window", record.frames, FRAMES, clip_rng(0, *request))
        frames = torch.from_numpy(self._read(record, indices)).permute(0, 3, 1, 2).float()
        height, width = frames.shape[2:]
        short = min(height, width)
        size = (-(-height * SIZE // short), -(-width * SIZE // short))
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
        top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
        frames = frames[:, :, top : top + SIZE, left : left + SIZE].round().clamp(0, 255).byte()
        return {"video": frames.permute(1, 0, 2, 3).contiguous()}

    def _read(self, record: ClipRecord, indices: Indices) -> Pixels:
        return read_frames(self.root / record.path, indices.tolist())


def measure(readers: dict[str, Callable[[int], torch.Tensor]], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds per clip, of every round."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(-1, rounds):  # the first one warms up
        for name, read in readers.items():
            start = time.process_time()
            read(turn)
            if turn >= 0:
                found[name].append((time.process_time() - start) * 1e3 / BATCH)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="files to write")
    parser.add_argument("--rounds", type=int, default=12, help="batches of each reader")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data_throughput.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        wanted = write_clips(root, args.clips)
        index = build_index(root, wanted, "the clips that were just written")
        records = list(index.records)
        bytes_a_frame = sum(r.size for r in records) / sum(r.frames for r in records)
        packed = pack(index, FileReader(root, "pyav"), root / "packed", (), 25.0, SIZE, "crop")
        transform = ClipTransform((SIZE, SIZE), "crop")
        sources: dict[str, Reader] = {"pyav": FileReader(root, "pyav"), "packed": packed}
        if (reason := why_no_torchcodec()) is None:
            sources["torchcodec"] = FileReader(root, "torchcodec")
        datasets: dict[str, Dataset[Any]] = {
            name: ClipDataset(list(packed.index.records if name == "packed" else records), reader, transform, (), 25.0,
                              FRAMES, "window", training=True)
            for name, reader in sources.items()
        }  # fmt: skip
        datasets["pyav_float"] = FloatResize(root, records)

        def batch_of(dataset: Dataset[Any]) -> Callable[[int], torch.Tensor]:
            return lambda turn: collate(
                [dataset[ClipRequest(0, (turn + 1) * BATCH + i)] for i in range(BATCH)]
            )["video"]  # fmt: skip

        readers = {name: batch_of(dataset) for name, dataset in datasets.items()}
        # All of them deliver the same pictures, up to rounding and decoders' colours.
        pictures = {name: read(0).int() for name, read in readers.items()}
        for name, video in pictures.items():
            apart = (video - pictures["pyav_float"]).abs()
            assert video.shape == (BATCH, 3, FRAMES, SIZE, SIZE) and apart.float().mean() < 0.6, (name, apart.max())
        times = measure(readers, args.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{bytes_a_frame / 1e3:.2f} kB a frame, {args.rounds} batches of {BATCH} clips of each reader, one core")
    print(f"{'reader':12s} {'ms/clip':>8s} {'clips/s':>8s}  faster than")
    ratios = {}
    for name in ("pyav_float", "pyav", "torchcodec", "packed"):
        if name not in medians:
            print(f"{name:12s} not measured: {reason}")
            continue
        note = ""
        if name in TARGETS:
            other, target = TARGETS[name]
            ratios[name] = medians[other] / medians[name]
            note = f"{other} {ratios[name]:.2f} times (target {target})"
        print(f"{name:12s} {medians[name]:8.2f} {1000 / medians[name]:8.0f}  {note}")
    write_json(
        args.out,
        {
            "what": "CPU ms per clip of 16 random frames, XviD 320x240 to uint8 128x128, batches of 8, one core",
            "ms_per_clip": {name: round(value, 3) for name, value in medians.items()},
            "quartiles": {n: [round(q, 3) for q in statistics.quantiles(v, n=4)] for n, v in times.items()},
            "faster_than": {
                name: {"reader": TARGETS[name][0], "times": round(ratio, 2), "target": TARGETS[name][1]}
                for name, ratio in ratios.items()
            },
            "kilobytes_per_frame": round(bytes_a_frame / 1e3, 2),
            "machine": {"processor": _processor(), "cores": os.cpu_count()},
            "versions": {"vgen": vgen.__version__, "torch": torch.__version__, "python": platform.python_version()},
        },
    )  # fmt: skip
    print(f"written to {args.out}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
