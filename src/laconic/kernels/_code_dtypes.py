"""Codes in the narrowest integers that hold them.

A quantiser makes one for each coordinate, and writing four fresh bytes can take longer than rounding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CODE_DTYPES: dict[torch.dtype, type[np.signedinteger[Any]]] = {
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
}
"""The dtypes of codes, the narrowest first, and NumPy's of the same width."""


def code_dtype(top: int) -> torch.dtype:
    """The dtype of codes -top, ..., top: int8 up to 127, int16 up to 32767, else int32.

    Args:
        top: the number of positive levels, below 2^31.

    Example:
        >>> code_dtype(127), code_dtype(128), code_dtype(32768)
        (torch.int8, torch.int16, torch.int32)
    """
    return next(dtype for dtype in CODE_DTYPES if top <= torch.iinfo(dtype).max)


def empty_codes(shape: tuple[int, ...], top: int) -> Tensor:
    """Room in main memory for codes of ``top`` levels, in their dtype."""
    # NumPy asks for large pages where Linux has them; small ones would take longer than the codes.
    return torch.from_numpy(np.empty(shape, CODE_DTYPES[code_dtype(top)]))


def views_by_dtype(codes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """The codes as one of three arrays, the others empty, for loops that are compiled once for all widths."""
    return tuple(codes if codes.dtype == kind else np.empty(0, kind) for kind in CODE_DTYPES.values())
