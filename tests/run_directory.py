"""A run directory as `vgen fit`, `vgen sample` and `vgen evaluate` leave it, with little moving pictures."""

import json
import math
import random

import numpy as np
import torch
import yaml

from vgen.video import Field
from vgen.video.figure import INK, PAPER, figure
from vgen.video.io import write_video


def ball(frames=16, size=64, seed=0):
    """A ball on a coloured ground, (3, T, size, size) uint8: something to recognise on the page."""
    ground, colour = torch.from_numpy(np.random.default_rng(seed).integers(60, 240, (2, 3, 1, 1), dtype=np.uint8))
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pictures = []
    for t in range(frames):
        angle = 2 * math.pi * (t / frames + seed / 7)
        inside = (y - size / 2 - size / 4 * math.sin(angle)) ** 2 + (x - size / 2 - size / 4 * math.cos(angle)) ** 2
        pictures.append(torch.where(inside < (size / 7) ** 2, colour, ground))
    return torch.stack(pictures, 1)


def write_mp4(path, seed=0):
    write_video(path, ball(seed=seed), fps=8, upscale_to=0)


def write_figure(stem, kind, step, labels):
    """What SampleLogger leaves: the clips of `labels`, real and made, with flow beneath them."""
    made = "generated" if kind == "samples" else "reconstructed"
    real = [ball(seed=i) for i in range(len(labels))]
    # The more steps, the less is missing.
    clips = [(clip.float() * (0.3 + 0.7 * step / 600)).to(torch.uint8) for clip in real]
    flow = Field("flow", torch.randn(len(labels), 2, 16, 16, 16).cumsum(-1))
    rows = {"given": [clip[:, :1] for clip in real], "real": real, made: clips, "flow": list(flow.colour(5.0))}
    drawn, layout = figure(rows, labels, {"flow": flow.legend(84, 5.0, INK, PAPER)})
    write_video(stem.with_suffix(".mp4"), drawn, fps=8, upscale_to=0)
    facts = {"kind": kind, "step": step, "fps": 8, "captions": labels, "rows": "flow: where each pixel is read from"}
    stem.with_suffix(".json").write_text(json.dumps(facts | {"layout": layout.to_dict()}))


def write_stage(folder, kinds, steps=600, done=True, seed=0, final=0.1):
    folder.mkdir(parents=True)
    noise = random.Random(seed)
    names = "step,clips,seconds,train/loss,train/perceptual,val/loss,lr,perf/clips_per_s,perf/memory_gb"
    rows = [names + ",grad_norm/network,grad_norm/codec"]
    for step in range(0, steps + 1, 2):
        loss = final + 1.4 * math.exp(-step / 90)
        cells = [step, step * 16, step * 0.21, loss * noise.uniform(0.8, 1.2), loss * noise.uniform(1.5, 2.5)]
        cells += [loss * 1.1 if step % 50 == 0 else "", 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))]
        cells += [noise.uniform(70, 82), 1.4, noise.uniform(1, 2), noise.uniform(0.1, 0.2)]
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
        "published": [{"network": "network", "equal": True, "text": "LFAE 66,004,557 parameters = published"}],
        "planned_steps": steps if done else 2 * steps,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    labels = ["anger", "disgust", "fear"]
    for kind in kinds:
        for step in range(200, steps + 1, 200):
            write_figure(folder / "samples" / f"step_{step:08d}_{kind}", kind, step, labels)
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
    write_stage(folder / "autoencoder", ["reconstructions"], seed=seed)
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
