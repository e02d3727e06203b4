"""Opening a pretrained text model, pooling its states, and tables of encoded class names on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.files import write_atomic

_CONTACT_SECONDS = 5.0  # how long to wait for the hub before saying that the model is missing


class TextModel:
    """A tokenizer and a frozen text model.

    Args:
        name: Model id or local folder.
        max_length: Longest text in tokens; None takes the model's own limit.

    Raises:
        UserError: It is not here and cannot be fetched.
    """

    def __init__(self, name: str, max_length: int | None = None) -> None:
        self.tokenizer, model = _load(name)
        # An encoder-decoder (T5) has one for texts; a two-tower model (CLIP) has one as an attribute.
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        else:
            model = getattr(model, "text_model", model)
        self.model = model.eval().requires_grad_(False)
        self.dim = int(self.model.config.hidden_size)
        limits = [max_length, self.tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
        self.max_length = min(limit for limit in limits if limit is not None)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @torch.no_grad()
    def encode(
        self,
        texts: list[str],
        pooling: Literal["mean_without_cls", "cls"],
        device: torch.device | str = "cpu",
        batch_size: int = 64,
    ) -> Tensor:
        """Encodes texts.

        Args:
            texts: N strings.
            pooling: See `pool`.
            device: Where to compute; the model stays there.
            batch_size: Texts at once.

        Returns:
            (N, dim) float32 on `device`.
        """
        self.model.to(device)
        rows = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                texts[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(device)
            # The words must not depend on the precision of the step that they are needed in.
            with torch.autocast(torch.device(device).type, enabled=False):
                states = self.model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                ).last_hidden_state
            rows.append(
                pool(states, tokens["input_ids"], tokens["attention_mask"], self.tokenizer.cls_token_id, pooling)
            )
        return torch.cat(rows)


def pool(
    states: Tensor,
    tokens: Tensor,
    attention_mask: Tensor,
    cls_token: int | None,
    pooling: Literal["mean_without_cls", "cls"],
) -> Tensor:
    """Reduces token states to one vector per text.

    Args:
        states: (N, L, D) last hidden states.
        tokens: (N, L) token ids.
        attention_mask: (N, L), 0 at padding.
        cls_token: Id of the leading summary token; None for models without one, where nothing is left out.
        pooling: `mean_without_cls` (LFDM: over all tokens but [CLS] and padding, [SEP] included) or `cls` (the first).

    Returns:
        (N, D) float32.
    """
    states = states.float()
    if pooling == "cls":
        return states[:, 0]
    keep = attention_mask.bool().clone()
    if cls_token is not None:
        keep[:, 0] &= tokens[:, 0] != cls_token
    weight = keep.float().unsqueeze(-1)
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def _load(name: str) -> tuple[Any, Any]:
    from huggingface_hub import constants
    from transformers import AutoModel, AutoTokenizer

    def open_both(local: bool) -> tuple[Any, Any]:
        # safetensors only: the other form is a pickle.
        model = AutoModel.from_pretrained(name, local_files_only=local, use_safetensors=True)
        return AutoTokenizer.from_pretrained(name, local_files_only=local), model

    # transformers raises OSError for a missing file, ValueError for a folder that is no model, and others besides.
    try:
        return open_both(local=True)
    except Exception as error:
        first_error = error
    looked = f"{os.path.abspath(name)} and " if os.path.isdir(name) or os.sep in name else ""
    where = f"{looked}the Hugging Face cache {constants.HF_HUB_CACHE}"
    if os.path.isdir(name):
        raise UserError(
            f"the folder {name!r} does not hold a text model that can be read: {_first_line(first_error)}",
            where=os.path.abspath(name),
            hint="it needs config.json, model.safetensors and the tokenizer's files, as save_pretrained writes them",
        ) from first_error
    reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        try:
            _contact_hub(name)
            return open_both(local=False)
        except Exception as error:
            reason = f"the hub did not give it: {_first_line(error)}"
    raise UserError(
        f"the text model {name!r} is not on this machine, and {reason}",
        where=where,
        hint=f"fetch it where there is a connection with `hf download {name}` and copy the cache, or set "
        "conditioner.model to a local folder; a learned LabelEmbedding needs no text model",
    ) from first_error


def _contact_hub(name: str) -> None:
    """One short request: the library's own attempts are repeated for minutes on a network that swallows packets."""
    from huggingface_hub import HfApi

    HfApi().model_info(name, timeout=_CONTACT_SECONDS)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def table_file(cache_dir: str, model: str, pooling: str, max_length: int | None, class_names: Sequence[str]) -> Path:
    """Where the vectors of these class names are kept: the name is a hash of all that decides them."""
    source = {
        "model": _folder_hash(Path(model)) if os.path.isdir(model) else model,
        "pooling": pooling,
        "max_length": max_length,
        "names": list(class_names),
    }
    digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:20]
    return Path(cache_dir) / f"class_names_{digest}.safetensors"


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt", ".model")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_table(path: Path, classes: int, dim: int) -> Tensor | None:
    """Returns the table (classes, dim) of a file, or None where there is none that fits."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        table = load_file(path)["table"]
    except (OSError, SafetensorError, KeyError):
        return None
    return table if table.shape == (classes, dim) else None


def write_table(path: Path, table: Tensor) -> None:
    """Writes a table in one step, so that several ranks may do so at once."""
    from safetensors.torch import save_file

    write_atomic(path, lambda temporary: save_file({"table": table.detach().cpu().contiguous()}, temporary))
