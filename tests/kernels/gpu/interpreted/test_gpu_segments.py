"""Element-wise kernels, sums and optimiser arithmetic of segments against their plain forms, bit for bit."""

import sys

import numpy as np
import pytest
import torch
from same import numbers, same

from laconic.kernels import gpu
from laconic.kernels.reference.casting import cast_reference
from laconic.kernels.reference.optimizer import (
    adamw_advance_reference,
    adamw_update_reference,
    apply_reference,
    momentum_update_reference,
    scale_reference,
)
from laconic.kernels.reference.rounding import round_to_signs_reference
from laconic.kernels.reference.segments import add_segments_reference, copy_segments_reference
from laconic.kernels.reference.sums import mean_magnitude_reference, squared_norm_reference
from laconic.kernels.tables import Vectors, accumulation_dtype

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
STARTS, NUMELS = np.array([3, 9, 1100]), np.array([5, 1030, 64])


def flat(vector):
    """As ``Vectors.flat`` of a tensor on a device."""
    return Vectors(vector, STARTS, vector.dtype, (vector,))


def made(dtype, seed, edges=True):
    return numbers((1200,), dtype, seed, edges)


def rows_of(x, memory=None):
    rows = [flat(x).segment(s, n) for s, n in enumerate(NUMELS)]
    if memory is not None:
        rows = [row - flat(memory).segment(s, len(row)) for s, row in enumerate(rows)]
    return [row.to(accumulation_dtype(row.dtype)) for row in rows]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_copies(dtype):
    wide = accumulation_dtype(dtype)
    x, y = made(dtype, 1), made(wide, 2)
    for out in ([made(wide, 3) for _ in range(2)], [made(dtype, 3) for _ in range(2)]):
        if out[0].dtype == wide:
            gpu.add_segments(flat(out[0]), flat(x), flat(y), NUMELS)
            add_segments_reference(flat(out[1]), flat(x), flat(y), NUMELS)
            assert same(*out)
        for source in (x, y):
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
                gpu.copy_segments(flat(out[0]), flat(source), NUMELS)
            copy_segments_reference(flat(out[1]), flat(source), NUMELS)
            assert same(*out)


def test_segments_that_are_tensors_of_their_own():
    tensors = [made(torch.float32, s)[:n].clone() for s, n in enumerate(NUMELS)]
    base = min(tensors, key=torch.Tensor.data_ptr)
    starts = np.array([t.data_ptr() - base.data_ptr() for t in tensors]) // 4
    out = torch.zeros(1200)
    gpu.copy_segments(flat(out), Vectors(base, starts, base.dtype, tuple(tensors)), NUMELS)
    assert all(same(flat(out).segment(s, len(t)), t) for s, t in enumerate(tensors))


def test_not_finite_numbers_are_copied_as_such():
    x = torch.full((1200,), torch.nan)
    x[::2] = torch.inf
    out = torch.zeros(1200, dtype=torch.bfloat16)
    gpu.copy_segments(flat(out), flat(x), NUMELS)
    for s, n in enumerate(NUMELS):
        assert torch.equal(flat(out).segment(s, n).isnan(), flat(x).segment(s, n).isnan())


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts(dtype, to):
    if to == torch.float64 and dtype != torch.float64:
        return
    x, memory = made(dtype, 4), made(accumulation_dtype(dtype), 5, edges=False)
    for held in (None, memory):
        values, finite = gpu.cast_segments(flat(x), None if held is None else flat(held), NUMELS, to)
        assert same(values, torch.cat([cast_reference(row, to) for row in rows_of(x, held)]))
        assert bool(finite)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_casts_notice_what_is_not_finite(wrong):
    x = made(torch.float32, 6)
    x[1150] = wrong
    assert not bool(gpu.cast_segments(flat(x), None, NUMELS, torch.bfloat16)[1])
    x[1150], x[0] = 1.0, wrong
    assert bool(gpu.cast_segments(flat(x), None, NUMELS, torch.bfloat16)[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_and_sums(dtype):
    x, memory = made(dtype, 7, edges=False), made(accumulation_dtype(dtype), 8, edges=False)
    for held in (None, memory):
        given = None if held is None else flat(held)
        rows = rows_of(x, held)
        assert same(
            gpu.sign_segments(flat(x), given, NUMELS), torch.cat([*map(round_to_signs_reference, rows)])
        )
        means = torch.stack([mean_magnitude_reference(row) for row in rows])
        assert same(gpu.segment_sums(flat(x), given, NUMELS, "means"), means)
        squares = torch.stack([squared_norm_reference(row) for row in rows])
        assert same(gpu.segment_sums(flat(x), given, NUMELS, "squares"), squares)


def test_sums_of_many_blocks():
    numels = np.array([4096 * 9 + 1, 3, 4096 * 4])
    x = numbers((int(numels.sum()),), torch.float32, 9, edges=False)
    vectors = Vectors(x, np.cumsum(numels) - numels, x.dtype, (x,))
    found = gpu.segment_sums(vectors, None, numels, "squares")
    expected = torch.stack([squared_norm_reference(vectors.segment(s, n)) for s, n in enumerate(numels)])
    assert same(found, expected)
    _, blocks, folds = sys.modules["laconic.kernels.gpu.segment_sums"]._plan(
        np.array([4096 * 1024 * 2 + 1, 5]).tobytes()
    )
    assert (blocks, [count for _, count in folds]) == (2050, [4, 2])
    assert folds[0][0].tolist() == [[0, 1024], [1024, 1024], [2048, 1], [2049, 1]]
    assert folds[1][0].tolist() == [[0, 3], [3, 1]]


def settings(beta1, wide):
    row = [0.5, beta1, 1 - beta1, 0.3, 0.999, 0.001, 0.01, 1e-8, 1e-3]
    kind = np.float64 if wide == torch.float64 else np.float32
    return np.array([row, [1.0, *row[1:]], [2.0, *row[1:8], 1.0]]).astype(kind)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_adamw(dtype, beta1):
    wide = accumulation_dtype(dtype)
    rows, gradient = settings(beta1, wide), made(dtype, 10, edges=False)
    first, second = made(wide, 11, edges=False), made(wide, 12, edges=False).abs()
    out = [torch.zeros(1200, dtype=wide) for _ in range(4)]
    given = [flat(each) for each in (gradient, first, second)]
    gpu.adamw_update(flat(out[0]), *given, rows, NUMELS)
    adamw_update_reference(flat(out[1]), *given, torch.from_numpy(rows), NUMELS)
    assert same(out[0], out[1])
    firsts = [first.clone(), first.clone()]
    for own, after, function in (
        (firsts[0], out[2], gpu.adamw_advance),
        (firsts[1], out[3], lambda *a: adamw_advance_reference(*a[:3], torch.from_numpy(a[3]), *a[4:])),
    ):
        function(flat(own), flat(second), flat(gradient), rows, NUMELS, flat(after))
    assert same(out[2], out[3])
    assert same(*firsts)
    if not beta1:
        both = [torch.zeros(1200, dtype=wide) for _ in range(2)]
        gpu.adamw_both(flat(both[0]), flat(gradient), flat(second), flat(both[1]), rows, NUMELS)
        assert same(both[0], out[0])
        assert same(both[1], out[2])


def test_a_denominator_that_is_not_finite_makes_nan():
    second = torch.full((1200,), torch.inf)
    out = torch.zeros(1200)
    gpu.adamw_update(
        flat(out), flat(second), flat(second), flat(second), settings(0.0, torch.float32), NUMELS
    )
    assert bool(flat(out).segment(1, 1030).isnan().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_momentum_scale_and_steps(dtype):
    wide = accumulation_dtype(dtype)
    kind = np.float64 if wide == torch.float64 else np.float32
    x, buffer = made(dtype, 13, edges=False), made(wide, 14, edges=False)
    three, two = np.array([[0.5, 0.9, 0.1]] * 3).astype(kind), np.array([[0.99, 0.3]] * 3).astype(kind)
    out = [torch.zeros(1200, dtype=wide) for _ in range(2)]
    gpu.momentum_update(flat(out[0]), flat(x), flat(buffer), three, NUMELS)
    momentum_update_reference(flat(out[1]), flat(x), flat(buffer), torch.from_numpy(three), NUMELS)
    assert same(*out)
    gpu.scale_segments(flat(out[0]), flat(x), two, NUMELS)
    scale_reference(flat(out[1]), flat(x), torch.from_numpy(two), NUMELS)
    assert same(*out)
    parameters = [x.clone(), x.clone()]
    gpu.apply_steps(flat(parameters[0]), flat(buffer), two, NUMELS)
    apply_reference(flat(parameters[1]), flat(buffer), torch.from_numpy(two), NUMELS)
    assert same(*parameters)
