"""Checks of ``compress_group``, and so of a compressor's ``compress_together``, against ``encode``."""

import torch
from torch import Tensor

from laconic.compressors import Identity, Job, NotFiniteError, compressor_groups
from laconic.compressors._job import Update
from laconic.kernels import Stream
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout
from laconic.messages import accumulation_dtype
from laconic.testing._contract import Contract

_BETWEEN = 5
"""Length of a segment that no job may touch, between the two that it compresses."""


def check_jobs(contract: Contract) -> None:
    """Every update of a memory, of a batch and of a single vector, given flat and by segment."""
    rows = contract.rows.to(accumulation_dtype(contract.rows.dtype))
    target = _joined(rows, rows.flip(0))
    earlier = _joined(rows.roll(1, 0), rows.flip(0).roll(1, 0))
    for node in (contract.nodes, contract.nodes[0]):
        x, y = target[node], earlier[node]
        for update, memory in (("none", None), ("track", y * 0.7), ("drain", y * 0.3)):
            _JobCheck(contract, x, memory, node, update).check()  # type: ignore[arg-type]


def _joined(first: Tensor, second: Tensor) -> Tensor:
    between = torch.ones(*first.shape[:-1], _BETWEEN, dtype=first.dtype, device="cpu")
    return torch.cat((first, between, second), dim=-1)


class _JobCheck:
    """One update of a memory, for two segments of three.

    Args:
        contract: what refuses.
        target: (..., 2 d + 5).
        memory: likewise, or None.
        node: of the draws.
        update: what happens to the memory.
    """

    def __init__(
        self, contract: Contract, target: Tensor, memory: Tensor | None, node: Tensor, update: Update
    ) -> None:
        self.contract, self.target, self.memory, self.update = contract, target, memory, update
        self.layout = Layout.of({"a": (contract.d,), "b": (_BETWEEN,), "c": (contract.d,)})
        self.draw = Stream(contract.stream.seed, 3, node)
        other = Identity()
        groups = compressor_groups(
            self.layout, lambda s: other if s.name == "b" else contract.compressor, target.dtype
        )
        self.format = next(one.format for one in groups if one.compressor is contract.compressor)

    def job(self, target: Tensor, by_segment: bool) -> Job:
        """A job of its own, on a copy of the memory."""
        tensors = [target[..., s.offset : s.end].clone() for s in self.layout.segments]
        memory = None if self.memory is None else self.memory.clone()
        out = torch.zeros_like(target) if self.update == "drain" else None
        vector = SegmentedVector.of(tensors if by_segment else target)
        return Job(self.format, self.draw, vector, memory, self.update, out)

    def check(self) -> None:
        """That the message is that of ``encode``, what becomes of the memory, and what is refused."""
        for by_segment in (False, True)[: 1 if self.target.dim() > 1 else 2]:
            self._check_job(self.job(self.target, by_segment))
        bad = self.target.clone()
        for number in (torch.nan, torch.inf):
            bad[..., -1] = number
            self._check_refusal(self.job(bad, False))

    def _check_job(self, job: Job) -> None:
        equal, update = self.contract.equal, self.update
        found = self.contract.compressor.compress_group(job)
        x = self.target
        if self.memory is not None:
            x = self.memory + x if update == "drain" else x - self.memory
        expected = self._expected(x)
        decoded = torch.zeros_like(expected)
        found.group.add_to(decoded, 1.0)
        equal(decoded, expected, f"compress_group sends what encode does ({update})")
        if self.memory is None:
            return
        assert job.memory is not None
        if update == "drain":
            assert job.out is not None
            left = (x - expected).index_fill(-1, self._between, 0.0)
            equal(job.memory, self.memory, "compress_group leaves the memory as it is (drain)")
            equal(job.out, left, "compress_group takes the decoded message away (drain)")
        elif found.undo is None:
            equal(job.memory, self.memory, "compress_group leaves the memory to the caller (track)")
        else:
            moved = self.memory + expected
            equal(job.memory, moved, "compress_group adds the decoded message (track)")
            found.undo(job.memory)
            equal(job.memory, self.memory, "undo puts the memory back as it was")

    @property
    def _between(self) -> Tensor:
        return torch.arange(self.contract.d, self.contract.d + _BETWEEN, device="cpu")

    def _expected(self, x: Tensor) -> Tensor:
        """What ``encode`` decodes to, zeros in the segment between."""
        pieces = {
            s.name: self.contract.compressor.compress(x[..., s.offset : s.end], self.draw.at(s.number))
            for s in self.layout.segments
            if s.name != "b"
        }
        first, second = pieces["a"].dense(), pieces["c"].dense()
        return torch.cat((first, first.new_zeros(*x.shape[:-1], _BETWEEN), second), dim=-1)

    def _check_refusal(self, job: Job) -> None:
        try:
            self.contract.compressor.compress_group(job)
        except NotFiniteError:
            if self.memory is not None and job.memory is not None:
                promise = f"compress_group leaves the memory as it was where it refuses ({self.update})"
                self.contract.equal(job.memory, self.memory, promise)
            return
        self.contract.require(False, f"compress_group refuses NaN and infinity ({self.update})")
