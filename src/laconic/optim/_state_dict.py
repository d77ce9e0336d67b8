"""An optimiser's checkpoint: its state with the exchange's memories beside it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from laconic.optim._replicas import Replicas


def with_memories(state: dict[str, Any], replicas: Replicas) -> dict[str, Any]:
    """An optimiser's state dict and, under "exchange", what this rank remembers of what it sent."""
    state["exchange"] = replicas.state_dict()
    return state


def load_memories(state: Mapping[str, Any], replicas: Replicas) -> None:
    """Take over the memories of a state dict.

    Raises:
        ValueError: where it has none, or they are those of another rank, method or model.
    """
    if "exchange" not in state:
        raise ValueError(
            "the state has no 'exchange': it was saved by another optimiser, or by a tool that keeps only "
            "'state' and 'param_groups'; save this optimiser's own state_dict(), one file a rank"
        )
    replicas.load_state_dict(state["exchange"])


def restore_moments(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Copy the saved moments in the dtype that they were saved in.

    ``Optimizer.load_state_dict`` converts them to the parameter's dtype, which would round those of a
    bfloat16 parameter, and shares the rest with the caller's dict.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, saved in state["state"].items():
        parameter = parameters[index]
        for key, value in saved.items():
            if isinstance(value, Tensor):
                device = value.device if key == "step" else parameter.device
                optimizer.state[parameter][key] = value.detach().to(device, copy=True)
