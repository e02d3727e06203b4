"""Official VIDM checkpoint (the motion generator) -> an export that `vgen.load` and `init_from:` open."""

from pathlib import Path
from typing import Literal

from vgen.diffusion import GaussianDiffusion, LossWeighting, RespacedDDPM
from vgen.errors import UserError
from vgen.models.vidm.motion_module import VIDMMotion
from vgen.models.vidm.networks import MotionGenerator
from vgen.models.vidm.weights import load_motion, motion_layout, motion_state
from vgen.nn.flow import SpyNet
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import counted, source_facts
from vgen.weights.unpickle import read_official

DATA = {"clevrer": "CLEVRER"}
#: Parameters of the released network: said in the output where a file has them.
RELEASED = {194_178_226: "model"}


def convert(
    file: str,
    preset: Literal["clevrer"],
    class_names: tuple[str, ...],
    fps: float,
    size: int = 128,
    frames: int = 128,
    video_timesteps: int = 128,
    head_channels: int = 64,
    averaged: bool = True,
) -> tuple[Export, list[str]]:
    """Converts the release's checkpoint; widths and depths are read from the weights.

    Args:
        file: checkpoint_accum_clevrer_robust_400000.pth.tar.
        preset: Data that the model was trained on.
        class_names: Text of each label index.
        fps: Frame rate of the clips.
        size: Side of the frames in pixels; no tensor shows it.
        frames: Frames of a clip.
        video_timesteps: Frames V that the coordinate n runs over: 128 in training. The released generation script has
            64 (and 64 frames), with which n is twice as fast.
        head_channels: Channels of an attention head.
        averaged: Take the averaged weights.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file is none of the release's, or holds more than weights.
    """
    content = read_official(file)
    state = motion_state(content, averaged)
    try:
        layout = motion_layout(state, head_channels, video_timesteps)
        channels = int(state["unet.out.2.weight"].shape[0]) // 2
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"the weights are not those of a VIDM motion generator: {error}"[:200], file) from error
    flow = SpyNet() if any(name.startswith("spynet.") for name in state) else None
    network = MotionGenerator(layout, channels, flow)
    report = load_motion(network, state, file)
    clip = ClipSpec(frames, size, size, channels, fps=fps, class_names=class_names)
    process = GaussianDiffusion("linear", variance="learned_range", weighting=LossWeighting("p2", gamma=1.0))
    model = VIDMMotion(clip, network, diffusion=process, sampler=RespacedDDPM("ddim100"))
    facts = source_facts(Path(file), content, "iters")
    header = {**describe_model(model, clip, None), "stage": "motion", "clips": 0, "source": [facts]}
    lines = [
        counted("motion generator", network, len(state) - len(report.dropped), RELEASED),
        "note: there is no released content generator; give a first frame, or train one",
    ]
    return Export(header, model.state_dict()), lines
