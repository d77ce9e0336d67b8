"""A stand-in for a GPU: tensors of a device of their own in main memory, and Triton's interpreter.

Operations on its tensors run on the CPU and are counted as launches; copies to and from main memory and every
look at a number by the host are counted too. Whatever fails with a GPU's tensors fails here: ``.numpy()``, an
operation between devices, a pointer into main memory. So the way of a step on a device is tested without one.

:func:`install` must run before anything imports Triton. It is for a process of its own.
"""

import os
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext

import torch
from torch.utils._pytree import tree_leaves, tree_map

NAME = "standin"
counts: Counter[str] = Counter()
"""Launches by name, "copy to device", "copy to host" and "wait" since :func:`install`, by kind of event."""

_VIEWS = {
    "alias", "as_strided", "detach", "diagonal", "expand", "permute", "reshape", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "_unsafe_view",
    "_reshape_alias", "view_as_real", "lift_fresh",
}  # fmt: skip
_EMPTY = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


class DeviceTensor(torch.Tensor):
    """A tensor on the stand-in, around one in main memory."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(f"{NAME}:0"),
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner):
        self.inner = inner

    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *, force=False):
        raise TypeError(f"can't convert {NAME} device type tensor to numpy; use .cpu() first")

    def data_ptr(self):
        return self.inner.data_ptr()

    def record_stream(self, stream):
        pass

    def __repr__(self):
        return f"{NAME}: {self.inner!r}"


def on_host(value):
    """What stands behind a tensor of the stand-in; anything else as it is."""
    return value.inner if isinstance(value, DeviceTensor) else value


def _run(func, args, kwargs):
    name = func._schema.name.removeprefix("aten::")
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    mixed = [leaf for leaf in leaves if not isinstance(leaf, DeviceTensor) and leaf.dim()]
    device = kwargs.get("device")
    if name in ("copy_", "_to_copy", "_copy_from", "_foreach_copy_"):
        source = args[1] if name == "copy_" else args[0]
        target_host = (
            not isinstance(args[0], DeviceTensor)
            if name == "copy_"
            else device is not None and device.type == "cpu"
        )
        if target_host:
            counts["copy to host"] += 1
            if not kwargs.get("non_blocking") and not (name == "copy_" and len(args) > 2 and args[2]):
                counts["wait"] += 1
        elif isinstance(source, torch.Tensor) and not isinstance(source, DeviceTensor):
            counts["copy to device"] += 1
        else:
            counts[f"launch {name}"] += 1
    elif name in ("_local_scalar_dense", "nonzero", "item", "masked_select", "equal", "is_nonzero"):
        counts["wait"] += 1
        counts[f"wait {name}"] += 1
    elif mixed and name not in ("_pin_memory",):
        raise RuntimeError(f"expected all tensors to be on the same device, but {name} got {NAME} and cpu")
    elif name not in _VIEWS and name not in _EMPTY:
        counts[f"launch {name}"] += 1
        if name in ("index", "index_put_", "index_put") and any(
            isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in leaves[1:]
        ):
            counts["wait"] += 1
            counts["wait index by mask"] += 1
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            counts["wait"] += 1
            counts["wait repeat_interleave"] += 1
    given = dict(kwargs)
    if device is not None:
        given["device"] = torch.device("cpu")
    given.pop("pin_memory", None)
    found = func(*tree_map(on_host, args), **tree_map(on_host, given))
    if device is not None and torch.device(device).type == "cpu":
        return found
    if func._schema.is_mutable:
        written = [
            argument
            for argument, spec in zip(args, func._schema.arguments, strict=False)
            if spec.alias_info is not None and spec.alias_info.is_write
        ] or [kwargs[spec.name] for spec in func._schema.arguments if spec.kwarg_only and spec.is_out]
        return written[0] if len(func._schema.returns) == 1 else None
    return tree_map(lambda each: DeviceTensor(each) if isinstance(each, torch.Tensor) else each, found)


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return DeviceTensor(torch.empty(size, dtype=dtype))


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return DeviceTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    counts["copy to device" if isinstance(target, DeviceTensor) else "copy to host"] += 1
    on_host(target).copy_(on_host(source))
    return target


def _arange(*bounds, dtype=None, layout=None, device=None, pin_memory=None):
    counts["launch arange"] += 1
    return DeviceTensor(torch.arange(*bounds, dtype=dtype))


class _Event:
    def __init__(self, *args, **kwargs):
        pass

    def record(self, stream=None):
        pass

    def query(self):
        return True

    def synchronize(self):
        counts["wait"] += 1

    def elapsed_time(self, other):
        return 1.0


class _Stream:
    def __init__(self, *args, **kwargs):
        pass

    def wait_event(self, event):
        pass

    def wait_stream(self, stream):
        pass

    def synchronize(self):
        counts["wait"] += 1


_library = None


def install():
    """Make the device, and let the library's launches count and run on what stands behind its tensors."""
    global _library  # noqa: PLW0603
    if _library is not None:
        return torch.device(f"{NAME}:0")
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("set TRITON_INTERPRET=1 before anything imports Triton")
    os.environ["TRITON_INTERPRET"] = "1"
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    _library = torch.library.Library("aten", "IMPL")
    _library.impl("empty.memory_format", _empty, "PrivateUse1")
    _library.impl("empty_strided", _empty_strided, "PrivateUse1")
    for name in ("arange", "arange.start", "arange.start_step"):
        _library.impl(name, _arange, "PrivateUse1")
    _library.impl("_copy_from", _copy_from, "PrivateUse1")
    torch.cuda.Event, torch.cuda.Stream = _Event, _Stream
    torch.cuda.current_stream = lambda device=None: _Stream()
    torch.cuda.stream = torch.cuda.device_of = torch.cuda.device = lambda *_: nullcontext()
    torch.cuda.synchronize = lambda device=None: None
    from laconic.comm import exchange

    # PyTorch's futures know streams of devices in C++ alone.
    exchange.future_of = lambda _: torch.futures.Future()
    _count_kernels()
    return torch.device(f"{NAME}:0")


def _count_kernels():
    from laconic.kernels.gpu import _launch

    inner = _launch.run

    def run(kernel, programs, arguments, warps, constants):
        host = [isinstance(each, torch.Tensor) and not isinstance(each, DeviceTensor) for each in arguments]
        if any(host):
            raise RuntimeError(f"pointer argument {host.index(True)} of {kernel} lies in main memory")
        counts[f"launch {kernel.fn.__name__}"] += 1
        inner(kernel, programs, tuple(map(on_host, arguments)), warps, constants)

    _launch.run = run


def launches():
    """All launches counted so far."""
    return sum(count for name, count in counts.items() if name.startswith("launch "))


@contextmanager
def counted():
    """Gives a Counter of what happens inside, filled at the end."""
    before, found = counts.copy(), Counter()
    yield found
    found.update(counts - before)
