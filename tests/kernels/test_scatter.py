"""Adding nodes' coordinates in the order of nodes, bit for bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.kernels import scatter_add_
from laconic.kernels.cpu import scatter
from laconic.kernels.reference.scatter import scatter_add_reference


def loop(out, positions, values):
    """Nodes ascending, one row of out after another."""
    out = out.clone()
    for index in torch.cartesian_prod(*(torch.arange(n) for n in out.shape[:-1])) if out.dim() > 1 else [()]:
        place = tuple(index.reshape(-1).tolist()) if out.dim() > 1 else ()
        for node in range(positions.shape[-2]):
            where = positions[place][node]
            out[place][where] = out[place][where] + values[place][node]
    return out


def case(batch, d, nodes, k, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(*batch, nodes, d, generator=generator).argsort(dim=-1)[..., :k].sort(dim=-1).values
    spread = torch.exp2(torch.randint(-12, 12, positions.shape, generator=generator))
    values = (torch.randn(positions.shape, generator=generator) * spread).to(dtype)
    return torch.randn(*batch, d, generator=generator).to(dtype), positions, values


@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 999),
    st.data(),
)
def test_equals_the_loop(batch, d, nodes, seed, data):
    k = data.draw(st.integers(1, d))
    out, positions, values = case(tuple(batch), d, nodes, k, torch.float32, seed)
    expected = loop(out, positions, values)
    scatter_add_(out, positions, values)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 4])
def test_many_collisions_on_several_threads(dtype, threads):
    """Large enough for PyTorch to use its threads, and every position hit by nearly every node."""
    out, positions, values = case((), 3000, 100, 2500, dtype, 0)
    expected = loop(out, positions, values)
    shuffled = loop(out, positions.flip(0), values.flip(0))
    assert not torch.equal(shuffled, expected), "the order must matter, or this shows nothing"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        scatter_add_(out, positions, values)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(out, expected)


def test_a_batch_equals_its_rows():
    out, positions, values = case((4, 3), 50, 6, 20, torch.float32, 1)
    rows = out.clone()
    for i in range(4):
        for j in range(3):
            scatter_add_(rows[i, j], positions[i, j], values[i, j])
    scatter_add_(out, positions, values)
    assert torch.equal(out, rows)


def test_a_view_is_written_through():
    whole = torch.zeros(2, 10)
    scatter_add_(whole[:, 3:7], torch.tensor([[[0, 2]], [[1, 3]]]), torch.ones(2, 1, 2))
    assert whole.tolist() == [[0, 0, 0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(0, 999), st.data())
def test_compiled_rows_equal_pytorch(dtype, rows, d, nodes, seed, data):
    k = data.draw(st.integers(1, d))
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(rows, nodes, d, generator=generator).argsort(dim=-1)[..., :k].contiguous()
    values = torch.randn(rows, nodes, k, generator=generator, dtype=dtype)
    out = torch.randn(rows, d, generator=generator, dtype=dtype)
    expected = out.clone()
    scatter.add_rows(out.numpy(), positions.numpy(), values.numpy(), 2)
    scatter_add_reference(expected, positions, values)
    assert torch.equal(out, expected)


def test_long_scatter_add_refuses_positions_outside():
    for bad in (-1, 10_000):
        positions = torch.arange(9000).view(1, -1).clone()
        positions[0, 5] = bad
        with pytest.raises(IndexError):
            scatter_add_(torch.zeros(10_000), positions, torch.ones(1, 9000))
