"""`vgen.load`: from a run, checkpoint, export or hub id to a model that samples."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgen.errors import UserError
from vgen.weights.checkpoint import WeightsChoice, build_model, read_model_file

if TYPE_CHECKING:
    from vgen.training import VideoModule

_FILES = (".ckpt", ".pt", ".pth", ".safetensors")  # a missing file of such a name is no hub id
_CONTACT_SECONDS = 10


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
    model: VideoModule = build_model(read_model_file(locate(source), stage), weights)  # type: ignore[assignment]
    return model.to(device)


def locate(source: str | Path) -> Path:
    """The file or folder that `source` (see `load`) stands for; a hub id is fetched, or found in the hub's cache."""
    path = Path(source)
    # Where the first half is a folder here (`runs/...`), the second is a slip of the pen and not somebody's model.
    local = path.exists() or path.parent.is_dir() or path.suffix in _FILES
    return path if local or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) else _from_hub(str(source))


def _from_hub(repository: str) -> Path:
    """Downloads (or finds in the cache) an export that somebody pushed to the Hugging Face hub."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    reason, cached_only = "HF_HUB_OFFLINE is set", constants.HF_HUB_OFFLINE
    try:
        if not cached_only:
            try:
                # One short request first: the library repeats its own for minutes on a network that swallows packets.
                HfApi().model_info(repository, timeout=_CONTACT_SECONDS)
            except HfHubHTTPError:
                raise
            except Exception as error:
                reason, cached_only = f"no connection ({_first_line(error)})", True
        return Path(snapshot_download(repository, ignore_patterns=["samples/*"], local_files_only=cached_only))
    except Exception as error:
        what = f"not in the cache, and {reason}" if cached_only else _first_line(error)
        hint = "is the path right? (a folder or file of that name does not exist here either)"
        raise UserError(f"cannot get {repository!r} from the Hugging Face hub: {what}", repository, hint) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
