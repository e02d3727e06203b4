"""`vgen evaluate RUN --best-of N`: the best of N predictions behind past frames of held-out clips (SVG's protocol)."""

import argparse
import time

from vgen.cli.evaluation.image_to_video import batches
from vgen.cli.trained import Trained, model_inputs, open_data, open_trained, option_texts, read_options
from vgen.errors import UserError

_CLIPS = 256  # of SVG's script


def run(args: argparse.Namespace) -> int:
    """Predicts, measures, and writes the result, its curves and a plot of them.

    Raises:
        UserError: The model does not go on behind past frames, or its data is not there.
    """
    from vgen.files import write_json
    from vgen.metrics.prediction import plot_curves, predict_and_score
    from vgen.video import Samples

    clips = _CLIPS if args.clips is None else args.clips
    if min(clips, args.batch, args.best_of) < 1:
        raise UserError("--clips, --batch and --best-of must be at least 1")
    options = read_options(args.option)
    trained = open_trained(args)
    model = trained.model
    if not (isinstance(model, Samples) and "video" in model_inputs(model)):
        what = f"{type(model).__name__} does not go on behind past frames: nothing to predict"
        raise UserError(what, str(trained.file.path), "other models: --protocol NAME")
    past, frames = int(model.past_frames), args.frames or model.clip_spec.frames  # type: ignore[attr-defined]
    if frames <= past:
        raise UserError(f"{frames} frames, of which {past} are given, leave nothing to predict", "--frames")
    data = open_data(trained.file, args.data_root, {"eval_frames": frames})
    start = time.monotonic()

    def report(done: int) -> None:
        seconds = (time.monotonic() - start) / done
        print(f"[evaluate] {done}/{clips} clips predicted {args.best_of} times  {seconds:.2f} s each", flush=True)

    found = predict_and_score(
        model,
        batches(data, "test", clips, args.seed, args.batch),
        past,
        args.best_of,
        args.similarity,
        args.seed,
        options,
        trained.device,
        report,
    )
    name = args.name or f"best_of_{args.best_of}"
    folder = trained.folder / "evaluation"
    figures, curves = found.summary(args.seed), found.curves(args.seed)
    plot_curves(folder / f"{name}.png", curves, past, f"best of {args.best_of}")
    settings = _settings(args, trained, past, frames) | {"seconds": {"all": round(time.monotonic() - start, 1)}}
    result = {
        "protocol": f"best_of_{args.best_of}/{args.similarity}",
        "metrics": figures,
        "settings": settings,
        "curves": {"first_frame": past, **curves},
        "note": "Mean over predicted frames; of each clip the draw with the best mean counts, for each score its own. "
        "Intervals: 95 % bootstrap.",
    }
    write_json(folder / f"{name}.json", result)
    for figure, metric in figures.items():
        shown = f"{metric['value']:.4f} {metric['unit']}".rstrip()
        print(f"{figure:<28} {shown:<12} {metric['low']:.4f} to {metric['high']:.4f}  ({metric['n']} clips)")
    print(f"written to {folder / name}.json and .png")
    return 0


def _settings(args: argparse.Namespace, trained: Trained, past: int, frames: int) -> dict[str, object]:
    """What a reader needs to repeat the figures."""
    header = trained.file.header
    return {
        "model": header["class_path"],
        "stage": header.get("stage"),
        "step": header.get("step"),
        "weights": trained.weights,
        "past_frames": past,
        "frames": frames,
        "draws": args.best_of,
        "similarity": args.similarity,
        "seed": args.seed,
        "options": option_texts(args.option),
        "device": trained.device,
    }
