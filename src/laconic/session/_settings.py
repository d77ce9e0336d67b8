"""Checks of numeric settings."""

import math


def check_setting(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a setting outside [low, high) with a ValueError that names it."""
    if not low <= float(value) < high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {float(value):g}")


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is not positive with a ValueError that names it."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
