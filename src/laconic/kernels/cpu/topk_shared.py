"""Top-k of a long segment on several threads: the loops that each of them calls."""
# mypy: ignore-errors
# numba takes the types from the arguments of the first call.

from laconic.kernels.cpu._jit import loop
from laconic.kernels.cpu._simd import fence
from laconic.kernels.cpu.topk import kept_of, scratch_of, source_of, update
from laconic.kernels.cpu.topk_bounds import ZERO, sampled_bound
from laconic.kernels.cpu.topk_candidates import capture
from laconic.kernels.cpu.topk_lists import Lists, Pieces, divide, emit, threshold
from laconic.kernels.cpu.topk_tiles import Operands
from laconic.kernels.cpu.topk_updates import produce, update_of


@loop
def make(operands, segment, lo, hi, bits):
    """Produce the numbers [lo, hi) of an update; ``bits`` is as wide."""
    operands = Operands(*operands)
    produce(update_of(operands.settings, operands, segment), lo, hi - lo, bits)
    fence()


@loop
def sample(operands, segment, n, k, salt, scratch):
    """A bound for all n numbers of a segment, from a sample."""
    return sampled_bound(source_of(Operands(*operands), segment), ZERO, n, k, salt, scratch_of(*scratch))


@loop
def collect(operands, segment, lo, hi, k, bound, scratch, lists, begin, room):
    """Candidates of the numbers [lo, hi) of a segment, written from ``begin`` on; their number."""
    operands, scratch = Operands(*operands), scratch_of(*scratch)
    source, made = source_of(operands, segment), update_of(operands.settings, operands, segment)
    return capture(source, made, lo > hi, lo, hi, k, bound, scratch, Lists(*lists), begin, room)


@loop
def part(bits, pieces, k, low, step, at, ats, shares):
    """The threshold of the k largest of all pieces; where each writes, and its share of the ties."""
    pieces = Pieces(*pieces)
    t, ties = threshold(bits, pieces, k, low, step)
    divide(bits, pieces, t, ties, at, ats, shares)
    return t


@loop
def write(operands, segment, lists, begin, count, t, ties, kept, at, move):
    """What one piece keeps, in order; and the memory's update."""
    kept = kept_of(*kept)
    end = emit(Lists(*lists), begin, count, t, ties, kept.lists, at)
    if move:
        update(source_of(Operands(*operands), segment), kept, at, end, move)
