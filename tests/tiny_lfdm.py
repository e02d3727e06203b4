"""An LFDM of a few thousand weights on drawn faces of 32 pixels, built in Python and by the command line."""

import copy
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

from vgen.callbacks import EMA, AtomicCheckpointIO, Checkpoint
from vgen.cli.main import main
from vgen.conditioning import LabelEmbedding
from vgen.data.datamodules import MUG
from vgen.data.fake import write_mug
from vgen.diffusion import DDIM
from vgen.losses import L1Pyramid
from vgen.models.lfdm import (
    LFAE,
    LFDM,
    BackgroundConfig,
    FlowPredictorConfig,
    GeneratorConfig,
    LatentFlowAutoencoder,
    RegionPredictorConfig,
    Unet3D,
)
from vgen.video import ClipSpec

SIDE, FRAMES = 32, 5
_SMALL = {"block_expansion": 4, "max_features": 16, "num_blocks": 2}
_NETWORK = {
    "num_regions": 3,
    "region_predictor": _SMALL,
    "bg_predictor": _SMALL,
    "generator": {
        "block_expansion": 4,
        "max_features": 16,
        "num_down_blocks": 2,
        "num_bottleneck_blocks": 1,
        "flow_predictor": _SMALL,
    },
}
_UNET = {
    "dim": 8,
    "cond_dim": 8,
    "dim_mults": [1, 2],
    "channels": 19,
    "attn_heads": 2,
    "attn_dim_head": 8,
    "resnet_groups": 4,
}


def write_faces(folder):
    """Three training and two test persons, one take of each expression."""
    return write_mug(folder, SIDE, train_subjects=3, test_subjects=2, takes=1, min_frames=FRAMES, max_frames=FRAMES + 1)


def spec(frames=FRAMES, **changes):
    facts = {"fps": 19.0, "class_names": ("calm", "glad"), "condition_keys": ("label", "text", "subject")}
    return ClipSpec(frames, SIDE, SIDE, **(facts | changes))


def lfae(num_regions=3, **changes):
    groups = {
        "region_predictor": RegionPredictorConfig(**_SMALL),
        "bg_predictor": BackgroundConfig(**_SMALL),
        "generator": GeneratorConfig(4, 16, 2, 1, flow_predictor=FlowPredictorConfig(**_SMALL)),
    }
    return LFAE(num_regions, **(groups | changes))


def autoencoder(clip=None, **changes):
    arguments = {"network": lfae(), "image_loss": L1Pyramid()}
    return LatentFlowAutoencoder(clip or spec(2), **(arguments | changes))


def lfdm(codec, clip=None, **changes):
    arguments = {
        "denoiser": Unet3D(**_UNET),
        "codec": codec,
        "conditioner": LabelEmbedding(8, kind="one_hot"),
        "sampler": DDIM(2, eta=1.0),
    }
    return LFDM(clip or spec(), **(arguments | changes))


def trainer(folder, steps=1, ema=False, **changes):
    """A Trainer as a person in Python writes it."""
    arguments = {
        "max_steps": steps,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
        "default_root_dir": str(folder),
        "callbacks": [Checkpoint(), *([EMA(0.5)] if ema else [])],
        "plugins": [AtomicCheckpointIO()],
    }
    return Trainer(**(arguments | changes))


def faces(root, pairs=False):
    """The DataModule of stage 1 (pairs) or 2."""
    return MUG(str(root), SIDE, 2 if pairs else FRAMES, "pair" if pairs else "uniform", batch_size=2)


def recipe(root):
    """Both stages as plain data."""
    data = {"root": str(root), "size": SIDE, "batch_size": 2}
    trainer = {"max_steps": 2, "accelerator": "cpu", "limit_val_batches": 0, "log_every_n_steps": 1}
    ema = {"class_path": "vgen.callbacks.EMA", "init_args": {"decay": 0.5}}
    stages = {
        "autoencoder": {
            "trainer": trainer,
            "model": {
                "class_path": "vgen.models.lfdm.LatentFlowAutoencoder",
                "init_args": {
                    "network": {"class_path": "vgen.models.lfdm.LFAE", "init_args": _NETWORK},
                    "image_loss": {"class_path": "vgen.losses.L1Pyramid"},
                },
            },
            "data": {"class_path": "vgen.data.datamodules.MUG", "init_args": data | {"frames": 2, "sampling": "pair"}},
        },
        "diffusion": {
            "trainer": trainer | {"callbacks": [ema]},
            "model": {
                "class_path": "vgen.models.lfdm.LFDM",
                "init_args": {
                    "codec": {"path": "stage://autoencoder/last", "weights": "raw"},
                    "denoiser": {"class_path": "vgen.models.lfdm.Unet3D", "init_args": _UNET},
                    "conditioner": {
                        "class_path": "vgen.conditioning.LabelEmbedding",
                        "init_args": {"dim": 8, "kind": "one_hot"},
                    },
                    "sampler": {"class_path": "vgen.diffusion.DDIM", "init_args": {"steps": 2, "eta": 1.0}},
                    "target": "residual",
                    "standardise": True,
                    "statistics_batches": 1,
                },
            },
            "data": {
                "class_path": "vgen.data.datamodules.MUG",
                "init_args": data | {"frames": FRAMES, "sampling": "uniform"},
            },
        },
    }
    return copy.deepcopy({"stages": stages})


def train_run(folder):
    """Trains both stages by `vgen fit`; returns the run directory, with its data beside it."""
    folder = Path(folder)
    root = write_faces(folder / "faces")
    config = folder / "lfdm_faces.yaml"
    config.write_text(yaml.safe_dump(recipe(root), sort_keys=False))
    assert main(["fit", "--config", str(config), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"
