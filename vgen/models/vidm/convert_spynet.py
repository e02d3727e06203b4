"""Official SpyNet weights of mmediting or pytorch-spynet -> an export for `flow_weights:` and `vgen.load`."""

from pathlib import Path
from typing import Literal

from vgen.errors import UserError
from vgen.models.vidm.flow_module import FlowModel
from vgen.models.vidm.weights import load_spynet
from vgen.nn.flow import SpyNet
from vgen.video import ClipSpec
from vgen.weights.checkpoint import describe_model
from vgen.weights.export import Export
from vgen.weights.official import source_facts
from vgen.weights.unpickle import read_official


def convert(file: str, variant: Literal["auto", "mmediting", "sniklaus"] = "auto") -> tuple[Export, list[str]]:
    """Converts SpyNet weights, which their authors license for non-commercial research.

    Args:
        file: spynet_20210409-c6c1bd09.pth of mmediting, or network-*.pytorch of pytorch-spynet.
        variant: How images are read; auto is that of the file.

    Returns:
        The export, and lines for people.

    Raises:
        UserError: The file holds other weights.
    """
    state = read_official(file)
    state = state.get("state_dict", state)
    names = [name.removeprefix("module.") for name in state]
    own: Literal["mmediting", "sniklaus"] = (
        "mmediting" if any(name.startswith("basic_module.") for name in names) else "sniklaus"
    )
    levels = {name.split(".")[1] for name in names if name.split(".")[0] in ("basic_module", "netBasic", "moduleBasic")}
    if not levels:
        raise UserError("the weights are not those of a SpyNet", file, "its names begin with basic_module or netBasic")
    network = SpyNet(own if variant == "auto" else variant, len(levels))
    load_spynet(network, state, file)
    model = FlowModel(ClipSpec(2, 128, 128), network)
    header = {**describe_model(model, model.clip_spec, None), "stage": "flow", "clips": 0}
    header["source"] = [source_facts(Path(file))]
    count = sum(value.numel() for value in network.parameters())
    return Export(header, model.state_dict()), [f"SpyNet ({network.variant}): {count:,} parameters"]
