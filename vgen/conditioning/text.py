"""Class names and captions as vectors of a pretrained text model."""

from typing import Any, Literal

import torch
from torch import Tensor

from vgen.conditioning.base import Conditioner, is_null_text, label_indices
from vgen.conditioning.text_model import TextModel, read_table, table_file, write_table
from vgen.errors import UserError
from vgen.video import ClipSpec

_CAPTIONS_KEPT = 10_000  # of 768 floats each: 30 MB


class TextEncoder(Conditioner):
    """Sentence vectors of a frozen text model from the `transformers` library.

    LFDM (section 3.3) takes the last hidden states of `bert-base-cased` and averages them over all tokens except the
    leading [CLS] and padding; the closing [SEP] is included. That is `pooling="mean_without_cls"`.

    Class names are encoded once, at the first need, into a table that is a buffer of this module: a model that was
    loaded from a checkpoint needs no text model for its classes. Other texts are encoded when they come.

    Args:
        model: Model id on the Hugging Face hub, or a local folder in the form that `save_pretrained` writes.
        dim: Width of the model's hidden state.
        pooling: `mean_without_cls`, or `cls` (the state of the leading token alone).
        max_length: Longest text in tokens; longer ones are cut. None takes the model's own limit.
        cache_dir: Folder for encoded class-name tables, shared between runs; None keeps none on disk.
    """

    table: Tensor
    table_filled: Tensor

    def __init__(
        self,
        model: str = "bert-base-cased",
        dim: int = 768,
        pooling: Literal["mean_without_cls", "cls"] = "mean_without_cls",
        max_length: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(dim)
        if pooling not in ("mean_without_cls", "cls"):
            raise UserError(f"unknown pooling {pooling!r}", where="conditioner.pooling")
        self.model, self.pooling, self.max_length, self.cache_dir = model, pooling, max_length, cache_dir
        self.register_buffer("table", torch.zeros(0, dim))
        # Says, in the checkpoint, whether the table holds vectors; `_ready` is its copy that needs no device sync.
        self.register_buffer("table_filled", torch.zeros((), dtype=torch.bool))
        self._ready = False
        self._captions: dict[str, Tensor] = {}
        # In a list, so that it is no submodule: it belongs neither to the parameters nor to the checkpoint.
        self._text_model: list[TextModel] = []

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Takes the class names of the data and makes room for their vectors."""
        super().prepare(clip_spec)
        self.table = torch.zeros(len(self.class_names), self.dim, device=self.table.device)
        self.table_filled = torch.zeros_like(self.table_filled)
        self._ready = False

    def materialize(self) -> None:
        """Encodes the class names, from the disk cache where it has them.

        Raises:
            UserError: The text model is missing.
        """
        if self._ready or not self.class_names:
            return
        path = None
        if self.cache_dir is not None:
            path = table_file(self.cache_dir, self.model, self.pooling, self.max_length, self.class_names)
        rows = None if path is None else read_table(path, len(self.class_names), self.dim)
        if rows is None:
            rows = self._open().encode(list(self.class_names), self.pooling)
            if path is not None:
                write_table(path, rows)
        with torch.no_grad():
            self.table.copy_(rows)
            self.table_filled.fill_(True)
        self._ready = True

    def forward(self, conditions: dict[str, Any]) -> Tensor:
        """Embeds `conditions["text"]` (class names or captions) or else `conditions["label"]`.

        Args:
            conditions: Per-clip conditions; see `Conditioner.forward`. A `label` has to be a class of the data; a
                `text` may be anything.

        Returns:
            (B, dim) without gradient; rows without a condition are zeros.

        Raises:
            UserError: An unknown class name, or a text model that is needed and missing.
        """
        texts = conditions.get("text")
        if texts is not None:
            return self._embed_texts([texts] if isinstance(texts, str) else list(texts))
        if conditions.get("label") is None:
            raise UserError("nothing to condition on", where="conditions", hint="give `label` or `text`")
        if not self.class_names:
            raise UserError(
                "labels cannot be encoded: the data has no class names", where="conditions", hint="give `text`"
            )
        self.materialize()
        return self._rows(label_indices(conditions["label"], self.class_names))

    def _rows(self, indices: Tensor) -> Tensor:
        indices = indices.to(self.table.device, non_blocking=True)
        return self.table[indices.clamp_min(0)] * (indices >= 0).to(self.table.dtype)[:, None]

    def _embed_texts(self, texts: list[str | None]) -> Tensor:
        known = {name: index for index, name in enumerate(self.class_names)}
        words = [None if text is None or (is_null_text(text) and text not in known) else text for text in texts]
        captions = sorted({text for text in words if text is not None and text not in known})
        if any(text in known for text in words if text is not None):
            self.materialize()
        if not captions:
            return self._rows(torch.tensor([-1 if text is None else known[text] for text in words], dtype=torch.int64))
        vectors = self._caption_vectors(captions)
        zeros = self.table.new_zeros(self.dim)
        rows = [zeros if t is None else self.table[known[t]] if t in known else vectors[t] for t in words]
        return torch.stack(rows)

    def _caption_vectors(self, captions: list[str]) -> dict[str, Tensor]:
        new = [text for text in captions if text not in self._captions]
        vectors = {text: self._captions[text] for text in captions if text in self._captions}
        if new:
            vectors.update(zip(new, self._open().encode(new, self.pooling, self.table.device), strict=True))
            if len(self._captions) + len(new) > _CAPTIONS_KEPT:
                self._captions.clear()
            self._captions.update({text: vectors[text] for text in new})
        return {text: vector.to(self.table) for text, vector in vectors.items()}

    def _open(self) -> TextModel:
        if not self._text_model:
            text_model = TextModel(self.model, self.max_length)
            if text_model.dim != self.dim:
                raise UserError(
                    f"the text model {self.model!r} gives vectors of width {text_model.dim}, not {self.dim}",
                    where="conditioner.dim",
                    hint=f"set dim (and the network's condition width) to {text_model.dim}",
                )
            self._text_model.append(text_model)
        return self._text_model[0]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        rows = state_dict.get(f"{prefix}table")
        if rows is not None and not self.class_names and rows.shape[1:] == self.table.shape[1:]:
            # Loaded before `prepare`, which tests and converters may do: take the size from the file.
            self.table = self.table.new_zeros(rows.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._ready = bool(self.table_filled)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the text model out of copies and pickles (EMA copies, spawned workers): it is opened again."""
        state = self.__dict__.copy()
        state.update(_text_model=[], _captions={})
        return state
