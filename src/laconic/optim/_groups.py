"""Parameter groups of an optimiser: names of parameters, settings in words, state in its saved dtype."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
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


def restore_state(
    optimizer: Optimizer,
    saved: Mapping[str, Any],
    new_state: Callable[[Tensor], Mapping[str, Any]] = lambda _: {},
) -> None:
    """Copy the saved state in the dtype that it was saved in, and in the parameters' memory format.

    ``Optimizer.load_state_dict`` converts it to the parameter's dtype, which would round the moments of a
    bfloat16 parameter, and shares the rest with the caller's dict. Loops write to contiguous moments only,
    and saved ones may be of a model in another memory format.

    Args:
        optimizer: which has loaded ``saved``.
        saved: a state dict.
        new_state: of a parameter; what is in it is restored in its dtype there, because a dense optimiser's
            moments may be narrower than this one's.
    """
    keys = [key for group in saved["param_groups"] for key in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, parameter in zip(keys, parameters, strict=True):
        state = saved["state"].get(key, {})
        if not state:
            continue
        own, fresh = optimizer.state[parameter], new_state(parameter)
        for name, value in state.items():
            if not isinstance(value, Tensor):
                continue
            like = fresh.get(name)
            dtype = like.dtype if isinstance(like, Tensor) else value.dtype
            if name == "step":  # on the device where fused and capturable optimisers want it
                own[name] = value.detach().to(own[name].device, dtype, copy=True)
            elif name == LAST_NORM or value.shape != parameter.shape:
                device = value.device if name == LAST_NORM else parameter.device
                own[name] = value.detach().to(device, dtype, copy=True)
            else:
                own[name] = torch.empty_like(parameter, dtype=dtype, requires_grad=False).copy_(
                    value.detach()
                )
