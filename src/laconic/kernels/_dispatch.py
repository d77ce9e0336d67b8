"""Dispatch of each kernel to its form for the tensors' device, or to its reference; counters of what ran.

numba may be missing, too old for the interpreter, or unable to compile for a processor, and Triton missing
beside a GPU. Then the reference runs, with the same result, and a warning says so once.
"""

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")

_cpu_modules: dict[str, ModuleType | None] = {}
_reference_only = False
_counts: Counter[str] = Counter()


def kernel_counts() -> dict[str, int]:
    """How often each module of kernels ran in this process, by form: "cpu:selection", "reference:selection".

    For tests of which form runs.
    """
    return dict(_counts)


def on_gpu(tensor: Tensor) -> Any:
    """The kernels for GPUs, ``laconic.kernels.gpu``, where the tensor lies on one and Triton is there."""
    return _gpu_kernels() if tensor.is_cuda else None


@cache
def _gpu_kernels() -> ModuleType | None:
    try:
        return importlib.import_module("laconic.kernels.gpu")
    except ImportError as error:
        warnings.warn(
            "laconic runs its slow plain loops on the GPU, with the same results: Triton does not work here "
            f"({error}); install it with `pip install triton`",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


@contextmanager
def force_reference() -> Iterator[None]:
    """Inside, the references run in the place of compiled kernels, to be tested or measured against them."""
    global _reference_only  # noqa: PLW0603
    before, _reference_only = _reference_only, True
    try:
        yield
    finally:
        _reference_only = before


def cpu_kernels(name: str) -> Any:
    """The module ``laconic.kernels.cpu.<name>``, or None where it cannot be had."""
    if name not in _cpu_modules:
        # Imported here because numba takes longer to import than all the rest.
        try:
            _cpu_modules[name] = importlib.import_module(f"laconic.kernels.cpu.{name}")
            importlib.import_module("laconic.kernels.cpu._jit").forget_stale()
        except Exception as error:  # an unfit numba raises whatever it likes
            _give_up(name, error)
    return _cpu_modules[name]


def dispatch(
    name: str,
    cpu: Callable[[Any], T] | None,
    reference: Callable[[], T],
    *,
    gpu: Callable[[Any], Any] | None = None,
    tensor: Tensor | None = None,
) -> T:
    """Run a kernel in the form for the device of its tensors, and count it.

    A loop is compiled before it runs, so a failure to compile has changed nothing.

    Args:
        name: of the module ``laconic.kernels.cpu.<name>``.
        cpu: is given that module; None where its loops do not take these arguments. Where they cannot be
            imported or compiled, ``reference`` runs.
        reference: the definition.
        gpu: is given ``laconic.kernels.gpu``; None where its kernels do not take these arguments.
        tensor: what may lie on a device, where no loop for CPUs runs; None: all is in main memory.
    """
    if not _reference_only and gpu is not None and tensor is not None and (kernels := on_gpu(tensor)):
        _counts[f"gpu:{name}"] += 1
        found: T = gpu(kernels)
        return found
    elsewhere = tensor is not None and tensor.device.type != "cpu"
    module = None if _reference_only or cpu is None or elsewhere else cpu_kernels(name)
    if cpu is not None and module is not None:
        try:
            result = cpu(module)
        except Exception as error:
            if not _is_of_compiler(error):
                raise
            _give_up(name, error)
        else:
            _counts[f"cpu:{name}"] += 1
            return result
    _counts[f"reference:{name}"] += 1
    return reference()


def _is_of_compiler(error: Exception) -> bool:
    """Whether numba or llvmlite failed, rather than the arguments: it was raised in their code."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").partition(".")[0] in ("numba", "llvmlite"):
            return True
        frame = frame.tb_next
    return any(kind.__module__.partition(".")[0] == "numba" for kind in type(error).__mro__)


def _give_up(name: str, error: Exception) -> None:
    if all(module is not None for module in _cpu_modules.values()):
        warnings.warn(
            "laconic runs its slow plain loops, with the same results: numba is missing or does not work "
            f"here ({type(error).__name__}: {str(error)[:200]}); install it with `pip install -U numba`",
            RuntimeWarning,
            stacklevel=4,
        )
    _cpu_modules[name] = None
