"""Addition of kept coordinates to a vector, in a fixed order."""

from torch import Tensor


def scatter_add_reference(out: Tensor, positions: Tensor, values: Tensor) -> None:
    """The definition of :func:`laconic.kernels.scatter_add_`."""
    if out.device.type == "cpu":
        # The CPU kernel walks a row's indices in order; a test holds it against the loop below.
        out.scatter_add_(-1, positions.flatten(-2), values.flatten(-2))
        return
    for node in range(positions.shape[-2]):
        out.scatter_add_(-1, positions[..., node, :], values[..., node, :])
