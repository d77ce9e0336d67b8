"""The exchange: every rank's vectors in, the feedback's estimate of their mean out."""

import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic._arguments import check_count, check_flag, check_instance, check_positive
from laconic.comm._agreement import NOTHING, Agreement, Alike, Fields
from laconic.comm._bucket_states import BucketStates
from laconic.comm._checkpoint import VERSION, OnMismatch, gather_on_first, memories_to_load
from laconic.comm._checks import check_group, check_tensors, checked_buckets, settings_of
from laconic.comm._stats import Counter, Stats
from laconic.comm._step import Step
from laconic.comm._warm import warm_up
from laconic.comm.errors import ExchangeError
from laconic.comm.topologies import (
    AllGather,
    BucketContext,
    Destination,
    Source,
    Topology,
    Vector,
    choose_topology,
    named_topology,
    numel,
)
from laconic.comm.transport.collectives import Collectives
from laconic.comm.transport.streams import TensorFuture, future_of, side_stream_after, wait_for
from laconic.comm.transport.worker import Worker
from laconic.feedback import Feedback
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout


class Exchange:
    """Replaces each rank's vectors by the estimate of their mean, with compressed messages.

    Every rank makes one with the same settings and calls it at the same points of its program. Buckets of
    segments are exchanged in order, on a thread of the exchange's own, over a process group of its own; in an
    all-gather each is one message a rank. A step is *staged*: memories change for good only when the numbers
    of all ranks were finite in all buckets; else every memory is rolled back, bit for bit, on every rank.

    Without ``torch.distributed``, or with one process, it is a single node that sends to itself: the same
    compression and feedback, no communication.

    Args:
        layout: the segments; alike on all ranks.
        feedback: the method; alike on all ranks.
        process_group: the ranks that exchange; None is all of them. All must construct it together.
        topology: who sends what to whom; alike on all ranks. "all-gather": every rank's message to every
            rank. "dense": the exact mean in float32 (float64), past compressor and memories. "auto":
            all-gather, but dense where so many ranks' messages would be more bytes than that, which the
            log says. Or an object: :class:`laconic.comm.Topology`.
        seed: of all draws; alike on all ranks.
        timeout_s: how long to wait for the other ranks before giving up, in seconds.
        buckets: names of the segments that travel together, in order; by default all in one.
        measure_error_every: steps between measurements of ``stats().relative_error``; 0 makes none. Each
            costs some passes over the memories.
        adaptive: whether positions travel in blocks that adapt to their density. Fewer bytes where the kept
            coordinates cluster, but sizes vary, so that a round of sizes goes ahead; alike on all ranks.
        dtypes: of each segment's tensors, by name; float32 where it has none. Loops are compiled for these
            when the exchange is made, and ``state_dict()`` asks for them before a segment's first step;
            the memories themselves follow from what is sent.
        device: where all tensors lie, if that is known: on a GPU with Triton hardly any loop is compiled.

    Raises:
        ValueError: where the settings do not fit the layout, or a bucket or topology is unknown.
        RanksDifferError: an ExchangeError and ValueError, where the ranks have different settings.

    Example:
        >>> import torch, laconic
        >>> layout = laconic.Layout.of({"weight": (2, 2), "bias": (2,)}, exact=["bias"])
        >>> exchange = laconic.Exchange(layout, laconic.EF14(laconic.TopK(1)))
        >>> gradients = {"weight": torch.tensor([[1.0, -3.0], [2.0, 0.0]]), "bias": torch.ones(2)}
        >>> exchange.reduce_(gradients)
        True
        >>> gradients["weight"]
        tensor([[ 0., -3.],
                [ 0.,  0.]])
        >>> exchange.close()
    """

    def __init__(
        self,
        layout: Layout,
        feedback: Feedback,
        process_group: dist.ProcessGroup | None = None,
        topology: str | Topology = "auto",
        *,
        seed: int = 0,
        timeout_s: float = 600.0,
        buckets: Sequence[Sequence[str]] | None = None,
        measure_error_every: int = 0,
        adaptive: bool = False,
        dtypes: Mapping[str, torch.dtype] | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Check the settings, and make a process group with the other ranks."""
        check_instance("layout", layout, Layout, "Layout.of(dict(model.named_parameters()))")
        check_instance("feedback", feedback, Feedback, "EF14(TopK(0.01))")
        check_group(process_group)
        check_count("seed", seed)
        check_positive("timeout_s", timeout_s)
        check_count("measure_error_every", measure_error_every)
        check_flag("adaptive", adaptive)
        self.layout = layout
        named_topology(topology)
        self._buckets = checked_buckets(layout, buckets)
        feedback.sender(layout, seed=seed)
        warm_up(layout, feedback, dtypes, adaptive=adaptive, device=device)
        self._counter = Counter()
        self._collectives = Collectives(process_group, timeout_s, self._counter)
        self._topology = choose_topology(topology, layout, feedback, self._collectives.size, dtypes)
        self._measure = measure_error_every
        whole = BucketContext(
            layout, feedback, torch.empty(0, device="cpu"), seed, self._collectives, self._counter, adaptive
        )
        self._states = BucketStates(whole, self._topology, dtypes)
        self._agreement = Agreement(self._collectives)
        self._worker = Worker("laconic-exchange")
        self._step = Step()
        self._last_finite = True
        self._failure: BaseException | None = None
        settings = {"operation": "construction", **settings_of(layout, feedback, self._topology, dtypes)}
        settings |= {"buckets": self._buckets, "seed": seed, "adaptive": adaptive}
        # Frames that stay on a GPU are packed by Triton, on all ranks or none.
        settings["Triton"] = self._collectives.on_device and find_spec("triton") is not None
        self.compare(settings)

    @property
    def feedback(self) -> Feedback:
        """The method."""
        return self._states.feedback

    @property
    def rank(self) -> int:
        """This process's number among the exchange's."""
        return self._collectives.rank

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._collectives.size

    def reduce_(self, tensors: Mapping[str, Tensor]) -> bool:
        """Replace each segment's tensor by the estimate of the mean over ranks, in place; one whole step.

        Args:
            tensors: one for each segment, by name, of the segment's shape and one dtype.

        Returns:
            True where the step was committed. False where some rank's numbers were not finite: then all
            memories are as they were before, and every tensor is filled with NaN, on every rank.

        Raises:
            ValueError: for missing or unknown names, or a tensor of another shape.
            ExchangeError: where another rank died, hangs, or sent something else.
        """
        check_tensors(tensors, self.layout)
        for number, names in enumerate(self._buckets):
            vector = [tensors[name] for name in names]
            future = self.submit(names, vector, last=number == len(self._buckets) - 1)
        wait_for(future)
        return self._last_finite

    def submit(
        self,
        names: Sequence[str],
        source: Source,
        *,
        last: bool,
        out: Destination | None = None,
        scale: float = 1.0,
        dense: bool = False,
        alike: Alike = NOTHING,
    ) -> TensorFuture:
        """Begin to exchange one bucket of the current step; does not wait.

        The step ends with the bucket that is ``last``; only then are all its futures completed, because
        only then is it known that the step stands. All ranks submit the same buckets in the same order.

        Args:
            names: the segments in the order in which they lie in ``source``. Buckets may change between
                steps: memories are kept by segment.
            source: this rank's numbers, flat (d,), or a tensor for each segment; read where they lie, and
                must not change until the future is completed. A segmented vector may say what they are
                computed from; ``out`` must then be given.
            last: whether the step ends here.
            out: where the estimate is written, of either form; by default ``source``. A segmented vector may
                let it be deferred.
            scale: a loss scale: source is divided by it before it meets the memories, and the estimate is
                multiplied by it.
            dense: whether the bucket is averaged whole in float32, past compressor and memories; alike on
                all ranks.

        Returns:
            A future of ``out`` (of its first tensor, where it has several). Its value is NaN throughout
            where the step was rolled back.

        Raises:
            ExchangeError: where the exchange has failed before; a failure of this bucket is raised by the
                future.
        """
        if out is not None:
            destination = out
        elif isinstance(source, SegmentedVector):
            raise ValueError("a segmented vector is only read: say with out= where the estimate is written")
        else:
            destination = source
        future = future_of(SegmentedVector.of(destination).like)
        on_side_stream = side_stream_after(SegmentedVector.of(source).like)
        key = tuple(names)
        self._require_going()
        arrival = time.perf_counter()

        def job() -> None:
            with on_side_stream():
                self._run(key, source, destination, scale, last, dense, alike, future)
            if last:
                self._counter.exposed += time.perf_counter() - arrival

        self._worker.submit(job)
        return future

    def _run(
        self,
        names: tuple[str, ...],
        source: Source,
        out: Destination,
        scale: float,
        last: bool,
        dense: bool,
        alike: Alike,
        future: TensorFuture,
    ) -> None:
        if self._step.empty:
            self._counter.measure(self._measure > 0 and self._counter.steps % self._measure == 0)
        self._step.add(future, out)
        try:
            self._require_going()
            with torch.no_grad():
                if self._step.finite:
                    if dense or not isinstance(self._topology, AllGather):
                        source, out = _flattened(source), _flattened(out)
                    operation = self._states.operation(names, source, dense=dense, last=last)
                    self._agreement.run(
                        operation,
                        alike,
                        lambda: self._step.stage(operation.bucket, source, out, scale),
                        self._step.take_back,
                    )
                    self._counter.add_bf16(numel(source), self.size)
                if last:
                    self._end_step()
        except BaseException as error:  # it belongs to whoever waits, not to the worker
            known = isinstance(error, (ExchangeError, ValueError, TypeError))
            failure = error if known else ExchangeError(f"{type(error).__name__}: {error}")
            self._failure = self._failure or failure
            step, self._step = self._step, Step()
            step.fail(failure)

    def _require_going(self) -> None:
        if self._failure is not None:
            kind = type(self._failure) if isinstance(self._failure, ExchangeError) else ExchangeError
            raise kind(f"the exchange has failed before or was closed: {self._failure}") from self._failure

    def _end_step(self) -> None:
        self._agreement.end_step()
        self._step.settle()
        step, self._step = self._step, Step()
        self._last_finite = step.finite
        if step.finite:
            self._counter.steps += 1
        else:
            self._counter.skipped += 1
        step.complete()

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far."""
        return self._counter.stats()

    def held_bytes(self) -> dict[str, int]:
        """Bytes of this rank's memories ("memory"), and of the buffers beside them ("scratch")."""
        return self._states.held_bytes()

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        """What this rank remembers, by segment name, between steps; zeros of what has not been sent yet.

        Args:
            gather: whether rank 0 gets the memories of all ranks, for a file that all load; the others get
                their own. All ranks call it together then. Without it every rank saves its own.

        Raises:
            ExchangeError: where another rank does not gather, too.
        """
        memories = self._states.memories()
        ranks = self.gather_states(memories) if gather else {str(self.rank): memories}
        return {**self._identity(), "ranks": ranks}

    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Take over what this rank of an exchange of the same method, topology, layout and size remembered.

        Args:
            state: of this rank, or gathered.
            on_mismatch: "error", or "resync": where the state of any rank is of another method, topology,
                rank, number of ranks or dtype, the memories of all ranks start anew, and a line of the log
                says so. All ranks call it together then.

        Raises:
            ValueError: naming what differs. Where ``dtypes`` was not given, the first step raises it for
                memories of another dtype than what is sent.
        """
        memories = memories_to_load(
            state, self._identity(), self.rank, self.layout, on_mismatch, self.gather, self._states.misfit
        )
        self._states.load(memories, restarts=on_mismatch == "resync")
        self._agreement.change()

    def gather_states(self, own: object) -> dict[str, Any]:
        """What every rank holds, by rank, on rank 0; its own on the others. All ranks call it together.

        Args:
            own: numbers, strings and tensors in dicts and lists.

        Raises:
            ExchangeError: where another rank died, hangs, or does something else.
        """
        self._require_going()

        def job() -> dict[str, Any]:
            with self._counter.uncounted():
                return self._agreement.call(
                    "gathering of memories for a checkpoint",
                    lambda: gather_on_first(own, self._collectives),
                )

        return self._worker.call(job)

    def _identity(self) -> dict[str, Any]:
        """What must be alike in an exchange that loads this one's state."""
        return {
            "version": VERSION,
            "method": self.feedback.name,
            "topology": self._topology.name,
            "layout": self.layout.digest,
            "size": self.size,
        }

    def switch(self, feedback: Feedback) -> None:
        """Go on with the same memories and another compressor, on every rank, between steps.

        Raises:
            ValueError: where more than the compressor differs, or it does not suit the method.
        """
        self._states.switch(feedback)
        self._agreement.change()

    def reset(self) -> None:
        """Forget all memories, on every rank, between steps: the next step is a first one."""
        self._states.load({})
        self._agreement.change()

    def gather(self, numbers: Tensor, what: str) -> list[Tensor]:
        """Every rank's numbers, after all that was submitted; waits.

        Args:
            numbers: (n,) on the CPU, n alike on all ranks.
            what: what they are, for the error.

        Raises:
            ExchangeError: where another rank died, hangs, or does something else.
        """
        self._require_going()
        return self._worker.call(
            lambda: self._agreement.call(
                f"comparison of {len(numbers)} numbers, {what}",
                lambda: self._collectives.all_gather(numbers, what),
            )
        )

    def compare(self, fields: Fields) -> None:
        """Compare settings with those of all ranks, which call it together before the first step; waits.

        Args:
            fields: what must be alike, by name; compared by what ``repr`` says of them.

        Raises:
            RanksDifferError: naming the ranks and the first setting that differs. The exchange is closed.
            ExchangeError: where another rank died or hangs.
        """
        self._require_going()
        try:
            self._worker.call(lambda: self._agreement.compare(fields))
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Finish what was submitted, end the thread, and give the process group back."""
        if self._worker.forked:
            return
        self._worker.close()
        self._collectives.close()
        self._failure = self._failure or ExchangeError("it was closed")


def _flattened(vector: Source) -> Vector:
    return vector.flattened() if isinstance(vector, SegmentedVector) else vector
