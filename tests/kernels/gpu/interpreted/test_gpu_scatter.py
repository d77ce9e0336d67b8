"""Adding nodes in order, against one loop over nodes and positions."""

import pytest
import torch
from same import numbers, same

from laconic.kernels import _gpu


def one_by_one(out, positions, values, weights):
    """``out <- fl(out + fl(w v))``, nodes ascending."""
    out = out.clone()
    for node in range(positions.shape[-2]):
        number = values[..., node, :].to(out.dtype)
        if weights is not None:
            number = number * torch.as_tensor(weights, dtype=out.dtype)[node]
        places = positions[..., node, :]
        out.scatter_(-1, places, out.gather(-1, places) + number)
    return out


def kept(shape, d, seed, ascending=True):
    generator = torch.Generator().manual_seed(seed)
    *batch, k = shape
    places = torch.rand(*batch, d, generator=generator).argsort(dim=-1)[..., :k]
    return places.sort(dim=-1).values if ascending else places


@pytest.mark.parametrize("weights", [None, [0.1, -2.0, 1 / 3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_any_order_of_positions(batch, dtype, weights):
    positions = kept((*batch, 3, 40), 90, 1, ascending=False)
    values = numbers((*batch, 3, 40), torch.float32, 2, edges=False)
    out = numbers((*batch, 90), dtype, 3, edges=False)
    expected = one_by_one(out, positions, values, weights)
    _gpu.scatter_add_(out, positions, values, weights)
    assert same(out, expected)


@pytest.mark.parametrize("weights", [None, [0.1, -2.0, 1 / 3]])
@pytest.mark.parametrize("destination", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("d", [1, 64, 65, 300])
def test_with_a_destination(d, destination, weights):
    k = max(1, d // 3)
    # Small enough for float16: the interpreter warns of an overflow, a GPU does not.
    positions, values = kept((3, k), d, d), numbers((3, k), torch.float32, d, edges=False).clamp(-900, 900)
    out = numbers((d,), torch.float32, 4, edges=False).clamp(-900, 900)
    target = torch.full((d,), 7.0).to(destination)
    expected = one_by_one(out, positions, values, weights)
    _gpu.scatter_add_into(out, positions, values, weights, target, tile=64)
    assert same(out, expected)
    assert same(target, expected.to(destination))


def test_nodes_that_share_every_position():
    positions = torch.arange(10).expand(5, 10)
    values = torch.tensor([1e8, 1.0, -1e8, 1.0, 0.1])[:, None].expand(5, 10)
    out = torch.zeros(10)
    expected = one_by_one(out, positions, values, None)
    _gpu.scatter_add_into(out, positions, values, None, torch.empty(10), tile=64)
    assert same(out, expected)


def test_more_of_a_tile_than_one_chunk():
    positions, values = torch.arange(300).expand(2, 300), numbers((2, 300), torch.float32, 5, edges=False)
    out, target = torch.ones(300), torch.empty(300, dtype=torch.bfloat16)
    expected = one_by_one(out, positions, values, [0.5, 0.3])
    _gpu.scatter_add_into(out, positions, values, [0.5, 0.3], target, tile=512)
    assert same(out, expected)


def test_what_does_not_fit_is_refused():
    positions, values = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)
    with pytest.raises(ValueError, match=r"must be \(d,\)"):
        _gpu.scatter_add_into(torch.zeros(3), positions, values, None, torch.zeros(4))
    with pytest.raises(ValueError, match="contiguous"):
        _gpu.scatter_add_into(torch.zeros(6)[::2], positions, values, None, torch.zeros(3))
    with pytest.raises(ValueError, match="rows must be contiguous"):
        _gpu.scatter_add_(torch.zeros(6)[::2], positions, values)
