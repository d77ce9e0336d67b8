"""Checks of arguments at the boundary: errors that name the argument and what it may be."""

import math
from numbers import Integral, Real


def check_number(name: str, value: object, low: float = 0.0, high: float = math.inf) -> float:
    """A number in [low, high), which NaN and the infinities are not.

    Raises:
        TypeError: for what is not a number.
        ValueError: for one outside.

    Example:
        >>> check_number("lr", 0.1, 0.0)
        0.1
        >>> check_number("lr", "0.1", 0.0)
        Traceback (most recent call last):
        TypeError: lr must be a number, got '0.1'
    """
    if hasattr(value, "item") and not isinstance(value, (bool, Real)):
        value = value.item()  # a tensor or array of one element
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not low <= number < high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {number:g}")
    return number


def check_positive(name: str, value: object) -> float:
    """A finite number above 0.

    Raises:
        TypeError: for what is not a number.
        ValueError: for one that is not positive.
    """
    number = check_number(name, value, -math.inf)
    if not number > 0:
        raise ValueError(f"{name} must be positive, got {number:g}")
    return number


def check_count(name: str, value: object, least: int = 0) -> int:
    """An integer that is at least ``least``.

    Raises:
        TypeError: for what is not an integer.
        ValueError: for a smaller one.

    Example:
        >>> check_count("check_replicas_every", 2.5)
        Traceback (most recent call last):
        TypeError: check_replicas_every must be an integer, got 2.5
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_callable(name: str, value: object, signature: str) -> None:
    """A function.

    Raises:
        TypeError: for what cannot be called; ``signature`` says what it should be.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function {signature}, got {value!r}")


def check_instance(name: str, value: object, kind: type, example: str) -> None:
    """An instance of a class.

    Raises:
        TypeError: for anything else, with an example of what is meant.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} such as {example}, got {value!r}")
