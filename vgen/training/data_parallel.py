"""Training of copies of a model on several ranks."""

from lightning.pytorch.strategies import DDPStrategy


class DataParallel(DDPStrategy):
    """DDP, also where networks take turns.

    DDP waits for a gradient of every weight, which never comes where a backward pass reaches the generator or the
    discriminators alone. For modules that optimise by themselves (`AdversarialModule`) it is told to look, before each
    backward pass, which weights that pass does not reach (`find_unused_parameters`); other stages need not pay for it.
    """

    def __init__(self) -> None:
        super().__init__()

    def configure_ddp(self) -> None:
        """Wraps the module, which is known only now."""
        assert self.lightning_module is not None
        self._ddp_kwargs["find_unused_parameters"] = not self.lightning_module.automatic_optimization
        super().configure_ddp()
