"""Official MoCoGAN generator (generator_<step>.pytorch, a pickled module) -> an export that `vgen.load` opens."""

from pathlib import Path
from typing import Literal

from vgen.errors import UserError
from vgen.models.mocogan.module import MoCoGAN
from vgen.models.mocogan.networks import VideoGenerator
from vgen.models.mocogan.weights import GENERATOR_KEYS, generator_config, with_counters
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import counted, source_facts
from vgen.weights.unpickle import read_official
from vgen.weights.whole_modules import read_module

#: DataModule of each preset: its frame rate goes into the converted model.
DATA = {"mug": "MUG", "taichi": "TaiChiHD", "folder": "Folder"}


def convert(
    preset: Literal["mug", "taichi", "folder"],
    class_names: tuple[str, ...],
    fps: float,
    generator: str,
    content: int = 50,
    categories: list[str] | None = None,
    size: int = 64,
    frames: int = 16,
) -> tuple[Export, list[str]]:
    """Converts a generator; widths, motion codes and the number of categories are read from the weights.

    Args:
        preset: The data set.
        class_names: Its classes, which the weights' categories are taken for where there are as many.
        fps: Frame rate of the clips.
        generator: The file, of a whole module or of its state dict.
        content: Size of the content code (`--dim_z_content`).
        categories: Names of the categories in their order, where they are others.
        size: Side of the pictures in pixels; no tensor shows it.
        frames: Frames of a clip; no tensor shows it.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is none of these.
    """
    try:
        state = read_module(generator)
    except UserError:
        state = read_official(generator)  # whose message is the better one, if it is no state dict either
    try:
        arguments = generator_config(state, content)
    except (KeyError, ValueError, AttributeError, IndexError) as error:
        what = f"the weights are not those of MoCoGAN's generator: {error}"
        raise UserError(what[:200], generator) from error
    count = arguments["categories"]
    names = tuple(categories) if categories else class_names
    if categories and len(names) != count:
        raise UserError(f"{len(names)} names for {count} categories", "--categories")
    names = names if len(names) == count else tuple(f"category {i}" for i in range(count))
    colours = int(state["main.12.weight"].shape[1])
    spec = ClipSpec(frames, size, size, colours, fps, names, ("label",) if names else ())
    model = MoCoGAN(spec, VideoGenerator(**arguments), None, None, labels=count > 0, infogan=count > 0)
    report = GENERATOR_KEYS.load(model.generator, with_counters(state), generator)
    header = {
        **describe_model(model, spec, None),
        "stage": "gan",
        "clips": 0,
        "source": [source_facts(Path(generator))],
    }
    assert report.complete
    lines = [
        counted("generator", model.generator, len(state)),
        f"{count} categories: {', '.join(names) or 'none'}",
    ]
    return Export(header, model.state_dict()), lines
