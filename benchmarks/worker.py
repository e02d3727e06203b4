"""A process that holds one variant of one row and runs steps when it is asked to; started by `benchmarks.timing`.

    python -m benchmarks.worker '{"row": "dm-s", "variant": {...}, "subject": null}'

`subject` is what is measured: null for the vgen beside this file; the root of another checkout, whose vgen then runs
the same row; or a Python file with `build(row, device) -> step`. Requests and answers are lines of JSON.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident() -> int:
    """Bytes of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_resident() -> int:
    """The most bytes that this process has had.

    Not `ru_maxrss`, which begins with the size of the process that started this one.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _from_file(path: Path, row: str, device: str) -> Callable[[], Any]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(row, device)  # type: ignore[no-any-return]


def main() -> None:
    """Builds, then answers one request per line until its input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not come between the answers
    job = json.loads(sys.argv[1])
    subject = Path(job["subject"]) if job["subject"] else None
    if subject is not None and subject.is_dir():
        sys.path.insert(0, str(subject))

    import torch

    import vgen  # before anything that imports torchvision
    from benchmarks.cases import Variant, build

    torch.set_num_threads(job["threads"])
    torch.set_float32_matmul_precision("high")  # as the command line does
    variant = Variant(**job["variant"])
    on_gpu = variant.device == "cuda"
    before = resident()
    if subject is not None and subject.is_file():
        step = _from_file(subject, job["row"], variant.device)
    else:
        step = build(job["row"], variant)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    answer({"vgen": str(Path(vgen.__file__).parent)})
    for line in sys.stdin:
        if json.loads(line)["ask"] == "memory":
            peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident() - before
            answer({"peak_bytes": peak})
            continue
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer({**seconds, "loss": float(loss)})


if __name__ == "__main__":
    main()
