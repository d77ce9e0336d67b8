"""Rice coding of positions: the compiled loops equal the plain form, also in what they refuse."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from laconic.kernels import rice
from laconic.kernels._dispatch import force_reference


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


def agree(function, *arguments):
    """What both forms return, or None where both refuse."""
    fast = outcome(function, *arguments)
    with force_reference():
        plain = outcome(function, *arguments)
    assert (fast is None) == (plain is None), (function, fast, plain)
    if fast is None:
        return None
    for a, b in zip(fast, plain, strict=True):
        assert np.array_equal(a, b), function
    return fast


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except ValueError:
        return None


@given(positions(), st.data())
@settings(max_examples=300)
def test_positions_come_back(case, data):
    d, places = case
    k = places.size
    params, low, high = agree(rice.put_rice, places, d)
    lows, total = rice.rice_lows(params, k)
    assert total == int(np.repeat(lows, rice.RICE_BLOCK)[:k].sum())
    assert low.size == (total + 7) // 8
    assert np.array_equal(agree(rice.get_rice, lows, low, high, d, k), places)
    agree(rice.get_rice, lows, broken_by(data, low), high, d, k)
    agree(rice.get_rice, lows, low, broken_by(data, high), d, k)
    agree(rice.get_rice, lows, low, high, int(places[-1]) + 1, k)
    agree(rice.get_rice, lows, low, high, max(1, int(places[-1])), k)


@pytest.mark.parametrize("places", [[3, 3], [4, 2], [-1, 2], [0, 10]])
def test_what_does_not_ascend_is_refused(places):
    assert agree(rice.put_rice, np.array(places), 10) is None


def broken_by(data, packed):
    """The bytes with one bit changed."""
    if not packed.size:
        return packed
    bit = data.draw(st.integers(0, 8 * packed.size - 1))
    broken = packed.copy()
    broken[bit // 8] ^= 1 << bit % 8
    return broken
