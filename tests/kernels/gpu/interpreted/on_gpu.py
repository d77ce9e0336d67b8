"""The kernels' functions on a GPU, or its stand-in, for callers with tensors in main memory."""

import functools
import importlib
import os
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import torch

from laconic.kernels import Stream
from laconic.kernels.tables import Vectors


def device_for_tests():
    """The GPU, or with ``LACONIC_GPU_TESTS=standin`` its stand-in."""
    if os.environ["LACONIC_GPU_TESTS"] != "standin":
        return torch.device("cuda", 0)
    sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "gpu"))
    return importlib.import_module("stand_in").install()


def run_on_gpu():
    """Put a form that copies in the place of each function."""
    device, gpu = device_for_tests(), importlib.import_module("laconic.kernels.gpu")
    for name in [name for name in vars(gpu) if not name.startswith("_")]:
        function = getattr(gpu, name)
        if callable(function) and getattr(function, "__module__", "").startswith("laconic.kernels.gpu."):
            setattr(gpu, name, copying(function, device))
    sums = sys.modules["laconic.kernels.gpu.sums"]
    sums._folded = copying(sums._folded, device)


def copying(function, device):
    """The function on copies on the device; what it changes there changes here, too."""

    @functools.wraps(function)
    def there(*arguments, **options):
        if _is_there([*arguments, *options.values()]):
            return function(*arguments, **options)
        copies = {}
        given = _moved(arguments, copies, device), _moved(options, copies, device)
        found = function(*given[0], **given[1])
        for own, copy in copies.values():
            if own.numel() and 0 not in own.stride():
                own.copy_(copy.cpu())
        return _back(found)

    return there


def _is_there(value):
    """Whether any tensor or device in it is a GPU's: then the library itself calls."""
    if isinstance(value, torch.Tensor):
        return value.device.type != "cpu"
    if isinstance(value, torch.device):
        return value.type != "cpu"
    if isinstance(value, Vectors):
        return value.on_device and value.owners[0].device.type != "cpu"
    return isinstance(value, (tuple, list)) and any(map(_is_there, value))


def _moved(value, copies, device):
    if isinstance(value, torch.Tensor):
        key = value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
        if key not in copies:
            if 0 in value.stride():
                copy = value.contiguous().to(device)
            else:
                copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
                copy.copy_(value)
            copies[key] = value, copy
        return copies[key][1]
    if isinstance(value, Vectors):
        if len(value.owners) > 1:
            return Vectors.of([_moved(owner, copies, device) for owner in value.owners])
        return Vectors.flat(_moved(value.owners[0], copies, device), value.starts)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_moved(each, copies, device) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_moved(each, copies, device) for each in value)
    if isinstance(value, dict):
        return {key: _moved(each, copies, device) for key, each in value.items()}
    if isinstance(value, str) and value == "cpu":
        return device
    if not isinstance(value, Stream) and is_dataclass(value):
        own = [f.name for f in fields(value) if f.init and isinstance(getattr(value, f.name), torch.Tensor)]
        return replace(value, **{n: _moved(getattr(value, n), copies, device) for n in own}) if own else value
    return value


def _back(found):
    if isinstance(found, torch.Tensor):
        return found.cpu()
    return tuple(map(_back, found)) if isinstance(found, (tuple, list)) else found
