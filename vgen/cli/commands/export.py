"""`vgen export`: everything that sampling needs in one folder: safetensors, config.json and a model card.

`vgen.load(DIR)` opens it, here and on another machine, and so does its id once it lies on the Hugging Face hub.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.cli.trained import add_model_arguments, model_inputs, stage_config
from vgen.errors import UserError

if TYPE_CHECKING:
    from vgen.report.read import Run
    from vgen.weights.checkpoint import ModelFile

_CLIPS = 4  # single clips that go along where there is no grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model_arguments(parser, device=False)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--name", help="name on the model card (default: the folder's)")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="licence of the weights, in the hub's spelling, e.g. cc-by-4.0 (default: unknown)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export that is there")


def run(args: argparse.Namespace) -> int:
    """Writes the export; what was there before goes only after the new one is complete.

    Raises:
        UserError: The run is not there, a part of it is missing, or the folder is taken.
    """
    from vgen.files import atomic_folder
    from vgen.loading import locate
    from vgen.weights.checkpoint import build_model, read_model_file
    from vgen.weights.export import bundle, check_target, foreign_paths, write_export

    check_target(args.out, args.overwrite)
    file = read_model_file(locate(args.run), args.stage)
    model = build_model(file)  # a model that cannot be opened is no use to others
    export = bundle(file)
    run = _run_of(file)
    if commit := _commit(run, file):
        export.header["git"] = commit
    with atomic_folder(args.out) as folder:
        write_export(export, folder)
        samples = _copy_samples(file.root / "generated", folder)
        _write_card(args, file, model, run, folder, samples)
    for key, path in foreign_paths(export.header["init_args"]):
        print(f"note: config.json names a path of this machine: {key}: {path}")
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    parts = f", with {', '.join(export.parts)}" if export.parts else ""
    print(f"{args.out}: {type(model).__name__}{parts}, {size / 1e6:.1f} MB; vgen.load({str(args.out)!r}) opens it")
    return 0


def _run_of(file: "ModelFile") -> "Run | None":
    """The run that the file lies in, as far as it is there."""
    from vgen.report.read import read_run

    try:
        return read_run(file.root)
    except UserError:
        return None


def _commit(run: "Run | None", file: "ModelFile") -> str | None:
    stage = next((s for s in run.stages if s.name == file.header.get("stage")), None) if run else None
    return stage.environment.get("git") if stage else file.header.get("git")


def _copy_samples(generated: Path, folder: Path) -> list[str]:
    """Copies the grid (or the first clips) of `vgen sample`; returns the names below the export."""
    grids = [path for path in (generated / "grid.gif", generated / "grid.mp4") if path.is_file()]
    chosen = grids or sorted(generated.glob("*.mp4"))[:_CLIPS]
    if not chosen:
        return []
    target = folder / "samples"
    target.mkdir()
    for path in chosen:
        shutil.copyfile(path, target / path.name)
    if not any(path.suffix == ".gif" for path in chosen):
        _to_gif(chosen[0], target / f"{chosen[0].stem}.gif")
    return sorted(f"samples/{path.name}" for path in target.iterdir())


def _to_gif(video: Path, target: Path) -> None:
    """Model cards show pictures: an animated GIF is the one that moves."""
    import torch

    from vgen.video.io import probe, read_frames, write_gif

    frames = torch.from_numpy(read_frames(video)).permute(3, 0, 1, 2)
    write_gif(target, frames, probe(video).fps or 25.0, upscale_to=0)


def _write_card(
    args: argparse.Namespace,
    file: "ModelFile",
    model: Any,
    run: "Run | None",
    folder: Path,
    samples: list[str],
) -> None:
    from vgen.callbacks.provenance import parameter_table
    from vgen.cli.model_card import model_card
    from vgen.video import Samples

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = {str(name): int(count) for name, count in parameter_table(model)}
    text = model_card(
        args.name or args.out.name,
        config,
        parameters,
        model_inputs(model) if isinstance(model, Samples) else set(),
        run,
        args.license,
        stage_config(file).get("data"),
        samples,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
