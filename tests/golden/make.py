"""Writes the golden vectors again: PARITY_DIR=<vectors> python tests/golden/make.py

Refuses unless the networks pass parity with the official numbers in PARITY_DIR first.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import vgen  # noqa: E402, F401
from golden.networks import GOLDEN  # noqa: E402


@torch.no_grad()
def main() -> None:
    if not os.environ.get("PARITY_DIR"):
        sys.exit("set PARITY_DIR: golden vectors are written only by networks that just passed parity")
    if subprocess.run([sys.executable, "-m", "pytest", "-q", str(HERE.parent / "parity")], check=False).returncode:
        sys.exit("parity failed, nothing written")
    for name, compute in GOLDEN.items():
        inputs, outputs = compute(None)
        tensors = {f"in/{key}": value for key, value in inputs.items()}
        tensors |= {f"out/{key}": value for key, value in outputs.items()}
        save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / f"{name}.safetensors")
        print(name, (HERE / f"{name}.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
