"""The README of an export: what the model is, how to use it, what it reaches, what it cost."""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vgen import __version__
from vgen.report.markup import duration

if TYPE_CHECKING:
    from vgen.models.card import FamilyCard
    from vgen.report.read import Run, Stage


def model_card(
    name: str,
    config: dict[str, Any],
    parameters: dict[str, int],
    inputs: set[str],
    run: "Run | None" = None,
    license_name: str | None = None,
    data: dict[str, Any] | None = None,
    samples: Sequence[str] = (),
) -> str:
    """Writes the card.

    Args:
        name: Name of the model; the run's name as a rule.
        config: Content of config.json.
        parameters: Parameters of each network.
        inputs: Conditions that the model takes (`image`, `label`, `text`); empty where it does not generate.
        run: The run that it comes from.
        license_name: Licence of the weights, as the Hugging Face hub spells it.
        data: Data block of the stage's configuration.
        samples: Files below the export folder; the first picture is shown.

    Returns:
        Markdown with YAML front matter.
    """
    family = str(config["family"])
    card = family_card(family)
    sections = [
        _front_matter(config, inputs, license_name, data),
        f"# {name}",
        _opening(card, config, samples),
        _use(name, config, inputs),
        _facts(config, parameters, data),
        _figures(run),
        _cost(run),
        _deviations(family, run),
        _citation(family, card),
        _origin(config, run),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def family_card(family: str) -> "FamilyCard | None":
    """The card of a family of vgen's own; None for somebody else's model."""
    import vgen.models
    from vgen.models.card import FamilyCard

    card = getattr(getattr(vgen.models, family, None), "FAMILY", None)
    return card if isinstance(card, FamilyCard) else None


def _task(inputs: set[str]) -> str | None:
    """What the hub calls it."""
    if "image" in inputs:
        return "image-to-video"
    return "text-to-video" if "text" in inputs else "unconditional-video-generation" if inputs else None


def _front_matter(
    config: dict[str, Any], inputs: set[str], license_name: str | None, data: dict[str, Any] | None
) -> str:
    task = _task(inputs)
    tags = ["vgen", "video-generation", str(config["family"]), *([task] if task else []), "pytorch-lightning"]
    facts: dict[str, Any] = {"library_name": "vgen", "license": license_name or "unknown", "tags": tags}
    if task in ("image-to-video", "text-to-video"):
        facts["pipeline_tag"] = task
    if name := _data_name(data):
        facts["datasets"] = [name]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _data_name(data: dict[str, Any] | None) -> str | None:
    """Name of the data's folder: it tells a drawn stand-in from the real set, as the class does not."""
    init_args = (data or {}).get("init_args") or {}
    root = init_args.get("root") or init_args.get("packed")
    return Path(str(root)).name if root else None


def _opening(card: "FamilyCard | None", config: dict[str, Any], samples: Sequence[str]) -> str:
    stage = f"stage `{config['stage']}` of " if config.get("stage") else ""
    text = f"`{config['class_path']}`, {stage}a model that vgen "
    text += "converted from official weights." if config.get("source") else "trained."
    if card is not None:
        text = f"**{card.title}**{': ' + card.summary if card.summary else ''}\n\n{text}"
    shown = next((name for name in samples if name.endswith(".gif")), None)
    if shown:
        text += f"\n\n![generated clips]({shown})"
    videos = [name for name in samples if name.endswith(".mp4")]
    if videos:
        text += "\n\n" + " · ".join(f"[{Path(name).stem}]({name})" for name in videos)
    return text


def _use(name: str, config: dict[str, Any], inputs: set[str]) -> str:
    place = f"path/to/{name}"
    classes = config["clip_spec"]["class_names"]
    arguments = ['image="face.png"'] if "image" in inputs else []
    options = ["--image face.png"] if "image" in inputs else []
    if classes and inputs & {"label", "text"}:
        arguments.append(f'label="{classes[0]}"')
        options.append(f'--label "{classes[0]}"' if " " in classes[0] else f"--label {classes[0]}")
    elif "text" in inputs:
        arguments.append('text="..."')
        options.append('--text "..."')
    call = f"video = model.sample({', '.join([*arguments, 'n=4'])})   # (4, C, T, H, W) in [-1, 1]"
    if not inputs:
        call = 'video = model.reconstruct({"video": clips})   # (B, C, T, H, W) in [-1, 1]'
    lines = ["## Use", "", "```python", "import vgen", f'model = vgen.load("{place}")   # or its hub id', call, "```"]
    if inputs:
        lines += ["", "```bash", f"vgen sample {' '.join([place, *options, '--n 4'])}", "```"]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _facts(config: dict[str, Any], parameters: dict[str, int], data: dict[str, Any] | None) -> str:
    spec = config["clip_spec"]
    rows = [("clips", f"{spec['frames']} frames of {spec['height']}x{spec['width']}, {spec['fps']:g} frames/s")]
    if spec["class_names"]:
        rows.append(("classes", ", ".join(spec["class_names"])))
    rows += [(f"parameters of {network}", f"{count:,}") for network, count in parameters.items()]
    for key, text in (("step", "optimiser steps"), ("clips", "clips seen")):
        if config.get(key):
            rows.append((text, f"{config[key]:,}"))
    rows.append(("weights", ", ".join(f"`{file}`" for file in config["weights"])))
    if name := _data_name(data):
        rows.append(("data", f"`{name}`, read by `{(data or {}).get('class_path')}`"))
    sampler = (config["init_args"] or {}).get("sampler")
    if isinstance(sampler, dict) and "class_path" in sampler:
        settings = ", ".join(f"{k} {v}" for k, v in (sampler.get("init_args") or {}).items() if v is not None)
        rows.append(("sampler", f"{sampler['class_path'].rpartition('.')[2]} {settings}".strip()))
    return "## Model\n\n" + _table(("", ""), rows)


def _figures(run: "Run | None") -> str:
    blocks = []
    for evaluation in run.evaluations if run else ():
        rows = []
        for metric, value in evaluation.metrics.items():
            number = value.get("value")
            shown = f"{number:.3f}" if isinstance(number, int | float) else str(number)
            ends = (value.get("low"), value.get("high"))
            interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if all(isinstance(e, int | float) for e in ends) else ""
            unit = "" if value.get("unit") in (None, "share", "ratio") else f" {value['unit']}"
            rows.append((metric, shown + unit, interval, str(value.get("n") or "")))
        known = {key: evaluation.settings[key] for key in _QUOTED if key in evaluation.settings}
        settings = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items())
        blocks += [
            f"### {evaluation.protocol or evaluation.name}",
            _table(("metric", "value", "95 % interval", "n"), rows),
            "\n".join(text for text in (f"Settings: {settings}." if settings else "", evaluation.note) if text),
        ]
    return "\n\n".join(["## Figures", *[block for block in blocks if block]]) if blocks else ""


_QUOTED = ("clips_generated", "clips_real", "subjects", "chance", "weights", "step", "seed", "guidance")


def _cost(run: "Run | None") -> str:
    rows = []
    for stage in run.stages if run else ():
        step, clips, seconds = (stage.progress.get(key) for key in ("step", "clips", "seconds"))
        if step is None:
            continue
        rows.append((stage.name, f"{step:,.0f}", f"{clips or 0:,.0f}", duration(seconds), _hardware(stage)))
    header = ("stage", "steps", "clips seen", "training time", "hardware")
    return "## Cost\n\n" + _table(header, rows) if rows else ""


def _hardware(stage: "Stage") -> str:
    value = stage.environment.get("hardware") or ""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {each}" for key, each in value.items() if each)
    return str(value)


def _readme(family: str) -> str:
    try:
        return (files(f"vgen.models.{family}") / "README.md").read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError, TypeError):
        return ""


def _section(text: str, *words: str) -> str:
    """The body of the first section whose heading has one of the words."""
    body: list[str] = []
    level, fenced = 0, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+)\s+(.*)", line)
        if heading and level and len(heading[1]) <= level:
            break
        if heading and not level and any(word in heading[2].lower() for word in words):
            level = len(heading[1])
        elif level:
            body.append(line)
    return "\n".join(body).strip()


def _deviations(family: str, run: "Run | None") -> str:
    lines = [_section(_readme(family), "deviation", "paper, code")]
    for part in run.random_parts if run else ():
        lines.append(f"- `{part}` was left at random values instead of pretrained ones (`random_init: true`).")
    text = "\n".join(line for line in lines if line)
    return f"## Deviations from the paper and the official code\n\n{text}" if text else ""


def _citation(family: str, card: "FamilyCard | None") -> str:
    text = _section(_readme(family), "citation") or (card.paper if card else "")
    return f"## Citation\n\n{text}" if text else ""


def _origin(config: dict[str, Any], run: "Run | None") -> str:
    return "## Origin\n\n" + "\n".join(f"- {line}" for line in _origin_lines(config, run))


def _origin_lines(config: dict[str, Any], run: "Run | None") -> Iterator[str]:
    for source in config.get("source") or ():
        yield f"converted from `{source['file']}` (SHA-256 `{source['sha256']}`)"
    yield f"exported by vgen {__version__}"
    if config.get("git"):
        yield f"trained at commit `{config['git']}`"
    stage = next((s for s in run.stages if s.name == config.get("stage")), None) if run else None
    versions = stage.environment.get("versions") if stage else None
    if isinstance(versions, dict):
        known = {name: version for name, version in versions.items() if version and version != "not installed"}
        yield "trained with " + ", ".join(f"{name} {version}" for name, version in known.items())
    for name, facts in config["weights"].items():
        yield f"SHA-256 of `{name}`: `{facts['sha256']}`"
