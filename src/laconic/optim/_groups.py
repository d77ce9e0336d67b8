"""Parameter groups of an optimiser: names of parameters, settings in words, state in its saved dtype."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from laconic.session import plain_name


def named_parameters(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's own name where the optimiser was given names, else its number."""
    index = 0
    for group in groups:
        own = group.get("param_names")
        for place, parameter in enumerate(group["params"]):
            yield str(index) if own is None else plain_name(own[place].removeprefix("module.")), parameter
            index += 1


def restore_dtypes(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Copy the saved state in the dtype that it was saved in.

    ``Optimizer.load_state_dict`` converts it to the parameter's dtype, which would round the moments of a
    bfloat16 parameter, and shares the rest with the caller's dict.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, state in saved["state"].items():
        parameter = parameters[index]
        for key, value in state.items():
            if isinstance(value, Tensor):
                device = value.device if key == "step" else parameter.device
                optimizer.state[parameter][key] = value.detach().to(device, copy=True)
