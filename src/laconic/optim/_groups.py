"""Parameter groups of an optimiser: names of parameters, settings in words, state in its saved dtype."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from laconic.optim._clipping import LAST_NORM
from laconic.session import plain_name

WITHOUT_DDP = (
    "the model is inside DistributedDataParallel, which would average whole gradients before laconic "
    "compresses the updates. Give the optimiser the model itself, not put into DDP (it exchanges the updates "
    "and starts all ranks from rank 0's parameters), or keep DDP with laconic.ddp.hook and another optimiser"
)


def named_parameters(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Each parameter's own name where the optimiser was given names, else its number.

    Raises:
        ValueError: for the names of a model inside DDP.
    """
    index = 0
    for group in groups:
        own = [plain_name(name) for name in group.get("param_names") or ()]
        if own and all(name.startswith("module.") for name in own):
            raise ValueError(f"all names of parameters begin with 'module.': {WITHOUT_DDP}")
        for place, parameter in enumerate(group["params"]):
            yield own[place] if own else str(index), parameter
            index += 1


def restore_dtypes(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Copy the saved state in the dtype that it was saved in.

    ``Optimizer.load_state_dict`` converts it to the parameter's dtype, which would round the moments of a
    bfloat16 parameter, and shares the rest with the caller's dict.
    """
    keys = [key for group in saved["param_groups"] for key in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, parameter in zip(keys, parameters, strict=True):
        state = saved["state"].get(key, {})
        for name, value in state.items():
            if isinstance(value, Tensor):
                device = value.device if name in ("step", LAST_NORM) else parameter.device
                optimizer.state[parameter][name] = value.detach().to(device, copy=True)
