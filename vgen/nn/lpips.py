"""The network of LPIPS (Zhang et al. 2018), by the authors' package, on backbone weights of torchvision's layout."""

import re
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

LPIPSBackbone = Literal["alex", "vgg"]


def lpips_network(net: LPIPSBackbone) -> Any:
    """An `lpips.LPIPS` with the package's linear heads; its backbone has random weights yet (see `backbone_names`)."""
    import lpips  # slow import, needed here alone

    with warnings.catch_warnings():
        # The package passes torchvision's old argument `pretrained`.
        warnings.filterwarnings("ignore", message="(?s).*(pretrained|Arguments other than a weight enum).*")
        return lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)


def backbone_names(network: Any) -> dict[str, str]:
    """Name of each backbone weight of such a network -> its name in torchvision's state dict."""
    # The slices keep torchvision's numbers: net.slice2.3.weight is features.3.weight.
    own = (key for key in network.state_dict() if key.startswith("net."))
    return {key: re.sub(r"^net\.slice\d+\.", "features.", key) for key in own}


def load_backbone(network: Any, official: Mapping[str, Tensor]) -> None:
    """Fills the backbone from torchvision's state dict."""
    filled = {key: official[name] for key, name in backbone_names(network).items()}
    network.load_state_dict({**network.state_dict(), **filled})
