"""The DDP communication hook and its state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from laconic._arguments import check_positive
from laconic.comm import OnMismatch, Stats, TensorFuture
from laconic.comm.topologies import Topology, named_topology
from laconic.ddp._backward import BackwardPass, Scaler
from laconic.ddp._model import DDPModel, check_bucket
from laconic.ddp._unwritten import UnwrittenEstimates
from laconic.ddp._watch import HookCalls, UnusedGradients
from laconic.feedback import Feedback
from laconic.session import (
    Density,
    Exempt,
    Session,
    make_schedule,
    vectors_and_small,
)


class Writer(Protocol):
    """What is asked of a TensorBoard ``SummaryWriter``."""

    def add_scalar(self, tag: str, value: float, step: int, /) -> None:
        """Write one number."""


class CommState:
    """Replaces DDP's all-reduce by compressed messages with error feedback, for any optimiser.

    Every parameter is compressed on its own and its memory kept by its name, so nothing depends on DDP's
    buckets. Gradients may be float16, bfloat16, float32 or float64; memories are float32 (float64). The
    estimate replaces the gradient in DDP's own buffer; accumulate under ``no_sync()`` as usual. A step is
    staged: where the gradient was not finite on any rank, all gradients become NaN on all ranks and every
    memory stays as it was, so that ``GradScaler`` skips the step everywhere. Without one, do not let the
    optimiser step on such gradients.

    ``clip_grad_norm_`` after ``backward()`` acts on the estimate, whose norm is another than the gradient's
    while the memories catch up; ``clip=`` shortens each rank's own gradient before it is compressed.

    A copied or unpickled DDP model has no hook: PyTorch drops it, and the copy averages whole gradients.

    Refused: ``join()`` (seen only where ``model`` is the DDP model), sparse and complex gradients, dynamo's
    ``python_reducer``, DDP's ``skip_all_reduce_unused_params``.

    A parameter that no rank used in a step (``find_unused_parameters``) counts with a gradient of zeros.
    While its estimate has another number, because its memory still holds something, the estimate is its
    gradient, on all ranks, where DDP would write none. After that, and in steps that are void, dense or
    paused, its gradient stays as it is, None or zeros. That of a parameter frozen later does so, too: what
    its memory holds is sent and dropped.

    Args:
        feedback: the method.
        process_group: the ranks; None is those of DDP, where ``model`` is the DDP model, else all.
        topology: as for :class:`laconic.Exchange`: "auto", "all-gather", "dense", or an object.
        start_iter: iterations that are dense, averaged in float32, before compression starts. Memories of
            the EF21 family then start at that iteration's gradient, rounded to bfloat16.
        model: the module, or DDP around it; alike on all ranks. Or call :meth:`attach` later, in all
            processes together.
        exempt: called with each parameter's name and tensor; True where it travels whole, in bfloat16
            through the same feedback. By default those of at most one dimension and the small ones.
        exact: whether exempt parameters travel in float32 instead. Those of float64 always travel exactly.
        seed: of random compressors; alike on all ranks.
        timeout_s: how long to wait for other ranks, in seconds.
        grad_scaler: the ``GradScaler`` whose scale is on the loss; memories are kept without it.
        clip: each rank's gradient is shortened to this norm over all parameters, in unscaled units. The
            norm is known when the last gradient is, so nothing is then sent during backward.
        density: what is used from which iteration on: None (dense), a share for the compressor's ``k``, or a
            method that differs in its compressor; memories carry over. Iterations count committed steps.
        check_replicas_every: compare the parameters' checksums over ranks before every so many iterations.
        measure_error_every: measure the relative compression error in every so many iterations.
        adaptive: whether positions travel in blocks that adapt to their density: fewer bytes, but one more
            exchange, of sizes, a step.
        optimizer: the one behind DDP. If given, gradients that it never uses are reported, and its settings
            are compared between ranks.

    Raises:
        ValueError: for settings that do not fit together, or that differ between ranks.
        TypeError: for complex, integer, sparse or sharded parameters.
        RuntimeError: where DDP uses dynamo's python_reducer or ``skip_all_reduce_unused_params``.

    Warns:
        UserWarning: once, where two backward passes come without a step of ``optimizer`` between them; and
            in :meth:`stats`, :meth:`state_dict` or :meth:`close`, where DDP has never called the hook.

    Example:
        >>> import torch, laconic
        >>> from torch.nn.parallel import DistributedDataParallel
        >>> def wrap(model):  # in every process, after init_process_group
        ...     model = DistributedDataParallel(model)
        ...     state = laconic.ddp.CommState(laconic.EF14(laconic.TopK(0.01)), model=model)
        ...     model.register_comm_hook(state, laconic.ddp.hook)
        ...     return model
    """

    def __init__(
        self,
        feedback: Feedback,
        process_group: dist.ProcessGroup | None = None,
        topology: str | Topology = "auto",
        start_iter: int = 0,
        *,
        model: nn.Module | None = None,
        exempt: Exempt = vectors_and_small,
        exact: bool = False,
        seed: int = 0,
        timeout_s: float = 600.0,
        grad_scaler: Scaler | None = None,
        clip: float | None = None,
        density: Mapping[int, Density] | None = None,
        check_replicas_every: int = 0,
        measure_error_every: int = 0,
        adaptive: bool = False,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        """Check the settings; with a model, compare them with the other ranks'."""
        self._topology = named_topology(topology)
        if clip is not None:
            check_positive("clip", clip)
        self._schedule = make_schedule(feedback, start_iter, density)
        self._process_group = process_group
        self._exempt, self._exact = exempt, exact
        self._seed, self._timeout_s = seed, timeout_s
        self._scaler, self._clip = grad_scaler, clip
        self._check_every, self._measure_every = check_replicas_every, measure_error_every
        self._adaptive = adaptive
        self._optimizer = optimizer
        self._unused = None if optimizer is None else UnusedGradients(optimizer)
        self._calls: HookCalls | None = None
        self._unwritten: UnwrittenEstimates | None = None
        self._attached: tuple[DDPModel, Session] | None = None
        self._copied = False
        self._untraced: Any = None
        self._consolidated: dict[str, Any] | None = None
        self._logged: Stats | None = None
        self._pausing = False
        if model is not None:
            self.attach(model)

    def attach(self, model: nn.Module) -> "CommState":
        """Take the parameters' names from the model and meet the other ranks; all call it together.

        For wrappers that take state and hook before there is a model, such as Lightning's ``DDPStrategy``.

        Args:
            model: the module, or DDP around it, as for ``model=``.

        Raises:
            RuntimeError: where there is a model already.
            ValueError: where the ranks have different parameters or settings.
            TypeError: for complex, integer or sparse parameters.
        """
        if self._attached is not None:
            raise RuntimeError("this CommState has a model already; make one for each model")
        ddp_model = DDPModel(model)
        schedule = self._schedule
        # Which would narrow float64 memories.
        if torch.float64 not in ddp_model.parameters.dtypes.values():
            schedule = schedule.starting_in_bfloat16()
        session = Session(
            ddp_model.parameters,
            schedule,
            exempt=self._exempt,
            exact=self._exact,
            process_group=self._process_group or ddp_model.process_group,
            topology=self._topology,
            clips=self._clip is not None,
            settings={"clip": self._clip},
            seed=self._seed,
            timeout_s=self._timeout_s,
            adaptive=self._adaptive,
            measure_error_every=self._measure_every,
            check_replicas_every=self._check_every,
        )
        self._attached = ddp_model, session
        self._calls, self._unwritten = HookCalls(ddp_model), UnwrittenEstimates(ddp_model)
        backward = BackwardPass(
            ddp_model,
            session,
            self._calls,
            self._unwritten,
            clip=self._clip,
            scaler=self._scaler,
            optimizer=self._optimizer,
            unused=self._unused,
        )
        # Dynamo traces what runs inside a compiled training step.
        self._untraced = torch.compiler.disable(backward.reduce)  # type: ignore[no-untyped-call]
        return self

    def reduce(self, bucket: dist.GradBucket) -> TensorFuture:  # type: ignore[name-defined]
        """Begin to exchange a bucket of gradients: what :func:`hook` calls.

        Args:
            bucket: DDP's, during a backward pass.

        Returns:
            A future of the bucket's buffer, completed when the whole step is.

        Raises:
            TypeError: for sparse or complex gradients, or dynamo's python_reducer.
            RuntimeError: where there is no model yet, or the parameters are not those of the model.
            ExchangeError: where the exchange has failed, or replicas differ.
        """
        check_bucket(bucket)
        model, _ = self._require()
        if bucket.index() == 0:
            self._consolidated = None
        try:
            future: TensorFuture = self._untraced(bucket, self._pausing)
        except BaseException as error:
            model.raise_from_now_on(error)
            raise
        return future

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager for backward passes whose gradients of this model are not used; alike on all ranks.

        Gradients are averaged whole, unclipped and past all memories, and the pass counts as no iteration. A
        generator's loss, for example, runs backward through the discriminator, whose gradient is then thrown
        away: error feedback would take it in. Unlike ``no_sync()`` it leaves no sum behind in ``.grad`` that
        differs by rank.

        Example:
            >>> import laconic
            >>> def train_generator(discriminator, state, optimizer, fake):
            ...     with state.paused():
            ...         (-discriminator(fake).mean()).backward()
            ...     optimizer.step()
        """
        before, self._pausing = self._pausing, True
        try:
            yield
        finally:
            self._pausing = before

    @property
    def iteration(self) -> int:
        """Steps committed so far; those that were void do not count."""
        return self._require()[1].iteration

    def check_replicas(self) -> None:
        """Compare the parameters' bits over ranks; all call it together.

        Raises:
            ExchangeError: naming the first parameter that differs.
        """
        self._require()[1].check_replicas()

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far, and how much of it backward hid."""
        self._check_calls()
        return self._require()[1].stats()

    def log_to(self, writer: Writer, step: int) -> None:
        """Write the statistics as scalars ``laconic/...``: totals, and rates since the last call.

        Args:
            writer: with TensorBoard's ``add_scalar(tag, value, step)``.
            step: the place on the axis.
        """
        stats, since = self.stats(), self._logged
        self._logged = stats
        for name, value in stats.scalars(since).items():
            writer.add_scalar(f"laconic/{name}", value, step)

    def resync(self) -> None:
        """Forget all memories, on all ranks together, between steps: they start anew at the next gradient."""
        self._consolidated = None
        self._require()[1].exchange.reset()

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        """The iteration, and what this rank, or every rank, remembers by parameter name, between steps.

        Args:
            gather: whether rank 0 gets the memories of all ranks, for a file that all load; the others get
                their own. All ranks call it together then. Without it every rank saves its own.

        Returns:
            Numbers, strings and tensors in dicts, as ``torch.load(weights_only=True)`` reads them.

        Raises:
            ExchangeError: where another rank does not gather, too.
        """
        self._check_calls()
        session = self._require()[1]
        return session.state_dict(gather) if gather or not self._consolidated else self._consolidated

    def consolidate_state_dict(self) -> None:
        """Gather all ranks' memories for ``state_dict()`` on rank 0, until the next step, load or resync.

        For tools that call ``state_dict()`` without an argument, or on rank 0 alone; all ranks call this
        together.

        Raises:
            ExchangeError: where another rank does not gather, too.
        """
        self._consolidated = self.state_dict(gather=True)

    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Go on where the saved state ended: bit for bit, with the same model and optimiser state.

        Args:
            state: of this rank, or gathered.
            on_mismatch: "error", or "resync": where the state of any rank is of another method, rank,
                number of ranks or dtype, the memories of all ranks start anew, the iteration is kept, and a
                line of the log says so. All ranks call it together then.

        Raises:
            ValueError: for the state of another rank, number of ranks, method or model; or of something else,
                such as a dense run: that has nothing to load here, only the model's parameters.
        """
        if state.get("version") != 1 or "exchange" not in state or "iteration" not in state:
            raise ValueError(
                "this is not the state_dict() of a CommState, version 1; a dense run's checkpoint has none: "
                "load its model and optimiser, and let the memories start anew"
            )
        self._consolidated = None
        self._require()[1].load_state_dict(state, on_mismatch)

    def close(self) -> None:
        """End the exchange's thread and process group; the hook can make no more steps."""
        if self._attached is not None:
            self._attached[1].close()
        self._check_calls()
        for watch in (self._calls, self._unused, self._unwritten):
            if watch is not None:
                watch.close()

    def _check_calls(self) -> None:
        if self._calls is not None:
            self._calls.check()

    def __getstate__(self) -> dict[str, Any]:
        """The settings: a copied or unpickled state has no model, no exchange and no process group."""
        gone = (
            "_attached",
            "_process_group",
            "_scaler",
            "_optimizer",
            "_untraced",
            "_calls",
            "_unused",
            "_unwritten",
            "_consolidated",
        )
        return self.__dict__ | dict.fromkeys(gone) | {"_copied": True}

    def _require(self) -> tuple[DDPModel, Session]:
        if self._attached is None and self._copied:
            raise RuntimeError(
                "this CommState is a copy or came from a pickle, as that of a copied DDP model, and has no "
                "exchange with other ranks: make DDP and CommState anew to train the copy"
            )
        if self._attached is None:
            raise RuntimeError(
                "CommState has no model: give it model=, or call state.attach(model) on every rank before "
                "the first backward pass"
            )
        return self._attached


def hook(
    state: CommState,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """The communication hook: ``model.register_comm_hook(state, laconic.ddp.hook)``.

    Raises:
        TypeError: where the state is not a :class:`CommState`; else as :meth:`CommState.reduce`.
    """
    if not isinstance(state, CommState):
        raise TypeError(f"register laconic.ddp.hook with a laconic.ddp.CommState, not {type(state).__name__}")
    return state.reduce(bucket)
