"""The compiled loops equal the plain definitions, on what they write and on what they refuse."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from laconic.kernels import _choice, blocks, coding, packing
from laconic.kernels._narrow import CODE_DTYPES, code_dtype
from laconic.sizes import low_bits, symbol_bits


@st.composite
def positions(draw):
    """(d, positions): uniform, clustered, or at the edges."""
    d = draw(st.sampled_from([1, 2, 7, 64, 65, 1000, 50_000, 2**31]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = min(d, draw(st.sampled_from([1, 3, 70, 200])))
    uniform = rng.integers(0, d, most)
    clustered = (d * rng.random(most) ** 9).astype(np.int64)
    places = uniform if draw(st.booleans()) else clustered
    return d, np.unique(places.astype(np.int64))


def both(function, *arguments):
    """What the loop and its definition return, or the fact that they refuse."""
    results = []
    for module in (coding, packing):
        try:
            results.append(getattr(module, function)(*arguments))
        except ValueError:
            results.append(None)
    return results


def agree(function, *arguments):
    fast, plain = both(function, *arguments)
    assert (fast is None) == (plain is None), (function, fast, plain)
    if isinstance(fast, tuple):
        assert all(np.array_equal(a, b) for a, b in zip(fast, plain, strict=True)), function
    elif fast is not None:
        assert fast.dtype == plain.dtype
        assert np.array_equal(fast, plain), function
    return fast


@given(positions(), st.integers(0, 12), st.data())
@settings(max_examples=300)
def test_positions(case, low, data):
    d, places = case
    k = places.size
    for function, extra in (("elias_fano", (low,)), ("elias_fano", (low_bits(d, k),)), ("bitmap", ())):
        if (d >> low) > 10**6 or (function == "bitmap" and d > 10**6):
            continue
        packed = agree(f"put_{function}", places, d, *extra)
        assert np.array_equal(agree(f"get_{function}", packed, d, k, *extra), places)
        broken = broken_by(data, packed)
        agree(f"get_{function}", broken, d, k, *extra)


@given(positions(), st.data())
@settings(max_examples=300)
def test_rice(case, data):
    d, places = case
    k = places.size
    params, low, high = agree("put_rice", places, d)
    lows, total = coding.rice_lows(params, k)
    plain, plain_total = packing.rice_lows(params, k)
    assert np.array_equal(lows, plain)
    assert total == plain_total
    assert low.size == (total + 7) // 8
    assert np.array_equal(agree("get_rice", lows, low, high, d, k), places)
    agree("get_rice", lows, broken_by(data, low), high, d, k)
    agree("get_rice", lows, low, broken_by(data, high), d, k)
    agree("get_rice", lows, low, high, int(places[-1]) + 1, k)
    agree("get_rice", lows, low, high, max(1, int(places[-1])), k)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32), st.data())
def test_cells(length, cells, seed, data):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, length + 1))
    each = [np.sort(rng.choice(length, count, replace=False)) + length * i for i in range(cells)]
    places, d = np.concatenate(each).astype(np.int64), cells * length
    packed = agree("put_cells", places, d, length, count)
    assert np.array_equal(agree("get_cells", packed, d, places.size, length, count), places)
    agree("get_cells", broken_by(data, packed), d, places.size, length, count)
    agree("put_cells", places[1:], d, length, count)


@given(st.sampled_from([2, 3, 4, 5, 6, 7, 16, 17, 243, 256, 511, 2**21 + 1]), st.integers(0, 150), st.data())
@settings(max_examples=200)
def test_codes(symbols, k, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    base = data.draw(st.sampled_from([0, 0, 5])) if symbols % 2 else 0
    most = symbols // 2
    codes = rng.integers(1, most + 1, k) + base
    codes = codes * rng.choice([-1, 1], k)
    if symbols % 2:
        codes[rng.random(k) < 0.2] = 0
    top = data.draw(st.sampled_from([n for n in (most + base, 127, 128, 32767, 32768) if n >= most + base]))
    codes = codes.astype(CODE_DTYPES[code_dtype(top)])
    arguments = (base, symbols, *symbol_bits(symbols))
    packed = agree("put_codes", codes, *arguments)
    found = agree("get_codes", packed, *arguments, k, top)
    assert found.dtype == codes.dtype
    assert np.array_equal(found, codes)
    agree("get_codes", broken_by(data, packed), *arguments, k, top)
    if k:
        least, largest = np.iinfo(codes.dtype).min, np.iinfo(codes.dtype).max
        wrong = data.draw(st.sampled_from([0, base, -base, most + base + 1, largest, least]))
        codes[rng.integers(k)] = max(least, min(largest, wrong))
        agree("put_codes", codes, *arguments)


@pytest.mark.parametrize("symbols", [2 * 127 + 1, 2 * 128 + 1, 2**8, 2**16, 2 * 32767 + 1, 2 * 32768 + 1])
def test_the_lowest_and_the_highest_code_of_a_width(symbols):
    top = symbols // 2
    wide = np.array([top, -top, 1, -1, top - 1, 1 - top])
    codes = wide.astype(CODE_DTYPES[code_dtype(top)])
    assert np.array_equal(codes, wide)
    arguments = (0, symbols, *symbol_bits(symbols))
    packed = agree("put_codes", codes, *arguments)
    assert np.array_equal(packed, agree("put_codes", wide, *arguments))
    found = agree("get_codes", packed, *arguments, codes.size, top)
    assert found.dtype == codes.dtype
    assert np.array_equal(found, wide)


def broken_by(data, packed):
    """The bytes with one bit changed."""
    if not packed.size:
        return packed
    bit = data.draw(st.integers(0, 8 * packed.size - 1))
    broken = packed.copy()
    broken[bit // 8] ^= 1 << bit % 8
    return broken


@pytest.mark.parametrize("shape", [(1,), (5,), (1024,), (1025,), (3, 2, 777), (2, 3500)])
@pytest.mark.parametrize("scale", [1.0, 1e38, 1e-40, 0.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16, 17])
def test_blocks(shape, scale, bits):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(bits)) ** 3 * scale
    x = x.clamp(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
    x[..., ::3] *= -0.0
    steps = (1 << (bits - 1)) - 1
    for block in (1, 100, 2000):
        fast = blocks.quantize_blocks(x, steps, block)
        for a, b in zip(fast, blocks.quantize_blocks_plainly(x, steps, block), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        codes, low, span = fast
        assert codes.dtype == code_dtype(steps + 1)
        assert int(codes.abs().to(torch.int64).max()) <= steps + 1
        levels = torch.cat((torch.zeros(1), torch.arange(steps + 1) / steps))
        numbers = blocks.dequantize_blocks(codes, levels, span, low, block)
        assert torch.equal(numbers, blocks.dequantize_blocks_plainly(codes, levels, span, low, block))
        assert torch.equal(numbers, blocks.dequantize_blocks(codes.to(torch.int64), levels, span, low, block))
        assert bool(numbers.isfinite().all())


def test_the_largest_number_does_not_become_infinite():
    """low + span can round beyond the range although the largest magnitude is within."""
    largest = torch.finfo(torch.float32).max
    for exponent in range(100, 108):
        for odd in range(1, 16, 2):
            x = torch.tensor([largest, odd * 2.0**exponent])
            codes, low, span = blocks.quantize_blocks(x, 7, 8)
            levels = torch.cat((torch.zeros(1), torch.arange(8) / 7))
            assert bool(blocks.dequantize_blocks(codes, levels, span, low, 8).isfinite().all())


def test_warming_up_leaves_no_loop_to_compile():
    coding.warm_up()
    for module, names in (
        ("coding", ("put_low", "get_low", "put_high", "get_elias_fano", "choose_low", "get_rice")),
        ("codes", ("put_codes", "get_codes", "put_groups", "get_groups")),
    ):
        assert all(getattr(_choice.loops(module), name).signatures for name in names)


def test_without_compiled_loops_the_definitions_run():
    places, codes = np.array([1, 5, 900], np.int64), np.array([1, -2, 0], np.int32)
    expected = [coding.put_elias_fano(places, 1000, 4), coding.put_codes(codes, 0, 5, 1, 3)]
    with _choice.plainly():
        found = [coding.put_elias_fano(places, 1000, 4), coding.put_codes(codes, 0, 5, 1, 3)]
        assert np.array_equal(coding.get_elias_fano(found[0], 1000, 3, 4), places)
    assert all(map(np.array_equal, found, expected))
