"""Small adversarial models: 32x32 pixels, few channels."""

from functools import partial

import torch

from vgen.models import mocogan, tgan, vgan
from vgen.video import ClipSpec

SIDE, FRAMES = 32, 16
CLASSES = ("left", "right", "up")
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.999))


def spec(frames=FRAMES, labels=True, **changes):
    facts = {"class_names": CLASSES, "condition_keys": ("label", "text")} if labels else {}
    return ClipSpec(frames, SIDE, SIDE, **facts, **changes)


def batch(n=4, frames=FRAMES):
    torch.manual_seed(2)
    labels = torch.arange(n) % len(CLASSES)
    video = torch.rand(n, 3, frames, SIDE, SIDE) * 2 - 1
    return {"video": video, "label": labels, "text": [CLASSES[i] for i in labels], "path": [str(i) for i in range(n)]}


def small_mocogan(clip_spec=None, labels=True, **arguments):
    torch.manual_seed(0)
    categories = None if labels else 0
    networks = {
        "generator": mocogan.VideoGenerator(6, 4, categories, channels=2),
        "image_discriminator": mocogan.Discriminator(2, True, channels=2),
        "video_discriminator": mocogan.Discriminator(3, False, channels=2, categories=categories),
    }
    given = networks | {"labels": labels, "infogan": labels, "optimizer": ADAM, "discriminator_optimizer": ADAM}
    return mocogan.MoCoGAN(clip_spec or spec(), **(given | arguments))


def small_tgan(clip_spec=None, **arguments):
    torch.manual_seed(0)
    # the published weights of +-0.01 make clips of 1e-11
    networks = {"generator": tgan.VideoGenerator(8, 6, 32, image_init="lecun"), "discriminator": tgan.Critic(4)}
    return tgan.TGAN(clip_spec or spec(), **(networks | arguments))


def small_vgan(clip_spec=None, **arguments):
    torch.manual_seed(0)
    networks = {"generator": vgan.VideoGenerator(8, 2), "discriminator": vgan.Discriminator(2)}
    given = networks | {"optimizer": ADAM, "discriminator_optimizer": ADAM}
    return vgan.VGAN(clip_spec or spec(), **(given | arguments))
