"""How near to the entropy bound messages come: the promises of docs/wire-format.md."""

import numpy as np
import pytest
import torch

import laconic as lc
from laconic.bench import wire as bench
from laconic.formats import group_formats, sizes
from laconic.kernels.position_plan import position_plan


def known(layout, compressor):
    return lc.DCGD(compressor).format(layout, torch.float32, 0)


def segments(lengths):
    return lc.Layout.of({f"s{i}": (length,) for i, length in enumerate(lengths)})


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
    assert 8 * position_plan([d], [k]).nbytes / k <= 1.07 * bench.bound(d, k)


def test_a_message_of_one_per_cent_with_four_bits():
    fixed, adaptive = bench.measure_messages(1_000_000)
    assert fixed.total <= 12.8
    assert adaptive.total <= 12.5


@pytest.mark.parametrize(
    "compressor", [lc.TopK(0.01) >> lc.ScaledSign(), lc.TopK(0.01) >> lc.Cast(torch.bfloat16)], ids=repr
)
@pytest.mark.parametrize("number", [150, 640])
@pytest.mark.parametrize("unlike", [False, True])
def test_many_segments_take_no_more_than_one_of_the_same_length(compressor, number, unlike):
    """At most 0.3 % more, and four bytes a scale; of unlike lengths the rounding of k up costs a place."""
    d = 10_000_000
    weights = np.linspace(0.1, 2.0, number) if unlike else np.ones(number)
    lengths = np.ceil(weights * d / weights.sum() / 100).astype(int) * 100
    many = known(segments(lengths.tolist()), compressor)
    one = known(lc.Layout.flat(int(lengths.sum())), compressor)
    assert sum(group.columns for group in many.groups) == one.groups[0].columns
    scales = sum(group.scales for group in many.groups)
    assert many.max_nbytes <= 1.003 * one.max_nbytes + 4 * scales


def test_segments_do_not_pay_for_describing_themselves():
    """150 parameters of 20,000 numbers, 200 kept of each: frame included."""
    found = known(segments([20_000] * 150), lc.TopK(0.01) >> lc.BlockQuantizer(4))
    assert found.fixed
    assert 8 * found.max_nbytes / (150 * 200) <= 12.95


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


@pytest.mark.parametrize("lengths", [[1], [2], [63], [64], [65], [1000], [1, 1], [7, 64, 1], [65] * 5])
def test_no_count_makes_a_message_larger_than_the_largest(lengths):
    rng = np.random.default_rng(sum(lengths))
    for quantiser in (lc.Cast(torch.float32), lc.Ternary()):
        (group,) = known(segments(lengths), lc.RandomSparsification(0.5) >> quantiser).groups
        counts = [np.array([min(count, d) for d in lengths]) for count in range(max(lengths) + 1)]
        counts += [rng.integers(0, np.array(lengths) + 1) for _ in range(200)]
        each = [sizes.section_bytes(group, used) for used in counts]
        assert max(each) <= sizes.largest_bytes(group) <= max(each) + 5 * len(lengths)


def test_a_section_takes_the_bytes_of_its_parts():
    """One segment of each form, so that none shares a byte with another."""
    spec = (lc.TopK(4) >> lc.BlockQuantizer(4, 2)).structure(400, torch.float32)
    (group,) = group_formats([spec])
    assert sizes.section_bytes(group) == group.plan.nbytes + 2 * 2 * 4 + 2


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
