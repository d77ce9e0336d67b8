"""A group of segments compressed in one call equals its segments one by one, for every compressor."""

from dataclasses import dataclass, replace

import pytest
import torch
from zoo import ALL_COMPRESSORS

import laconic
from laconic.compressors import Compressor, Job, NotFiniteError, compressor_groups, deferred_checks
from laconic.compressors._not_finite import require_all_finite
from laconic.formats import accumulation_dtype
from laconic.kernels import Stream
from laconic.kernels.tables import SegmentedVector
from laconic.messages import add_nodes_

LAYOUT = laconic.Layout.of({"a": (40,), "b": (3, 25), "c": (63,)}).select(["c", "b", "a"])
OTHER = laconic.Identity()
"""Compresses the segment in the middle, which no job may touch."""
DRAW = Stream(seed=3, round=5, node=1)
UPDATES = ["none", "track", "drain"]
DRAWN = (laconic.RandK, laconic.RandomSparsification, laconic.AdaptiveRandom)
# A scaled one and one with blocks that end short are of a kind of their own.
WIDE = [
    *ALL_COMPRESSORS,
    laconic.TopK(0.1).scaled(0.5),
    laconic.BlockTopK(2, 16) >> laconic.Cast(torch.bfloat16),
]


@dataclass(frozen=True)
class BySegment(Compressor):
    """The same compressor without a joint form."""

    inner: Compressor

    def encode(self, x, draw):
        return self.inner.encode(x, draw)

    def constants(self, d):
        return self.inner.constants(d)


def bits(tensor):
    if tensor.is_floating_point():
        return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])
    return tensor


def same_bits(one, other):
    return one.dtype == other.dtype and torch.equal(bits(one), bits(other))


def same_group(one, other):
    columns, others = one.tensors(), other.tensors()
    assert one.format == other.format
    assert columns.keys() == others.keys()
    return all(same_bits(columns[name], others[name]) for name in columns)


def jobs_of(compressor, target, memory=None, update="none"):
    """A job for each group of the two segments that are compressed."""
    dtype = target.like.dtype if memory is None else memory.dtype
    groups = compressor_groups(LAYOUT, lambda s: OTHER if s.name == "b" else compressor, dtype)
    draw = DRAW if not target.batch else replace(DRAW, node=torch.arange(target.batch[0]))
    for one in groups:
        if one.compressor is not OTHER:
            out = None if update != "drain" else torch.zeros_like(memory)
            kept = None if memory is None else memory.clone()
            yield Job(one.format, draw, target, kept, update, out)


def finish(found, job):
    """Let the memory move, as a sender does, where the job has not moved it."""
    if job.update == "track" and found.undo is None:
        add_nodes_(job.memory, [[found.group]], [1.0])


def numbers(batch, dtype, tracked):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(*batch, LAYOUT.d, generator=generator, dtype=dtype)
    if not tracked:
        return target, None
    return target, torch.randn(*batch, LAYOUT.d, generator=generator, dtype=accumulation_dtype(dtype))


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("tracked", [False, True], ids=["alone", "with a memory"])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["a vector", "a batch"])
def test_one_call_for_all_segments(compressor, dtype, tracked, batch):
    target, memory = numbers(batch, dtype, tracked)
    given = [SegmentedVector.of(target)]
    if not batch:
        given.append(SegmentedVector.of([target[s.offset : s.end].clone() for s in LAYOUT.segments]))
    for update in UPDATES if tracked else ["none"]:
        expected = list(jobs_of(compressor, given[0], memory, update))
        assert expected
        for vector in given:
            for job, apart in zip(jobs_of(compressor, vector, memory, update), expected, strict=True):
                found = compressor.compress_group(job)
                defined = BySegment(compressor).compress_group(replace(apart, memory=_copy(memory)))
                assert same_group(found.group, defined.group)
                if update == "none":
                    assert memory is None or same_bits(job.memory, memory)
                elif update == "drain":
                    assert same_bits(job.memory, memory)
                    assert same_bits(job.out, apart.out)
                else:
                    finish(found, job)
                    moved = memory.clone()
                    add_nodes_(moved, [[defined.group]], [1.0])
                    assert same_bits(job.memory, moved)
                    if found.undo is not None:
                        snapshot = job.memory.clone()
                        for kept in (snapshot, job.memory):
                            found.undo(kept)
                            assert same_bits(kept, memory)


def _copy(memory):
    return None if memory is None else memory.clone()


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("update", UPDATES)
def test_the_memory_follows_from_the_decoded_message(compressor, update):
    """h + decoded, and (e + g) - decoded, in plain PyTorch; other segments' numbers stay."""
    target, memory = numbers((), torch.float32, True)
    after, left = memory.clone(), memory + target
    own = torch.ones(LAYOUT.d, dtype=torch.bool)
    own[63:138] = False
    for job in jobs_of(compressor, SegmentedVector.of(target), memory, update):
        found = compressor.compress_group(job)
        finish(found, job)
        decoded = torch.zeros(LAYOUT.d)
        found.group.add_to(decoded, 1.0)
        assert not decoded[~own].any()
        mine = torch.zeros(LAYOUT.d, dtype=torch.bool)
        for start, numel in zip(job.format.starts, job.format.numels, strict=True):
            mine[start : start + numel] = True
        assert not (mine & ~own).any()
        if update == "drain":
            assert torch.equal(job.out[mine], (left - decoded)[mine])
            assert not job.out[~mine].any()
        elif update == "track":
            assert torch.equal(job.memory, after + decoded)
        else:
            assert same_bits(job.memory, memory)


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("update", UPDATES)
def test_what_is_not_finite_is_refused_wherever_it_is(compressor, bad, update):
    _, memory = numbers((), torch.float32, True)
    for place in (0, 62, 138, 177):
        target = torch.ones(LAYOUT.d)
        target[place] = bad
        for vector in (target, [target[s.offset : s.end].clone() for s in LAYOUT.segments]):
            bad_jobs = [
                job
                for job in jobs_of(compressor, SegmentedVector.of(vector), memory, update)
                if any(a <= place < a + n for a, n in zip(job.format.starts, job.format.numels, strict=True))
            ]
            assert len(bad_jobs) == 1
            for job in bad_jobs:
                with pytest.raises(NotFiniteError, match="skip this step"):
                    compressor.compress_group(job)
                assert same_bits(job.memory, memory)
    target = torch.ones(LAYOUT.d)
    target[100] = bad  # in the segment that is not asked for
    for job in jobs_of(compressor, SegmentedVector.of(target), memory, update):
        compressor.compress_group(job)


def test_checks_are_deferred_for_what_lies_on_a_device_alone():
    flag = torch.zeros(1, device="meta")
    with deferred_checks() as flags:
        require_all_finite(flag)
        with deferred_checks() as inner:
            require_all_finite(flag)
        require_all_finite(flag)
        assert (len(flags), len(inner)) == (2, 1)
        assert flags[0].shape == ()
        for finite in (False, torch.tensor(False)):
            with pytest.raises(NotFiniteError):
                require_all_finite(finite)
    assert len(flags) == 2
    with pytest.raises(NotFiniteError):
        require_all_finite(torch.zeros(1))


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
def test_what_overflows_with_the_memory_is_not_finite(compressor):
    target, memory = torch.full((LAYOUT.d,), 3e38), torch.zeros(LAYOUT.d)
    for update, sign in (("none", -1.0), ("track", -1.0), ("drain", 1.0)):
        memory[3] = sign * 3e38
        (job, *_) = jobs_of(compressor, SegmentedVector.of(target), memory, update)
        with pytest.raises(NotFiniteError):
            compressor.compress_group(job)
        assert same_bits(job.memory, memory)


def test_which_compressors_move_the_memory_in_one_reading():
    """Else the tests above hold one thing against itself."""
    target, memory = numbers((), torch.float32, True)

    def together(compressor, update):
        (job,) = jobs_of(compressor, SegmentedVector.of(target), memory, update)
        return compressor.compress_together(job)

    for compressor in (laconic.TopK(3), laconic.BlockTopK(1, 8), laconic.TopK(3).contractive()):
        assert together(compressor, "track").undo is not None
        assert together(compressor, "drain").undo is not None
    for compressor in (laconic.ScaledSign(), laconic.TopK(3) >> laconic.ScaledSign()):
        assert together(compressor, "track").undo is None
        assert together(compressor, "drain").undo is not None
    for update in UPDATES:
        assert together(laconic.TopK(3).scaled(0.5), update) is None


@pytest.mark.parametrize("compressor", WIDE, ids=repr)
def test_every_compressor_but_a_scaled_top_k_takes_all_segments_together(compressor):
    """Else the tests above hold one thing against itself."""
    for batch, drawn in (((), True), ((2,), isinstance(compressor, DRAWN))):
        target, memory = numbers(batch, torch.float32, True)
        (job,) = jobs_of(compressor, SegmentedVector.of(target), memory, "track")
        found = compressor.compress_together(job)
        if drawn and not isinstance(getattr(compressor, "inner", None), laconic.TopK):
            assert found is not None
