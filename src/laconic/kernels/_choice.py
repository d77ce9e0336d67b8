"""Which form of a hot loop runs: one for the tensor's device, or the definition in plain PyTorch.

numba may be missing, too old for the interpreter, or unable to compile for a processor, and Triton missing
beside a GPU. Then the plain form runs, with the same result, and a warning says so once.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")

_found: dict[str, ModuleType | None] = {}
_plain = False


def on_gpu(tensor: Tensor) -> Any:
    """The kernels for GPUs, ``laconic.kernels._gpu``, where the tensor lies on one and Triton is there."""
    return _triton() if tensor.is_cuda else None


@cache
def _triton() -> ModuleType | None:
    try:
        return importlib.import_module("laconic.kernels._gpu")
    except ImportError as error:
        warnings.warn(
            "laconic runs its slow plain loops on the GPU, with the same results: Triton does not work here "
            f"({error}); install it with `pip install triton`",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


@contextmanager
def plainly() -> Iterator[None]:
    """Inside, the definitions run in the place of the compiled loops, to be held or measured against them."""
    global _plain  # noqa: PLW0603
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def loops(name: str) -> Any:
    """The module ``laconic.kernels._cpu.<name>``, or None where it cannot be had."""
    if name not in _found:
        # Imported here because numba takes longer to import than all the rest.
        try:
            _found[name] = importlib.import_module(f"laconic.kernels._cpu.{name}")
        except Exception as error:  # an unfit numba raises whatever it likes
            _give_up(name, error)
    return _found[name]


def compiled_or_plain(name: str, compiled: Callable[[Any], T], plain: Callable[[], T]) -> T:
    """``compiled(loops(name))``; ``plain()`` where these loops cannot be imported or compiled.

    A loop is compiled before it runs, so a failure to compile has changed nothing.
    """
    module = None if _plain else loops(name)
    if module is not None:
        try:
            return compiled(module)
        except Exception as error:
            if not _says_no_compiler(error):
                raise
            _give_up(name, error)
    return plain()


def _says_no_compiler(error: Exception) -> bool:
    """Whether numba or LLVM failed, rather than the arguments."""
    from numba.core.errors import NumbaError

    # llvmlite raises RuntimeError; OSError comes from a cache folder that is full or vanished.
    return isinstance(error, NumbaError | RuntimeError | OSError | NotImplementedError)


def _give_up(name: str, error: Exception) -> None:
    if all(module is not None for module in _found.values()):
        warnings.warn(
            "laconic runs its slow plain loops, with the same results: numba is missing or does not work "
            f"here ({type(error).__name__}: {str(error)[:200]}); install it with `pip install -U numba`",
            RuntimeWarning,
            stacklevel=4,
        )
    _found[name] = None
