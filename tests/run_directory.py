"""A run directory as `vgen fit`, `vgen sample` and `vgen evaluate` leave it, with little moving pictures."""

import json
import math
import random

import av
import numpy as np
import yaml


def write_mp4(path, frames=16, size=64, seed=0, tiles=1):
    """A ball on a coloured ground in every tile: something to recognise on the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    colours = generator.integers(60, 240, (tiles * tiles, 2, 3))
    side = size * tiles
    grid = np.arange(size)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for t in range(frames):
            picture = np.zeros((side, side, 3), np.uint8)
            for tile, (ground, ball) in enumerate(colours):
                angle = 2 * math.pi * (t / frames + tile / 7)
                y, x = size / 2 + size / 4 * math.sin(angle), size / 2 + size / 4 * math.cos(angle)
                inside = (grid[:, None] - y) ** 2 + (grid[None] - x) ** 2 < (size / 7) ** 2
                row, column = divmod(tile, tiles)
                cell = np.where(inside[..., None], ball, ground).astype(np.uint8)
                picture[row * size : (row + 1) * size, column * size : (column + 1) * size] = cell
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_stage(folder, kinds, steps=600, done=True, seed=0, final=0.1):
    folder.mkdir(parents=True)
    noise = random.Random(seed)
    rows = ["step,clips,seconds,train/loss,train/perceptual,val/loss,train/lr,perf/clips_per_s,perf/mem_gb"]
    for step in range(0, steps + 1, 2):
        loss = final + 1.4 * math.exp(-step / 90)
        cells = [step, step * 16, step * 0.21, loss * noise.uniform(0.8, 1.2), loss * noise.uniform(1.5, 2.5)]
        cells += [loss * 1.1 if step % 50 == 0 else "", 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))]
        cells += [noise.uniform(70, 82), 1.4]
        rows.append(",".join(str(cell) for cell in cells))
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    config = {
        "model": {"class_path": "vgen.models.lfdm.LFAE", "init_args": {"perceptual": None, "width": 16}},
        "trainer": {"max_steps": steps if done else 2 * steps, "precision": "32-true"},
    }
    (folder / "config.yaml").write_text("# saved by vgen 0.1.0\n" + yaml.safe_dump(config))
    environment = {
        "command": "vgen fit --config lightning_configs/lfdm_mug.yaml",
        "git": "0123abcd",
        "versions": {"torch": "2.13.0", "lightning": "2.6.6", "python": "3.11"},
        "hardware": {"cpu": "2 cores", "gpu": None},
        "parameters": [["generator", 45575391], ["region_predictor", 14146728]],
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    labels = ["anger", "disgust", "fear", "happiness"]
    for kind in kinds:
        for index, step in enumerate(range(0, steps + 1, 100)):
            name = folder / "samples" / f"step_{step:08d}_{kind}"
            write_mp4(name.with_suffix(".mp4"), seed=index, tiles=2)
            name.with_suffix(".json").write_text(
                json.dumps({"kind": kind, "step": step, "fps": 8, "captions": labels, "rows": "upper row: real clips"})
            )
    if done:
        record = {"stage": folder.name, "step": steps, "clips": steps * 16, "seconds": steps * 0.21, "sha256": "0" * 64}
        (folder / "done.json").write_text(json.dumps(record))


def write_run(folder, seed=0, done=True, generated=7):
    folder.mkdir(parents=True)
    stages = {
        "autoencoder": {"trainer": {"max_steps": 600}, "model": {"init_args": {"width": 16}}},
        "diffusion": {"model": {"init_args": {"dim": 16 + 16 * seed}}},
    }
    (folder / "config.yaml").write_text("# LFDM on drawn faces\n" + yaml.safe_dump({"stages": stages}))
    write_stage(folder / "autoencoder", ["reconstruction"], seed=seed)
    write_stage(folder / "diffusion", ["samples"], done=done, seed=seed + 7, final=0.05 + 0.02 * seed)
    labels = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    for index in range(generated):
        name = folder / "generated" / f"{index:04d}_{labels[index % 7]}"
        write_mp4(name.with_suffix(".mp4"), seed=100 + index)
        name.with_suffix(".json").write_text(json.dumps({"captions": [labels[index % 7]]}))
    (folder / "evaluation").mkdir()
    metrics = {
        "psnr/gain_over_copy": {"value": 3.412 - seed, "low": 3.1 - seed, "high": 3.7 - seed, "n": 96, "unit": "dB"},
        "classifier/requested": {"value": 0.84, "low": 0.76, "high": 0.9, "n": 96, "unit": ""},
        "motion/energy_ratio": {"value": 0.97, "low": 0.91, "high": 1.04, "n": 96, "unit": ""},
    }
    evaluation = {
        "protocol": "held-out subjects, 64x64x16",
        "metrics": metrics,
        "settings": {"sampler": "ddim", "steps": 20, "guidance": 2.0, "weights": "ema"},
        "note": "The classifier reads 96.9 % of held-out real clips and 16.7 % of first frames.",
    }
    (folder / "evaluation" / "fake_mug.json").write_text(json.dumps(evaluation))
    return folder
