"""Conversion of checkpoints that older versions saved."""

from collections.abc import Mapping
from typing import Any


def converted(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A saved exchange of version 1 as one of version 2; any other as it is.

    In version 1 a memory was None before its first round; now it is zeros, which None is loaded as. All other
    fields mean the same.
    """
    return {**state, "version": 2} if state.get("version") == 1 else state
