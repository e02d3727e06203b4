"""Official TGAN snapshots (Chainer npz, one for each network) -> an export that `vgen.load` opens."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from vgen.errors import UserError
from vgen.models.tgan.module import TGAN
from vgen.models.tgan.networks import VideoGenerator
from vgen.models.tgan.weights import IMAGE_KEYS, SEED_KEYS, generator_config, read_snapshot, with_counters
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import source_facts

#: DataModule of each preset: its class names and frame rate go into the converted model.
DATA = {"ucf101": "UCF101", "moving_mnist": "MovingMNIST", "folder": "Folder"}


def convert(
    preset: Literal["ucf101", "moving_mnist", "folder"],
    class_names: tuple[str, ...],
    fps: float,
    seeds: str,
    images: str,
) -> tuple[Export, list[str]]:
    """Converts both generators; widths, codes, colours and the size of the frames are read from the weights.

    Args:
        preset: The data set.
        class_names: Not used: the model takes no classes.
        fps: Frame rate of the clips.
        seeds: Snapshot of the frame seed generator.
        images: Snapshot of the image ("video") generator.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: A file is no such snapshot.
    """
    states = {file: read_snapshot(file) for file in (seeds, images)}
    try:
        arguments = generator_config(states[seeds], states[images])
        side = _side(states[images])
        frames = 16 * int(states[seeds]["dc0/W"].shape[2])
        colours = int(states[images]["dc5/W"].shape[1])
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"the weights are not those of TGAN's generators: {error} is missing", seeds) from error
    spec = ClipSpec(frames, side, side, colours, fps)
    model = TGAN(spec, VideoGenerator(**arguments), None)
    for network, keys, file in (
        (model.generator.seeds, SEED_KEYS, seeds),
        (model.generator.images, IMAGE_KEYS, images),
    ):
        keys.load(network, with_counters(states[file]), file)
    source = [source_facts(Path(file)) for file in states]
    header = {**describe_model(model, spec, None), "stage": "gan", "clips": 0, "source": source}
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.generator.seeds, model.generator.images)]
    tensors = sum(len(state) for state in states.values())
    lines = [
        f"frame seed generator: {counts[0]:,} parameters; image generator: {counts[1]:,}; all {tensors} tensors found "
        "their place",
        f"clips of {frames} frames of {side}x{side}",
    ]
    return Export(header, model.state_dict()), lines


def _side(images: dict[str, Tensor]) -> int:
    """Side of the frames: the linear layers make a square map of half the first width."""
    places = int(images["l0s/W"].shape[0]) // (int(images["dc1/W"].shape[0]) // 2)
    return 16 * round(places**0.5)
