"""Settings of an optimiser's groups by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor


def group_settings(groups: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """The settings of an optimiser's groups by name, which all ranks must share: they act on every replica.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.5)
        >>> group_settings(sgd.param_groups)["lr of group 0"]
        0.5
    """
    own = ("params", "param_names")
    return {
        f"{key} of group {number}": float(value) if isinstance(value, Tensor) else value
        for number, group in enumerate(groups)
        for key, value in sorted(group.items())
        if key not in own and (not isinstance(value, Tensor) or value.numel() == 1)
    }
