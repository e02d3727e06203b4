"""What a protocol is, and how one is read from YAML."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from vgen.errors import UserError, did_you_mean
from vgen.metrics.detectors.i3d import Spatial
from vgen.metrics.frechet import Covariance

StartPolicy = Literal["random", "first", "uniform", "all_windows", "chunks"]
PerVideo = Literal["one", "all"]
Quantise = Literal["round", "trunc", "none"]
Short = Literal["discard", "repeat_last", "error"]
Made = Literal["samples", "reconstructions"]
_COUNTS = ("n_frames", "n_real", "n_fake", "stride", "fake_stride", "least_frames", "trials", "isv_splits")


@dataclass(frozen=True)
class Protocol:
    """Which clips are compared, and how they reach the detector.

    Args:
        name: Under which numbers are logged: `fvd/<name>`.
        n_frames: Frames T of a clip.
        n_real: Real clips; None: all. A data set with fewer gives all it has.
        n_fake: Generated clips; None: all. Of reconstructions there are as many as real clips.
        made: What the generated clips are: `samples`, which a model makes from noise, or `reconstructions` of the
            very real clips that they are compared with.
        stride: Distance of the frames of a real clip.
        fake_stride: The same for generated clips: 1 where the model generates at the stride of its data, `stride` where
            it generates every frame.
        split: Part of the data set that the real clips come from.
        start_policy: Where a clip begins. `random`: one uniformly random window per video. `first`: frame 0.
            `uniform`: frames spread evenly from first to last. `all_windows`: every window. `chunks`: windows that do
            not overlap (with a stride: chunks of n_frames x stride frames, each parted into `stride` clips).
        per_video: Of `all_windows` and `chunks`: `all`, so that long videos count more, or `one` drawn per video.
        short: What happens to videos with too few frames.
        least_frames: Fewest frames that a video must have; None: what a clip needs.
        legacy_order: The first n_real videos in sorted order, as StyleGAN-V's code takes them, instead of a seeded
            draw: with folders sorted by class that is the first classes alone.
        seed: Decides windows and the draw of clips.
        spatial: How I3D brings frames to 224 pixels.
        eps: Of I3D's batch norms.
        quantise: How generated floats become bytes: `round`, `trunc` (which darkens by half a level), or `none`.
        cov: Divisor of the covariances: N (`biased`) or N - 1 (`unbiased`).
        trials: Draws whose numbers are averaged; each takes other windows, and other generated clips where there are
            enough.
        isv_splits: Parts of the video inception score.
        metrics: What is computed where nothing else is asked for.
        data: Values that differ for some data sets, by name: `{ucf101: {split: train+test}}`.
        source: Where this was read.
    """

    name: str
    n_frames: int
    n_real: int | None = 2048
    n_fake: int | None = 2048
    made: Made = "samples"
    stride: int = 1
    fake_stride: int = 1
    split: str = "train"
    start_policy: StartPolicy = "random"
    per_video: PerVideo = "one"
    short: Short = "discard"
    least_frames: int | None = None
    legacy_order: bool = False
    seed: int = 0
    spatial: Spatial = "stretch"
    eps: float = 1e-3
    quantise: Quantise = "round"
    cov: Covariance = "unbiased"
    trials: int = 1
    isv_splits: int = 10
    metrics: tuple[str, ...] = ("fvd",)
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Checks every value.

        Raises:
            UserError: A value is of another kind, or none of those there are.
        """
        object.__setattr__(self, "metrics", tuple(self.metrics))
        where = f"protocol {self.name}"
        for key, kind in _kinds().items():
            _check(key, getattr(self, key), kind, where)
        if self.start_policy == "uniform" and self.stride != 1:
            raise UserError("frames spread over the whole video have no stride", where=where)
        if self.per_video == "all" and self.start_policy not in ("all_windows", "chunks"):
            raise UserError(
                f"per_video: all needs the start_policy all_windows or chunks, not {self.start_policy}", where=where
            )
        for name, changes in self.data.items():
            _known(changes, f"{where}, data.{name}", without=("name", "data", "source"))
            replace(self, data={}, **changes)

    @property
    def span(self) -> int:
        """Frames that a real clip takes of its video."""
        if self.start_policy == "chunks":
            return self.n_frames * self.stride
        return (self.n_frames - 1) * self.stride + 1

    def of(self, data: str) -> "Protocol":
        """The protocol for a data set, whose own values it may hold; the name stays."""
        wanted = _plain(data)
        changes = next((changes for name, changes in self.data.items() if _plain(name) == wanted), {})
        return replace(self, **changes)

    def but(self, **changes: Any) -> "Protocol":
        """A variant, whose name says what is changed: `stylegan_v_16+n_fake=512` is another protocol.

        What is changed goes before what the protocol has for single data sets.

        Raises:
            UserError: No such parameter, or a wrong value.
        """
        _known(changes, f"protocol {self.name}", without=("name",))
        own = {key for values in self.data.values() for key in values}
        changed = {key: value for key, value in changes.items() if value != getattr(self, key) or key in own}
        shown = {key: value for key, value in changed.items() if key not in ("metrics", "source", "data")}
        name = "+".join([self.name, *(f"{key}={value}" for key, value in shown.items())])
        data = {
            data: {key: value for key, value in values.items() if key not in changed}
            for data, values in self.data.items()
        }
        return replace(self, **{"data": data, **changed}, name=name)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return {**asdict(self), "metrics": list(self.metrics)}


def protocol_names() -> list[str]:
    """The protocols that vgen ships."""
    folder = resources.files(__package__)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_protocol(name: str | Path) -> Protocol:
    """Opens a protocol by its name, or from a YAML file of one's own, which is named after the file.

    Raises:
        UserError: No such protocol or file, no valid YAML, an unknown key, a wrong value, or the name of one that
            vgen ships.
    """
    names = protocol_names()
    if str(name) in names:
        text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return _parse(text, str(name), f"protocol {name}")
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        hint = did_you_mean(str(name), names) or f"there are: {', '.join(names)}; or a path to a .yaml file"
        raise UserError(f"no protocol {str(name)!r}", where="protocol", hint=hint)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the protocol: {error.strerror}", where=str(path)) from error
    protocol = _parse(text, path.stem, str(path))
    if protocol.name in names:
        raise UserError(
            f"{protocol.name!r} is a protocol that vgen ships: its name stands for its numbers",
            where=str(path),
            hint="name yours otherwise",
        )
    return protocol


def _parse(text: str, name: str, where: str) -> Protocol:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"not valid YAML: {str(error).splitlines()[0]}", where=where) from error
    if not isinstance(content, dict):
        raise UserError("a protocol is a mapping of parameters", where=where)
    _known(content, where)
    content = {"name": name, **content}
    if "n_frames" not in content:
        raise UserError("a protocol says how many frames a clip has: n_frames", where=where)
    return Protocol(**content)


def _kinds() -> dict[str, Any]:
    hints = get_type_hints(Protocol)
    return {entry.name: hints[entry.name] for entry in fields(Protocol)}


def _known(given: Any, where: str, without: tuple[str, ...] = ()) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"expected a mapping of parameters, got {given!r}", where=where)
    names = [name for name in _kinds() if name not in without]
    for key in given:
        if key not in names:
            hint = did_you_mean(str(key), names) or f"there are: {', '.join(names)}"
            raise UserError(f"no parameter {key!r}", where=where, hint=hint)


def _check(key: str, value: Any, kind: Any, where: str) -> None:
    options = get_args(kind)
    if get_origin(kind) is Literal:
        if value not in options:
            hint = did_you_mean(str(value), options)
            raise UserError(f"{key} is one of {', '.join(options)}, not {value!r}", where=where, hint=hint)
        return
    if value is None and type(None) in options:
        return
    if key in _COUNTS and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"{key} is a whole number from 1, not {value!r}", where=where)
    wrong = {
        "name": not isinstance(value, str) or not re.fullmatch(r"[\w.+=-]+", value),
        "split": not isinstance(value, str),
        "source": not isinstance(value, str),
        "legacy_order": not isinstance(value, bool),
        "seed": not isinstance(value, int) or isinstance(value, bool) or value < 0,
        "eps": not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1,
        "metrics": key == "metrics" and not (value and all(isinstance(item, str) for item in value)),
        "data": not isinstance(value, Mapping),
    }
    if wrong.get(key, False):
        raise UserError(f"{key} cannot be {value!r}", where=where)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
