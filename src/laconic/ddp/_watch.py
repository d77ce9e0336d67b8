"""Warnings about the hook's use: gradients that no step uses, and a hook that is never called."""

import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from laconic.ddp._model import DDPModel


class UnusedGradients:
    """Warns once where a second gradient enters the memories before the optimiser has used the first.

    Args:
        optimizer: that trains the model.

    Raises:
        TypeError: where it has no hooks of ``step()``.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        """Watch the optimiser's steps."""
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}; give the one "
                "inside a wrapper"
            )
        self._waiting = self._stepping = self._warned = False
        self._handles = [
            optimizer.register_step_pre_hook(self._step_begins),
            optimizer.register_step_post_hook(self._step_ends),
        ]

    def _step_begins(self, *_: Any) -> None:
        self._waiting, self._stepping = False, True

    def _step_ends(self, *_: Any) -> None:
        self._waiting = self._stepping = False

    def backward_begins(self) -> None:
        """Warn where the gradient of the last backward pass has not been used."""
        if not self._waiting or self._warned:
            return
        self._warned = True
        warnings.warn(
            "two backward passes have gone through laconic's hook without optimizer.step() between them, "
            "so the memories have taken in a gradient that nobody used. Run passes whose gradients of this "
            "model are thrown away, such as a generator's through its discriminator, inside 'with "
            "state.paused():', and those that accumulate inside 'with model.no_sync():'",
            stacklevel=2,
        )

    def backward_ends(self, committed: bool) -> None:
        """A gradient waits for the optimiser, unless the step was void or a closure inside step() made it."""
        self._waiting = committed and not self._stepping

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()


class HookCalls:
    """Warns once where gradients have come, but DDP has not called the hook.

    Args:
        model: whose first and last parameters are watched.
    """

    def __init__(self, model: DDPModel) -> None:
        """Watch for gradients."""
        self.called = False
        self._model = model
        self._gradients = self._warned = False
        parameters = list(model.parameters.by_name.values())
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._gradient_came)  # type: ignore[no-untyped-call]
            for parameter in {parameters[0], parameters[-1]}
        ]

    def _gradient_came(self, _: Tensor) -> None:
        self._gradients = self._gradients or self._model.synchronises

    def check(self) -> None:
        """Warn where the hook should have been called."""
        if self.called or not self._gradients or self._warned:
            return
        self._warned = True
        warnings.warn(
            "backward passes have ended, but DDP has never called laconic's hook: gradients travelled whole, "
            "and the memories are empty. Register it with model.register_comm_hook(state, laconic.ddp.hook); "
            "Lightning's DDPStrategy registers hooks on CUDA only, so on a CPU do it yourself",
            stacklevel=3,
        )

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()
