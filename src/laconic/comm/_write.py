"""Writing an estimate into its destination."""

import torch
from torch import Tensor


def write(estimate: Tensor, out: Tensor, scale: float) -> bool:
    """``out <- estimate * scale``; whether out's dtype could hold it.

    A loss scale may push an estimate out of float16's range. All ranks have the same estimate, so all see
    it; the step is then void, as it is for a gradient that overflowed.
    """
    out.copy_(estimate if scale == 1.0 else estimate * scale)
    return out.dtype != torch.float16 or bool(torch.isfinite(out).all())
