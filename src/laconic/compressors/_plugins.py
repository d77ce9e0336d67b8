"""Compressors of other packages, found by their entry points in the group ``laconic.compressors``."""

import inspect
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import UnionType
from typing import Union, get_args, get_origin

import torch

from laconic.compressors._base import Compressor
from laconic.compressors._registry_entry import Entry, count_or_fraction, dtype_named, truth

GROUP = "laconic.compressors"
"""The entry points' group, as it stands in a ``pyproject.toml``."""

_READERS: Mapping[object, Callable[[str], object]] = {
    int: int,
    float: float,
    frozenset((int, float)): count_or_fraction,
    bool: truth,
    str: str,
    torch.dtype: dtype_named,
}


@cache
def installed(builtin: frozenset[str]) -> Mapping[str, EntryPoint]:
    """The entry points of all installed packages by name; nothing of them is imported.

    A name that Laconic has itself, that cannot be written on a command line, or that two packages give
    is refused with a warning that names the packages.

    Args:
        builtin: the names that are taken.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    kept = {}
    for name, points in found.items():
        reason = _refusal(name, points, builtin)
        if reason:
            sources = " and ".join(_source(point) for point in points)
            warnings.warn(f"the compressor {name!r} of {sources} is left out: {reason}", stacklevel=3)
        else:
            kept[name] = points[0]
    return kept


def _refusal(name: str, points: Sequence[EntryPoint], builtin: Collection[str]) -> str:
    if name in builtin:
        return "Laconic has one of that name; give the entry point another name"
    if any(character in ":+" or character.isspace() for character in name):
        return "a name has no colon, plus or space; give the entry point another name"
    if len(points) > 1:
        return "only one package can give a name; uninstall the others"
    return ""


def _source(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
    return f"{package} ({point.value})"


@cache
def load(point: EntryPoint) -> Entry:
    """How to read a plugin's arguments, from the signature of what its entry point names.

    Args:
        point: names a compressor's class, or a function that returns a compressor. Arguments are given in
            the order of its parameters, which are annotated int, float, ``int | float``, bool, str or
            torch.dtype; from the first optional one with another annotation on, none can be given.

    Raises:
        ValueError: naming the plugin, where it cannot be imported or its arguments cannot be read.
    """
    try:
        make = point.load()
        signature = inspect.signature(make, eval_str=True)
    except Exception as error:  # whatever a foreign module does when it is imported
        raise _broken(point, f"{type(error).__name__}: {error}") from error
    usage, readers, required = point.name, [], 0
    for parameter in signature.parameters.values():
        needed = parameter.default is parameter.empty
        reader = _reader(parameter)
        if reader is None and needed:
            kinds = "int, float, int | float, bool, str or torch.dtype"
            raise _broken(point, f"its parameter {parameter.name!r} needs a default, or one of {kinds}")
        if reader is None:
            break
        usage += f":{parameter.name.upper()}" if needed else f"[:{parameter.name.upper()}"
        readers.append(reader)
        required += needed
    return Entry(usage + "]" * (len(readers) - required), _checked(point, make), tuple(readers), required)


def _reader(parameter: inspect.Parameter) -> Callable[[str], object] | None:
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return None
    annotation: object = parameter.annotation
    if get_origin(annotation) in (Union, UnionType):
        annotation = frozenset(get_args(annotation))
    return _READERS.get(annotation)


def _checked(point: EntryPoint, make: Callable[..., object]) -> Callable[..., Compressor]:
    def made(*arguments: object) -> Compressor:
        compressor = make(*arguments)
        if not isinstance(compressor, Compressor):
            raise _broken(point, f"it made a {type(compressor).__name__}, not a laconic.Compressor")
        return compressor

    return made


def _broken(point: EntryPoint, reason: str) -> ValueError:
    return ValueError(f"the compressor {point.name!r} of {_source(point)} cannot be used: {reason}")
