"""Floating-point operations of a training step, and what devices can do in a second."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.flop_counter import FlopCounterMode

# Dense peak of tensor cores in TFLOP/s: (bf16 or fp16 with fp32 accumulation, fp32 by TF32, fp32 without tensor cores).
# NVIDIA's data sheets, whose headline figures count zeros that structured sparsity skips: those are halved here. The
# first name that the device's name contains counts.
_PEAKS: dict[str, tuple[float, float, float]] = {
    "B200": (2250, 1125, 75),
    "H200 NVL": (835.5, 417.5, 60),
    "H200": (989.4, 494.7, 66.9),
    "H100 NVL": (835.5, 417.5, 60),
    "H100 PCIe": (756, 378, 51.2),
    "H100": (989.4, 494.7, 66.9),
    "A100": (312, 156, 19.5),
    "L40S": (362, 183, 91.6),
    "L40": (181, 90.5, 90.5),
    "L4": (121, 60, 30.3),
    "RTX 4090": (165.2, 82.6, 82.6),
    "RTX 3090": (71, 35.6, 35.6),
    "RTX A6000": (154.8, 77.4, 38.7),
    "A40": (149.7, 74.8, 37.4),
    "A10": (125, 62.5, 31.2),
    "V100": (125, 15.7, 15.7),
    "T4": (65, 8.1, 8.1),
}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Dense peak of a device in FLOP/s at a trainer's precision; None for CPUs and devices that are not listed."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    peaks = next((peaks for part, peaks in _PEAKS.items() if part in name), None)
    if peaks is None:
        return None
    half, tf32, plain = peaks
    if "16" in precision:
        return half * 1e12
    return (plain if torch.get_float32_matmul_precision() == "highest" else tf32) * 1e12


def step_flops(module: LightningModule, batch: Any, context: AbstractContextManager[Any] | None = None) -> int | None:
    """Counts the operations of one forward and backward pass: matrix products, convolutions and attention.

    The pass is one of its own: nothing is updated, and random numbers, gradients and buffers are as they were. Frozen
    networks that the loss runs count too, and so does what gradient checkpointing computes again.

    Args:
        module: A module with `loss(batch)` whose steps are that alone; for others nothing can be counted.
        batch: A training batch on the device.
        context: The precision's autocast.

    Returns:
        Operations (a multiplication and an addition are two), or None.
    """
    loss = getattr(module, "loss", None)
    if loss is None or not module.automatic_optimization:
        return None
    parameters = [p for p in module.parameters() if p.requires_grad]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    # Compiled code runs past the counter.
    with isolate_rng(), torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        with context or nullcontext():
            total = loss(batch)["loss"]
        torch.autograd.grad(total, parameters, allow_unused=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return int(counter.get_total_flops())
