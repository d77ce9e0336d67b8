"""AdamW's update computed while Top-k selects: against the update written first, and the plain reference."""

import numpy as np
import pytest
import torch

from laconic.kernels import AdamWUpdate, SelectionTable, select_segments, set_threads
from laconic.kernels.cpu import selection
from laconic.kernels.reference.optimizer import adamw_advance_reference, adamw_update_reference
from laconic.kernels.reference.selection import select_segments_reference
from laconic.kernels.tables import SegmentedVector, SegmentTable, Vectors

LENGTHS = [70_000, 1, 15, 300_000, 8192, 5000]
STARTS = np.cumsum([3, *LENGTHS[:-1]])  # so that segments begin off the lines of the cache
DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}


def operands(dtype, round):
    generator = torch.Generator().manual_seed(round)
    size = int(STARTS[-1]) + LENGTHS[-1]
    gradient = torch.randn(size, generator=generator).to(dtype)
    wide = DTYPES[dtype]
    moment, memory = (torch.rand(size, generator=generator).to(wide) for _ in range(2))
    rows = np.array([[0.5, 0.0, 1.0, 1.0, 0.99, 0.01, 0.3, 1e-8, 1e-3 * s] for s in range(len(LENGTHS))])
    return gradient, moment, memory, rows


def flat(tensor):
    return Vectors.flat(tensor, STARTS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [0, 512])
@pytest.mark.parametrize("threads", [1, 2])
def test_update_and_selection_in_one_reading_equal_the_reference(dtype, block, threads):
    numels = np.array(LENGTHS)
    keep = [max(1, n // 100) for n in LENGTHS] if not block else [min(n, 5) for n in LENGTHS]
    last = [min(3, n % block) for n in LENGTHS] if block else 0
    table = SelectionTable.of(STARTS, LENGTHS, keep, block=block, last=last)
    set_threads(threads)
    try:
        with selection.eagerly():
            for round in range(3):  # later ones begin with a guess
                gradient, moment, memory, rows = operands(dtype, round)
                held = moment.clone(), memory.clone()
                after, out = torch.full_like(moment, 7.0), torch.full_like(memory, 7.0)
                update = AdamWUpdate.of(flat(gradient), flat(moment), flat(after), rows, numels)
                found = select_segments(update, flat(memory), table, salt=round, move="drain", out=flat(out))
                assert update.made.all()
                assert torch.equal(moment, held[0])
                assert torch.equal(memory, held[1])
                exact = torch.from_numpy(rows).to(moment.dtype)
                numbers, expected = torch.zeros_like(moment), torch.full_like(memory, 7.0)
                plain = flat(gradient), flat(moment), flat(moment), exact, numels
                adamw_update_reference(flat(numbers), *plain)
                goal = flat(numbers), flat(memory), table, "drain", flat(expected)
                for one, two in zip(found, select_segments_reference(*goal), strict=True):
                    assert torch.equal(one, two)
                assert torch.equal(out, expected)
                moved = torch.full_like(moment, 7.0)
                adamw_advance_reference(flat(moment), *plain[1:2], flat(gradient), exact, numels, flat(moved))
                assert torch.equal(after, moved)
    finally:
        set_threads(None)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_kept(bad):
    gradient, moment, memory, rows = operands(torch.float32, 0)
    gradient[int(STARTS[3]) + 200_000] = bad
    after, out = torch.empty_like(moment), torch.empty_like(memory)
    update = AdamWUpdate.of(flat(gradient), flat(moment), flat(after), rows, np.array(LENGTHS))
    table = SelectionTable.of(STARTS, LENGTHS, 1)
    values = select_segments(update, flat(memory), table, move="drain", out=flat(out)).values
    assert torch.isfinite(values).tolist() == [True, True, True, False, True, True]


def test_segments_that_nobody_reads_get_their_moments_in_the_end():
    gradient, moment, memory, rows = operands(torch.float32, 0)
    after = torch.empty_like(moment)
    update = AdamWUpdate.of(flat(gradient), flat(moment), flat(after), rows, np.array(LENGTHS))
    vector = SegmentedVector(torch.zeros_like(memory), computed=update)
    vector.vectors([1, 2], SegmentTable((0, 1), (1, 15), (1, 15), (1, 2)))
    assert update.made.tolist() == [False, True, True, False, False, False]
    update.finish()
    expected = moment.clone()
    exact = torch.from_numpy(rows).float()
    reference = flat(expected), flat(expected), flat(gradient), exact, np.array(LENGTHS), flat(expected)
    adamw_advance_reference(*reference)
    first = int(STARTS[0])
    assert torch.equal(after[first:], expected[first:])


def test_moments_of_another_dtype_are_refused():
    gradient, moment, _, rows = operands(torch.float32, 0)
    with pytest.raises(ValueError, match=r"moments must be torch.float32"):
        AdamWUpdate.of(flat(gradient), flat(moment), flat(moment.double()), rows, np.array(LENGTHS))
