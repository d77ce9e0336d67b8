"""The model that is to be trained: shapes of its parameters, and a training step where the user gives one."""

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from laconic.layout import Layout
from laconic.session import TrainedParameters, vectors_and_small

SIDE = 1024
"""Rows and columns of the matrices that stand for a model of which only the size is known."""


@dataclass(frozen=True)
class Workload:
    """A model.

    Args:
        shapes: of its trained parameters, by name.
        model: the module, where there is one.
        loss: called with the module, returns a loss to call ``backward`` of; None where only shapes are
            known.
    """

    shapes: dict[str, tuple[int, ...]]
    model: nn.Module | None = None
    loss: Callable[[nn.Module], Tensor] | None = None
    layout: Layout = field(init=False)

    def __post_init__(self) -> None:
        """Lay the parameters out as the hook and the optimisers do by default."""
        meta = {name: torch.empty(shape, device="meta") for name, shape in self.shapes.items()}
        exempt = [name for name, parameter in meta.items() if vectors_and_small(name, parameter)]
        object.__setattr__(self, "layout", Layout.of(self.shapes, bfloat16=exempt))

    @property
    def numel(self) -> int:
        """Trained parameters."""
        return self.layout.d

    @property
    def numel_exempt(self) -> int:
        """Those that are sent whole, in bfloat16."""
        return sum(segment.numel for segment in self.layout.segments if segment.rule != "compress")

    def sample(self, numel: int) -> tuple[Layout, float]:
        """The first parameters that have ``numel`` numbers together, and the share that they are of all."""
        chosen: dict[str, tuple[int, ...]] = {}
        total = 0
        for segment in self.layout.segments:
            fits = total + segment.numel <= numel
            shape = segment.shape if fits else ((numel - total) // SIDE, SIDE)
            if math.prod(shape) == 0:
                break
            chosen[segment.name] = shape
            total += math.prod(shape)
        exempt = [s.name for s in self.layout.segments if s.name in chosen and s.rule != "compress"]
        layout = Layout.of(chosen, bfloat16=exempt)
        return layout, layout.d / self.layout.d


def workload_of_size(numel: int) -> Workload:
    """A model of matrices with so many parameters.

    Example:
        >>> workload_of_size(3_000_000).numel >= 3_000_000
        True
    """
    matrices = max(1, -(-numel // SIDE**2))
    rows = max(1, -(-numel // (matrices * SIDE)))
    return Workload({f"weight{i}": (rows, SIDE) for i in range(matrices)})


def load_workload(target: str) -> Workload:
    """Call ``module:function``, which returns a module, or a module and a function from it to a loss.

    Raises:
        ValueError: for another form, a missing module or function, one that needs arguments, or another
            result.
        RuntimeError: from what importing the module or calling the function raised.
    """
    module_name, colon, function_name = target.partition(":")
    if not colon or not module_name or not function_name:
        raise ValueError(f"model {target!r}: give it as module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with of_user(f"importing {module_name}", ImportError):
            module = importlib.import_module(module_name)
        build = getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"model {target!r}: {error}") from error
    if isinstance(build, nn.Module) or not callable(build):
        raise ValueError(
            f"model {target!r} is a {type(build).__name__}, not a function: name a function without "
            f"arguments that returns the model, such as def build(): return {function_name}"
        )
    if problem := _cannot_take(build):
        raise ValueError(
            f"model {target!r} is called without arguments, but {problem}: name a function that needs none, "
            f"such as def build(): return {function_name}(...)"
        )
    with of_user(f"{target}()"):
        found = build()
    model, loss = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(model, nn.Module) or not (loss is None or callable(loss)):
        raise ValueError(
            f"model {target!r} returned {type(found).__name__}: return a torch.nn.Module, or one and "
            "a function from it to the loss of a batch"
        )
    if loss is not None and (problem := _cannot_take(loss, model)):
        raise ValueError(
            f"the loss of model {target!r} is called with the module alone, but {problem}: return a function "
            "that has its batch, such as lambda model: loss(model, batch)"
        )
    return of_model(model, loss)


def _cannot_take(function: Callable[..., object], *arguments: object) -> str:
    """Why a function cannot be called with these arguments; empty where it can, or nobody knows."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some functions that are not written in Python
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return ""


@contextmanager
def of_user(what: str, *passed: type[Exception]) -> Iterator[None]:
    """Let what the user's code raises keep its traceback: the command shows a ValueError as one line."""
    try:
        yield
    except passed:
        raise
    except Exception as error:
        raise RuntimeError(f"{what} failed: {type(error).__name__}: {error}") from error


def of_model(model: nn.Module, loss: Callable[[nn.Module], Tensor] | None) -> Workload:
    """The trained parameters of a module, and its loss."""
    parameters = TrainedParameters(model.named_parameters()).by_name
    return Workload({name: tuple(p.shape) for name, p in parameters.items()}, model, loss)
