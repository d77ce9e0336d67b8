"""How near to the entropy bound messages come: the promises of docs/wire-format.md."""

import numpy as np
import pytest
import torch

import laconic as lc
from laconic import sizes
from laconic.cli import _wire_bench as bench
from laconic.wire import Schema


def test_positions_are_near_the_bound():
    for row in bench.measure_positions(2_000_000, 1):
        if row.form == "fixed":
            assert row.ratio <= (1.07 if row.density <= 0.01 else 1.125), row
        else:
            assert row.ratio <= (1.02 if row.density <= 0.01 else 1.05), row


@pytest.mark.parametrize("density", [2e-5, 1e-4, 5e-4, 1 / 1024, 0.003, 1 / 128, 0.01])
def test_fixed_size_positions_at_any_density(density):
    d = 30_000_000
    k = int(density * d)
    assert 8 * sizes.position_form(d, k)[1] / k <= 1.07 * bench.bound(d, k)


def test_a_message_of_one_per_cent_with_four_bits():
    fixed, adaptive = bench.measure_messages(1_000_000)
    assert fixed.total <= 12.8
    assert adaptive.total <= 12.5


def test_segments_do_not_pay_for_describing_themselves():
    """150 parameters of 20,000 numbers, 200 kept of each: frame included."""
    layout = lc.Layout.of({f"layer{i}": (20_000,) for i in range(150)})
    schema = Schema.of(layout, lc.TopK(0.01) >> lc.BlockQuantizer(4))
    assert schema.fixed
    assert 8 * schema.max_nbytes / (150 * 200) <= 12.95


def test_clustered_positions_are_below_the_uniform_bound():
    rng = np.random.default_rng(0)
    d = 3_000_000
    density = rng.lognormal(0, 1.5, d // 10_000).repeat(10_000)
    positions = np.flatnonzero(rng.random(d) < 0.01 * density / density.mean())
    assert bench._position_row("adaptive", 0.01, d, positions, 1).ratio <= 0.85


@pytest.mark.slow
def test_real_messages_are_below_the_uniform_bound():
    rows = {row.name: row for row in bench.measure_real(12)}
    # How far below depends on the model and the round; the documents have the numbers.
    assert rows["EF21, whole model, adaptive"].ratio <= 0.95
    assert rows["EF21, whole model, adaptive"].total <= 11.5
    assert rows["EF21, by parameter, adaptive"].ratio <= 1.02


@pytest.mark.parametrize("d", [1, 2, 63, 64, 65, 1000])
def test_no_count_makes_a_message_larger_than_the_largest(d):
    for quantiser in (lc.Cast(torch.float32), lc.Ternary()):
        spec = (lc.RandomSparsification(0.5) >> quantiser).structure(d, torch.float32)
        each = [sizes.section_bytes(spec, count) for count in range(d + 1)]
        assert max(each) <= sizes.largest_bytes(spec) <= max(each) + 4


def test_low_bits_are_the_smallest_best():
    for d in (2, 3, 10, 1000):
        for k in range(1, d, max(1, d // 20)):
            costs = [k * low + ((d - 1) >> low) for low in range(12)]
            assert sizes.low_bits(d, k) == costs.index(min(costs))


def test_groups_of_symbols():
    assert sizes.symbol_bits(2) == (1, 1)
    assert sizes.symbol_bits(3) == (5, 8)
    assert sizes.symbol_bits(4) == (1, 2)
    assert sizes.symbol_bits(5) == (3, 8)
    assert sizes.symbol_bits(6) == (3, 8)
    assert sizes.symbol_bits(7) == (1, 3)
    assert sizes.symbol_bits(17) == (1, 5)
    assert sizes.symbol_bits(511) == (1, 9)
    for symbols in range(2, 600):
        shared, width = sizes.symbol_bits(symbols)
        assert symbols**shared <= 2**width
