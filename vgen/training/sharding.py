"""Training whose weights, gradients, averages and optimiser states are spread over the ranks (FSDP2)."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer

from vgen.weights.sharded import gather, local, shard_like

__all__ = ["FullySharded", "gather", "local", "shard", "shard_like"]

# What Lightning, callbacks and commands call; for the time of each call a module has its weights.
_METHODS = (
    "training_step",
    "validation_step",
    "test_step",
    "predict_step",
    "conditions",
    "sample",
    "reconstruct",
    "illustrate",
)
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all ranks of all machines, with checkpoints like everybody else's.

    `last.ckpt` is one file with whole tensors, as it is under one device or DDP: it is handed over to later stages,
    exported and loaded in the same way, and a run can go on from it under another strategy or number of ranks. The
    price is that the first rank's CPU memory holds all weights and optimiser states while it writes.

    Lightning's own form of it (`ModelParallelStrategy`) writes a folder of shards in place, which a kill in between
    leaves unreadable, and has to be told the number of ranks.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes: a checkpoint holds whole states, of which `load_optimizer_state_dict` takes this rank's share."""
        return True

    def setup_environment(self) -> None:
        """Spreads over all ranks, however many there are."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights."""
        assert self.lightning_module is not None
        return self._first(gather(self.lightning_module.state_dict()))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole states, under the numbers that an optimiser of one device gives them."""
        return self._first(gather(optimizer.state_dict()))

    def _first(self, state: dict[str, Any]) -> dict[str, Any]:
        return state if self.is_global_zero else {}  # the others write nothing

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads the file on every rank; the module takes its shards in `on_load_checkpoint`."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Takes this rank's share of the states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [n for group in state["param_groups"] for n in group["params"]]
            own = dict(zip(numbers, parameters, strict=True))
            shares = {
                number: {
                    key: shard_like(value, own[number]) if getattr(value, "shape", None) == own[number].shape else value
                    for key, value in entries.items()
                }
                for number, entries in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Spreads the trainable weights of a LightningModule over the ranks of a mesh of one dimension.

    What stands in a ModuleList (blocks and layers) has its weights gathered when it is called, everything else for the
    time of a whole step. Frozen networks stay whole: other methods than `_METHODS` use them too.
    """
    frozen = {p for p in module.parameters() if not p.requires_grad}
    for block in reversed(list(_blocks(module))):  # the innermost first
        fully_shard(block, mesh=mesh, ignored_params=frozen)
    # Back to shards behind every call, also the outermost module: averages and checkpoints work on shards.
    fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=frozen)
    for name in _METHODS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.modules():
        for block in part if isinstance(part, nn.ModuleList) else ():
            if not isinstance(block, _CONTAINERS) and any(p.requires_grad for p in block.parameters()):
                yield block
