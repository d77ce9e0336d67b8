"""Look-up of names, with the nearest one suggested where a name is unknown."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def look_up(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry of that name.

    Raises:
        ValueError: naming the nearest known name, or all of them where none is near.
    """
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")
