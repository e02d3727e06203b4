"""Seconds per code of VideoGPT's prior with keys and values kept, and with everything computed anew.

    python -m benchmarks.decoding                        # 1,024 codes, a prior 192 wide, one thread
    python -m benchmarks.decoding --hidden 576 --layers 8 --device cuda

Both draw the same codes (a test says so). What is timed are the last codes of a clip, which have the whole clip before
them. Results go to benchmarks/results/decoding_<hardware>.json.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import cpu_name, facts, gpu_name, slug
from vgen.files import write_json
from vgen.models.videogpt import CodeTransformer

RESULTS = Path(__file__).parent / "results"
_CODES, _WIDTH = 256, 64  # of a codebook: hardly any of the cost


@torch.no_grad()
def kept(network: CodeTransformer, clips: int, last: int) -> list[float]:
    """Seconds of each of the last codes, with what came of the earlier ones kept."""
    vectors = torch.randn(_CODES, _WIDTH, device=network.start.device)
    decoding, spent = network.steps(clips), list[float]()
    steps = iter(decoding)

    def step() -> None:
        decoding.put(vectors[next(steps).argmax(-1)])

    for place in range(network.length):
        seconds = _timed(step, network.start.device)
        if place >= network.length - last:
            spent.append(seconds)
    return spent


@torch.no_grad()
def anew(network: CodeTransformer, clips: int, last: int) -> list[float]:
    """Seconds of the last code, computed from all before it, as often as `kept` measures."""
    device = network.start.device
    vectors = torch.randn(_CODES, _WIDTH, device=device)
    tokens = torch.randn(clips, network.length, network.hidden_dim, device=device)

    def step() -> None:
        x = network.hidden(tokens)[:, -1:]
        codes = network.logits(network.norm(x, None))[:, 0].argmax(-1)
        tokens[:, -1] = network.embed(vectors[codes])

    step()
    return [_timed(step, device) for _ in range(last)]


def _timed(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(network: CodeTransformer, clips: int, last: int) -> dict[str, Any]:
    """Both, and their ratio."""
    found: dict[str, Any] = {}
    for name, times in (("kept", kept(network, clips, last)), ("anew", anew(network, clips, last))):
        low, median, high = statistics.quantiles(times, n=4)
        found[name] = {"q1": low, "median": median, "q3": high}
        print(f"{name:<6} {1000 * median:9.2f} ms per code ({1000 * low:.2f} to {1000 * high:.2f})", flush=True)
    found["ratio"] = found["anew"]["median"] / found["kept"]["median"]
    print(f"keeping them is {found['ratio']:.1f} times as fast", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--grid", type=int, nargs=3, default=(4, 16, 16), help="codes of a clip: t h w")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--attention", choices=("full", "sparse"), default="full")
    parser.add_argument("--clips", type=int, default=1, help="clips drawn at once (default 1)")
    parser.add_argument("--last", type=int, default=16, help="codes that are timed (default 16)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (default 1)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="default: results/decoding_<hardware>.json")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here")
        return 2
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    network = CodeTransformer(args.hidden, args.heads, args.layers, attention=args.attention)
    t, h, w = args.grid
    network.prepare((t, h, w), _CODES, _WIDTH)
    settings = {name: getattr(args, name) for name in ("hidden", "layers", "heads", "attention", "clips", "last")}
    content = {"benchmark": "decoding", **facts(args.threads), "codes": t * h * w, **settings}
    content |= measure(network.to(args.device).eval(), args.clips, args.last)
    content["load_average_after"] = list(os.getloadavg())
    hardware = (gpu_name() if args.device == "cuda" else None) or cpu_name()
    out = args.out or RESULTS / f"decoding_{slug(hardware)}.json"
    write_json(out, content)
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
