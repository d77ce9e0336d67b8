"""Adding nodes in order, against one loop over nodes and positions."""

import pytest
import torch
from same import numbers, same

from laconic.kernels import gpu


def one_by_one(out, positions, values):
    """``out <- fl(out + v)``, nodes ascending."""
    out = out.clone()
    for node in range(positions.shape[-2]):
        places = positions[..., node, :]
        out.scatter_(-1, places, out.gather(-1, places) + values[..., node, :].to(out.dtype))
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_any_order_of_positions(batch, dtype):
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(*batch, 3, 90, generator=generator).argsort(dim=-1)[..., :40]
    values = numbers((*batch, 3, 40), torch.float32, 2, edges=False)
    out = numbers((*batch, 90), dtype, 3, edges=False)
    expected = one_by_one(out, positions, values)
    gpu.scatter_add_(out, positions, values)
    assert same(out, expected)


def test_nodes_that_share_every_position():
    positions = torch.arange(10).expand(5, 10)
    values = torch.tensor([1e8, 1.0, -1e8, 1.0, 0.1])[:, None].expand(5, 10)
    out = torch.zeros(10)
    expected = one_by_one(out, positions, values)
    gpu.scatter_add_(out, positions, values)
    assert same(out, expected)


def test_more_positions_than_one_tile():
    positions, values = torch.arange(3000).expand(2, 3000), numbers((2, 3000), torch.float32, 5, edges=False)
    out = torch.ones(3000)
    expected = one_by_one(out, positions, values)
    gpu.scatter_add_(out, positions, values)
    assert same(out, expected)


def test_what_does_not_fit_is_refused():
    positions, values = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)
    with pytest.raises(ValueError, match="rows must be contiguous"):
        gpu.scatter_add_(torch.zeros(6)[::2], positions, values)
