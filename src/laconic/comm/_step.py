"""A step of the exchange: buckets staged one by one, then committed or rolled back together."""

import torch
from torch import Tensor

from laconic.comm.topologies import BucketExchange, Destination, Source
from laconic.comm.transport.streams import TensorFuture
from laconic.kernels.tables import SegmentedVector


class Step:
    """The futures of the buckets that were submitted, and the buckets that were staged.

    Attributes:
        finite: whether the numbers of all ranks were finite in all buckets so far.
    """

    def __init__(self) -> None:
        """Begin without a bucket."""
        self.finite = True
        self._waiting: list[tuple[TensorFuture, Destination]] = []
        self._staged: list[BucketExchange] = []

    @property
    def empty(self) -> bool:
        """Whether no bucket was submitted yet."""
        return not self._waiting

    def add(self, future: TensorFuture, out: Destination) -> None:
        """A bucket was submitted."""
        self._waiting.append((future, out))

    def stage(self, bucket: BucketExchange, source: Source, out: Destination, scale: float) -> None:
        """Exchange a bucket."""
        self._staged.append(bucket)
        self.finite = bucket.stage(source, out, scale)  # type: ignore[arg-type]

    def take_back(self) -> None:
        """The last bucket was not exchanged after all."""
        self._staged.pop().roll_back()

    def settle(self) -> None:
        """Commit all buckets, or roll them back."""
        for bucket in self._staged:
            if self.finite:
                bucket.commit()
            else:
                bucket.roll_back()

    def complete(self) -> None:
        """Complete the futures; what was written is NaN throughout where the step was rolled back."""
        for future, out in self._waiting:
            vector = SegmentedVector.of(out)
            if not self.finite and vector.deferred is None:
                for tensor in vector.tensors or (vector.like,):
                    tensor.fill_(torch.nan)
            # The caller's own tensor, not the view of it that stands in the vector.
            future.set_result(out if isinstance(out, Tensor) else vector.like)

    def fail(self, error: BaseException) -> None:
        """Roll all buckets back, and let all futures raise the error."""
        for bucket in self._staged:
            bucket.roll_back()
        for future, _ in self._waiting:
            # The stub types the argument as the future's value.
            future.set_exception(error)  # type: ignore[arg-type]
