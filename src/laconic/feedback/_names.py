"""Methods by name, as on the command line."""

from collections.abc import Callable

from laconic._nearest import look_up
from laconic.compressors import Compressor, Identity
from laconic.feedback._method import Feedback
from laconic.feedback._methods import DCGD, EF14, EF21, EF21SGDM, EF21Plus


def _gd(compressor: Compressor) -> Feedback:  # noqa: ARG001
    return DCGD(Identity())


METHODS: dict[str, Callable[[Compressor], Feedback]] = {
    "gd": _gd,
    "dcgd": DCGD,
    "ef14": EF14,
    "ef21": EF21,
    "ef21+": EF21Plus,
    "ef21-sgdm": EF21SGDM,
}


def make_feedback(name: str, compressor: Compressor) -> Feedback:
    """The method of that name with a compressor; "gd" is gradient descent and compresses nothing.

    Raises:
        ValueError: for an unknown name, with the nearest one.

    Example:
        >>> from laconic import TopK
        >>> make_feedback("ef21", TopK(1))
        EF21(compressor=TopK(k=1), init='gradient')
    """
    return look_up("method", name, METHODS)(compressor)
