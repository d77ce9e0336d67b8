"""Adding many nodes' numbers in one pass, bit for bit against the plain form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.kernels import add_nodes_into, scatter_add_, set_threads
from laconic.kernels._cpu import scatter
from laconic.kernels.scatter import add_nodes_plainly, scatter_add_plainly_

REALS = [torch.float32, torch.float64]


@pytest.fixture(params=[1, 2])
def threads(request, monkeypatch):
    monkeypatch.setattr(scatter, "_WORTH", 1)
    set_threads(request.param)
    yield request.param
    set_threads(None)


def nodes_of(d, sizes, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positions = [torch.randperm(d, generator=generator)[:size].sort().values for size in sizes]
    values = [
        torch.randn(size, generator=generator).to(dtype) * 2.0 ** (i % 5) for i, size in enumerate(sizes)
    ]
    return torch.randn(d, generator=generator).to(dtype), positions, values


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("written", [None, torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [1, 5, 16_384, 50_001])
def test_equals_the_plain_form(dtype, written, d, threads):
    sizes = [d, 1, 0, max(1, d // 3), d // 2]
    memory, positions, values = nodes_of(d, sizes, dtype)
    weights = [0.1, 1 / 3, 1.0, 0.7, 3.0]
    for commit in (True, False):
        for scale in (1.0, 1 / 3):
            mine, other = memory.clone(), memory.clone()
            out, expected = (None if written is None else torch.zeros(d, dtype=written) for _ in range(2))
            add_nodes_into(mine, positions, values, weights, out, scale, commit=commit)
            add_nodes_plainly(other, positions, values, weights, expected, scale, commit=commit)
            assert torch.equal(mine, other)
            assert commit or torch.equal(mine, memory)
            assert written is None or torch.equal(out, expected)


def test_a_staged_write_and_a_later_commit_are_one_step(threads):
    memory, positions, values = nodes_of(40_000, [900, 800], torch.float32)
    staged, out, once, at_once = memory.clone(), torch.empty(40_000), memory.clone(), torch.empty(40_000)
    add_nodes_into(staged, positions, values, [0.5, 0.5], out, commit=False)
    add_nodes_into(staged, positions, values, [0.5, 0.5])
    add_nodes_into(once, positions, values, [0.5, 0.5], at_once)
    assert torch.equal(staged, once)
    assert torch.equal(out, at_once)
    assert torch.equal(out, once)


def test_a_product_is_rounded_before_it_is_added(threads):
    """(1 + 2^-12)^2 - 1 is 2^-11 + 2^-24; rounded first, the last term is gone."""
    memory = torch.full((20_000,), -1.0)
    x = torch.full((20_000,), 1 + 2.0**-12)
    add_nodes_into(memory, [torch.arange(20_000)], [x], [1 + 2.0**-12])
    assert torch.equal(memory, torch.full((20_000,), 2.0**-11))


def test_odd_numbers_are_written(threads):
    memory = torch.tensor([torch.inf, -torch.inf, torch.nan, 3.4e38, -0.0, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8])
    out = torch.zeros(8, dtype=torch.bfloat16)
    add_nodes_into(memory, [], [], [], out)
    assert torch.equal(out.isnan(), memory.isnan())
    assert torch.equal(out.nan_to_num(7), memory.bfloat16().nan_to_num(7))


@pytest.mark.parametrize("positions", [[-1, 3], [3, 20_000], [0, -5], [19_999, 3], [2**62, 2**62 + 1]])
def test_positions_that_do_not_fit_are_refused(positions, threads):
    memory = torch.zeros(20_000)
    places, numbers = torch.tensor(positions), torch.ones(len(positions))
    with pytest.raises(IndexError, match="outside the vector or out of order"):
        add_nodes_into(memory, [places], [numbers], [1.0])


def test_bad_arguments_are_refused():
    memory, place, number = torch.zeros(4), torch.tensor([1]), torch.ones(1)
    with pytest.raises(ValueError, match="2 nodes"):
        add_nodes_into(memory, [place, place], [number], [1.0])
    with pytest.raises(ValueError, match="node 0: positions must be int64"):
        add_nodes_into(memory, [place.int()], [number], [1.0])
    with pytest.raises(ValueError, match="out must be contiguous"):
        add_nodes_into(memory, [place], [number], [1.0], torch.zeros(5))
    with pytest.raises(ValueError, match="memory must be a contiguous vector"):
        add_nodes_into(memory.half(), [place], [number], [1.0])


@pytest.mark.parametrize("dtype", REALS)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(0, 999), st.data())
def test_compiled_rows_equal_pytorch(dtype, rows, d, nodes, seed, data):
    k = data.draw(st.integers(1, d))
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(rows, nodes, d, generator=generator).argsort(dim=-1)[..., :k].contiguous()
    values = torch.randn(rows, nodes, k, generator=generator, dtype=dtype)
    out = torch.randn(rows, d, generator=generator, dtype=dtype)
    expected = out.clone()
    scatter.add_rows(out.numpy(), positions.numpy(), values.numpy(), 2)
    scatter_add_plainly_(expected, positions, values)
    assert torch.equal(out, expected)


def test_long_scatter_add_refuses_positions_outside():
    for bad in (-1, 10_000):
        positions = torch.arange(9000).view(1, -1).clone()
        positions[0, 5] = bad
        with pytest.raises(IndexError):
            scatter_add_(torch.zeros(10_000), positions, torch.ones(1, 9000))
