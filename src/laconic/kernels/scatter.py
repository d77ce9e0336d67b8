"""Adding kept coordinates to a vector, in a fixed order."""

from torch import Tensor


def scatter_add_(out: Tensor, positions: Tensor, values: Tensor) -> None:
    """``out[..., positions] += values`` in place, for n nodes one after another.

    Where several nodes hold the same position they are added in ascending order of nodes, so the sum
    is the same wherever it is formed.

    Args:
        out: (..., d).
        positions: int64 (..., n, k) in [0, d), distinct along the last dimension.
        values: (..., n, k), dtype of out.

    Example:
        >>> import torch
        >>> out = torch.zeros(4)
        >>> scatter_add_(out, torch.tensor([[0, 3], [1, 3]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> out
        tensor([1., 3., 0., 6.])
    """
    if out.device.type == "cpu":
        # The CPU kernel walks a row's indices in order; a test holds it against the loop below.
        out.scatter_add_(-1, positions.flatten(-2), values.flatten(-2))
        return
    for node in range(positions.shape[-2]):
        out.scatter_add_(-1, positions[..., node, :], values[..., node, :])
