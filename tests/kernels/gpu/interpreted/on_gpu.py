"""The kernels' functions on a GPU for callers with tensors in main memory."""

import functools
import sys
from dataclasses import fields, is_dataclass, replace

import torch

from laconic.kernels import Stream, gpu
from laconic.kernels.tables import Vectors

DEVICE = torch.device("cuda", 0)


def run_on_gpu():
    """Put a form that copies in the place of each function."""
    for name in [name for name in vars(gpu) if not name.startswith("_")]:
        function = getattr(gpu, name)
        if callable(function) and getattr(function, "__module__", "").startswith("laconic.kernels.gpu."):
            setattr(gpu, name, copying(function))
    sums = sys.modules["laconic.kernels.gpu.sums"]
    sums._folded = copying(sums._folded)


def copying(function):
    """The function on copies on the GPU; what it changes there changes here, too."""

    @functools.wraps(function)
    def there(*arguments, **options):
        copies = {}
        inside = any(isinstance(each, torch.Tensor) and each.is_cuda for each in arguments)
        found = function(*_moved(arguments, copies), **_moved(options, copies))
        for own, copy in copies.values():
            if own.numel():
                own.copy_(copy.cpu())
        return found if inside else _back(found)

    return there


def _moved(value, copies):
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            return value
        key = value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
        if key not in copies:
            copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=DEVICE)
            copies[key] = value, copy.copy_(value)
        return copies[key][1]
    if isinstance(value, Vectors):
        if len(value.owners) > 1:
            return Vectors.of([_moved(owner, copies) for owner in value.owners])
        return Vectors.flat(_moved(value.owners[0], copies), value.starts)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(each, copies) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(each, copies) for each in value)
    if isinstance(value, dict):
        return {key: _moved(each, copies) for key, each in value.items()}
    if isinstance(value, str) and value == "cpu":
        return DEVICE
    if (
        not isinstance(value, Stream)
        and is_dataclass(value)
        and any(isinstance(getattr(value, f.name), torch.Tensor) for f in fields(value))
    ):
        own = [f.name for f in fields(value) if f.init and isinstance(getattr(value, f.name), torch.Tensor)]
        return replace(value, **{name: _moved(getattr(value, name), copies) for name in own})
    return value


def _back(found):
    if isinstance(found, torch.Tensor):
        return found.cpu()
    return tuple(map(_back, found)) if isinstance(found, (tuple, list)) else found
