"""`vgen.load`: from a run, checkpoint, export or hub id to a model that samples."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vgen.models
from vgen.errors import UserError
from vgen.weights.checkpoint import WeightsChoice, build_model, read_model_file

if TYPE_CHECKING:
    from vgen.training import VideoModule


def load(source: str | Path, stage: str | None = None, weights: WeightsChoice = "auto", device: str = "cpu") -> Any:
    """Builds a trained model from what describes itself.

    Args:
        source: Run directory, stage directory, checkpoint file, export folder, or a Hugging Face hub id `owner/name`.
        stage: Stage of a run directory; default the last one that has a checkpoint.
        weights: Averaged weights where the run kept them (`auto`), or explicitly `raw` or `ema`.
        device: Device to put the model on.

    Returns:
        The model in eval mode: `.sample(...)` and, where it encodes, `.reconstruct(batch)`.

    Raises:
        UserError: When nothing of that kind is there, or it does not fit this version of the code.
    """
    path = Path(source)
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) and not path.suffix:
        path = _from_hub(str(source))
    model: VideoModule = build_model(read_model_file(path, stage), weights)  # type: ignore[assignment]
    return model.to(device)


def _from_hub(repository: str) -> Path:
    """Downloads (or finds in the cache) an export that somebody pushed to the Hugging Face hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "is the path right? (a folder or file of that name does not exist here either)"
        raise UserError(f"cannot get {repository!r} from the Hugging Face hub: {reason}", str(repository), hint) from error
