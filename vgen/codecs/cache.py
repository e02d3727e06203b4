"""Latents of a training set, encoded once and kept on disk, where a stage sees the same clips in every epoch."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vgen.codecs.base import Latent
from vgen.files import write_atomic

Batch = dict[str, Any]


class LatentCache:
    """Tensors per clip, looked up by the clip's path.

    One safetensors file holds all clips; it is read once and stays in memory, so this is for sets whose latents fit
    there (LFDM's take 1.5 MB a clip at full size). The batches that fill it are always the same, so that a resumed run
    finds the numbers it had.

    Args:
        file: Where the cache lies.
        key: Everything that the latents depend on (data fingerprint, codec hash, clip settings); a file that was
            written under another key is replaced.
    """

    def __init__(self, file: Path, key: dict[str, Any]) -> None:
        self.file = file
        self.key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._rows: dict[str, int] = {}
        self._latents: Latent = {}

    def open(self) -> bool:
        """Reads the file, once; False where there is none under this key."""
        if self._rows:
            return True
        if not self.file.is_file():
            return False
        with safe_open(self.file, "pt") as content:
            facts = content.metadata() or {}
            if facts.get("key") != self.key:
                return False
            self._latents = {name: content.get_tensor(name) for name in content.keys()}
        self._rows = {path: row for row, path in enumerate(json.loads(facts["paths"]))}
        return True

    @torch.no_grad()
    def build(self, batches: Iterable[Batch], encode: Callable[[Batch], Latent]) -> None:
        """Encodes all batches and writes the file.

        Args:
            batches: Batches with `path`.
            encode: Tensors (B, ...) of one batch.
        """
        paths: list[str] = []
        parts: list[Latent] = []
        for batch in batches:
            paths += batch["path"]
            latent = encode(batch)
            # Codes stay whole numbers, in the type that the encoder chose for them.
            parts.append({name: (v.float() if v.is_floating_point() else v).cpu() for name, v in latent.items()})
        latents = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
        facts = {"key": self.key, "paths": json.dumps(paths)}
        write_atomic(self.file, lambda temporary: save_file(latents, temporary, metadata=facts))

    def __call__(self, paths: Sequence[str], device: torch.device) -> Latent:
        """The tensors (B, ...) of these clips."""
        rows = torch.tensor([self._rows[path] for path in paths])
        return {name: value[rows].to(device, non_blocking=True) for name, value in self._latents.items()}
