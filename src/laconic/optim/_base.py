"""The base class of compressed optimisers: exchange, steps, clipping and checkpoints."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor

from laconic._arguments import check_positive
from laconic.comm import OnMismatch, Stats, Topology
from laconic.feedback import Feedback
from laconic.formats import accumulation_dtype
from laconic.kernels import warm_up_optimizer
from laconic.optim._arithmetic import UpdateArithmetic
from laconic.optim._averaged import refuse_averaged_gradients
from laconic.optim._buckets import BackwardOverlap, UpdateBuckets
from laconic.optim._checkpoint import adopted, merged, saved_state, with_memories
from laconic.optim._gradients import gradient_factors, loss_scale
from laconic.optim._groups import named_parameters, restore_dtypes
from laconic.optim._momentum import warn_of_momentum
from laconic.session import (
    Density,
    Exempt,
    Session,
    TrainedParameters,
    group_settings,
    make_schedule,
    vectors_and_small,
)

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


COPIED = (
    "the optimiser is a copy or came from a pickle, which has no exchange with other ranks: make a new one "
    "on every rank and load this one's state_dict()"
)


class CompressedOptimizer(UpdateArithmetic):
    """An optimiser that compresses what it sends, in the place of DDP and the optimiser behind it.

    A subclass says what a node sends of a parameter (:meth:`update`), and how the state of that parameter
    moves on once the step stands (:meth:`advance`). The mean of all nodes' updates is estimated by feedback
    and compressor, and subtracted on every node together with the weight decay. The updates are exchanged in
    buckets; with ``overlap`` a bucket is submitted during backward, else after it. Neither changes a bit.

    Args:
        params: as for :class:`torch.optim.Optimizer`; every group has an ``lr``, a ``weight_decay`` and a
            ``clip``.
        defaults: of the groups' settings.
        feedback: what the updates go through. Where it estimates a "step" the learning rate is inside.
        exempt, exact, process_group, topology, seed, timeout_s, overlap, adaptive: as for
            :class:`CompressedAdamW`.
        bucket_cap_mb, check_replicas_every, density, dense_lr: likewise.

    Raises:
        TypeError: for complex, integer or sparse parameters.
        ValueError: for a setting out of its range, or where the ranks differ.

    Example:
        >>> import torch, laconic
        >>> class SignDescent(laconic.optim.CompressedOptimizer):
        ...     def update(self, state, group, gradient):
        ...         return gradient.sign()
        ...
        ...     def advance(self, state, group, gradient):
        ...         pass
        >>> x = torch.nn.Parameter(torch.tensor([[4.0, -2.0]]))
        >>> settings = {"lr": 0.5, "weight_decay": 0.0, "clip": None}
        >>> optimizer = SignDescent([x], settings, laconic.EF14(laconic.Identity()))
        >>> x.grad = x.detach().clone()
        >>> optimizer.step()
        >>> x.data
        tensor([[ 3.5000, -1.5000]])
        >>> optimizer.close()
    """

    _step_supports_amp_scaling = True
    """GradScaler then calls step() on every rank, also where it found an infinity on one alone."""

    def __init__(
        self,
        params: Parameters,
        defaults: dict[str, Any],
        feedback: Feedback,
        *,
        exempt: Exempt = vectors_and_small,
        exact: bool = False,
        process_group: dist.ProcessGroup | None = None,
        topology: str | Topology = "auto",
        seed: int = 0,
        timeout_s: float = 600.0,
        overlap: bool = False,
        adaptive: bool = False,
        bucket_cap_mb: float = 25.0,
        check_replicas_every: int = 0,
        density: Mapping[int, Density] | None = None,
        dense_lr: bool = False,
    ) -> None:
        """Check the settings, meet the other ranks, and take over rank 0's parameters."""
        self._session: Session | None = None
        self._overlap: BackwardOverlap | None = None
        self._feedback, self._warned, self._compared = feedback, False, False
        self._consolidated: dict[str, Any] | None = None
        super().__init__(params, defaults)
        groups = self.param_groups
        if overlap and any(group["clip"] is not None for group in groups):
            raise ValueError(
                "overlap=True sends before the norm of the whole gradient is known: it needs clip=None"
            )
        check_positive("bucket_cap_mb", bucket_cap_mb)
        parameters = TrainedParameters(named_parameters(groups))
        warm_up_optimizer(parameters.dtypes.values(), self.arithmetic())
        session = Session(
            parameters,
            make_schedule(feedback, 0, density),
            exempt=exempt,
            exact=exact,
            process_group=process_group,
            topology=topology,
            clips=any(group["clip"] is not None for group in groups),
            dtypes={name: accumulation_dtype(dtype) for name, dtype in parameters.dtypes.items()},
            settings={"bucket_cap_mb": bucket_cap_mb, "dense_lr": dense_lr, **group_settings(groups)},
            seed=seed,
            timeout_s=timeout_s,
            adaptive=adaptive,
            check_replicas_every=check_replicas_every,
        )
        session.broadcast_parameters()
        self._inside = feedback.estimates == "step"
        self._dense_lr = dense_lr
        self.set_nodes(session.exchange.size)
        # Groups by number, because load_state_dict makes them anew.
        self._group_of = {p: number for number, group in enumerate(groups) for p in group["params"]}
        self._buckets = UpdateBuckets(
            session,
            max(1, int(bucket_cap_mb * 2**20 / 4)),
            self._group_of,
            # Groups are looked up anew, because load_state_dict makes them anew.
            lambda: group_settings(self.param_groups),
        )
        if overlap:
            ones = [1.0] * len(groups)
            self._overlap = BackwardOverlap(
                self._buckets, session, lambda bucket: self.source_of(bucket, ones), self._rates
            )
        for parameter in session.parameters.name_of:
            # Also where it is empty: torch.distributed.checkpoint would make a step to fill an empty dict.
            self.state[parameter] = self.new_state(parameter)
        self._session = session
        # Dynamo would specialise on the first parameter of each shape. Making an optimiser has imported it.
        self._untraced_step = torch.compiler.disable(self._step)  # type: ignore[no-untyped-call]
        self._warn_of_momentum(stacklevel=3)

    def momentum_setting(self) -> str | None:
        """Which setting averages gradients over steps now, as "momentum > 0"; None where none does."""
        return None

    def _warn_of_momentum(self, stacklevel: int) -> None:
        if not self._warned and (what := self.momentum_setting()) is not None:
            self._warned = True
            warn_of_momentum(what, self._feedback, self.session.layout, stacklevel + 1)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, while the optimiser is made; later it is refused.

        Raises:
            RuntimeError: once the optimiser is made.
            ValueError: for a setting out of its range.
        """
        if self._session is not None:
            raise RuntimeError(
                "the ranks have agreed on the parameters: give all groups when the optimiser is made, those "
                "for later with lr=0, or make a new optimiser"
            )
        super().add_param_group(param_group)
        self.check_group(self.param_groups[-1])

    def set_nodes(self, nodes: int) -> None:
        """Take the number of nodes for ``dense_lr``; :func:`laconic.lab.train` simulates several."""
        self._rate_factor = math.sqrt(nodes) if self._dense_lr else 1.0

    def check_replicas(self) -> None:
        """Compare the parameters' bits over ranks; all call it together.

        Raises:
            laconic.ExchangeError: naming the first parameter that differs.
        """
        self.session.check_replicas()

    @property
    def session(self) -> Session:
        """The parameters and the exchange.

        Raises:
            RuntimeError: for a copied or unpickled optimiser.
        """
        session: Session | None = self.__dict__.get("_session")
        if session is None:
            raise RuntimeError(COPIED)
        return session

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every rank; void everywhere where a gradient was not finite anywhere.

        Inside ``torch.compile`` it runs eagerly. A parameter that has been frozen stays as it is, counts as
        zeros, and what its memory still holds is sent and dropped.

        Args:
            closure: evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            RuntimeError: for a gradient of a parameter that was frozen when the optimiser was made; at the
                first step, for gradients that DDP has averaged.
            laconic.ExchangeError: where another rank died or hangs.
        """
        if "_untraced_step" not in self.__dict__:
            raise RuntimeError(COPIED)
        found: float | None = self._untraced_step(closure)
        return found

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        session = self.session
        self._consolidated = None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_unknown(session)
        self._warn_of_momentum(stacklevel=5)
        if self._overlap is not None:
            if getattr(self, "found_inf", None) is not None:
                raise RuntimeError(
                    "overlap=True does not know the scale of a GradScaler: use overlap=False with it"
                )
            self._overlap.end_step()
        factors = self.gradient_factors()
        estimates = self._buckets.finish(lambda bucket: self.source_of(bucket, factors))
        if estimates is not None:
            self.advance_all(factors)
            self.apply_all(estimates)
        session.check_replicas_in_turn()
        if not self._compared:
            self._compared = True
            refuse_averaged_gradients(session)
        return loss

    def gradient_factors(self) -> list[float]:
        """For each group what its gradients are multiplied by: unscaling and clipping."""
        return gradient_factors(self.param_groups, self.session.parameters, loss_scale(self))

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.param_groups]

    def _refuse_unknown(self, session: Session) -> None:
        given = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        session.parameters.names([p for p in given if p.numel() > 0])

    def accumulate(self) -> AbstractContextManager[None]:
        """Context manager for gradient accumulation, needed only with ``overlap=True``, as DDP's ``no_sync``.

        All backward passes of a step but the last belong inside.
        """
        return nullcontext() if self._overlap is None else self._overlap.paused()

    @property
    def skipped(self) -> int:
        """Steps that were void."""
        return self.stats().skipped

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far."""
        return self.session.stats()

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        """Settings, and of each parameter the moments and memories of this rank, or of all.

        What differs by rank lies under a key by rank, so that it survives tools that keep one of several
        equal keys, or "state" and "param_groups" alone.

        Args:
            gather: whether rank 0 gets the state of all ranks, for a file that all load; the others get their
                own. All ranks call it together then.

        Raises:
            laconic.ExchangeError: where another rank does not gather, too.
        """
        exchange, numbers = self.session.exchange, self._names()
        names = {number: name for number, name in enumerate(numbers) if name is not None}
        memories = exchange.state_dict() | {"iteration": self.session.iteration}
        own = with_memories(super().state_dict(), names, memories, exchange.rank)
        if gather:
            return merged(own, exchange.gather_states(own["state"]))
        return own if self._consolidated is None else merged(own, self._consolidated)

    def consolidate_state_dict(self) -> None:
        """Gather the state of all ranks for ``state_dict()`` on rank 0, until the next step or load.

        For tools that call ``state_dict()`` on rank 0 alone; all ranks call this together. Lightning does so
        by itself, as for :class:`torch.distributed.optim.ZeroRedundancyOptimizer`.

        Raises:
            laconic.ExchangeError: where another rank does not gather, too.
        """
        self._consolidated = None
        self._consolidated = self.session.exchange.gather_states(self.state_dict()["state"])

    def load_state_dict(self, state_dict: dict[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Take over what this rank saved; parameters are the model's to restore, on every rank.

        The state of a dense optimiser with the same moments is adopted: settings stay as they are here, the
        memories are new, and a line of the log says so.

        Args:
            state_dict: of this rank, or gathered, or of a dense optimiser.
            on_mismatch: "error", or "resync": where the state of any rank is of another method, rank or
                number of ranks, the memories of all ranks start anew, moments are kept, those of another rank
                where there are none of this one's, and a line of the log says so. All ranks call it together
                then.

        Raises:
            ValueError: for the state of another rank, method, model or optimiser.
        """
        exchange = self.session.exchange
        self._consolidated = None
        saved = saved_state(state_dict, self._names(), exchange.rank)
        plain = saved.plain
        if saved.exchange is None:
            plain = adopted(plain, super().state_dict(), exchange.rank)
            exchange.reset()
        else:
            exchange.load_state_dict(saved.exchange, on_mismatch)
            if "iteration" in saved.exchange:
                self.session.resume_at(int(saved.exchange["iteration"]))
        self.session.compare_replicas_at_next_step()
        super().load_state_dict(plain)
        restore_dtypes(self, plain)

    def _names(self) -> list[str | None]:
        names = self.session.parameters.name_of
        return [names.get(parameter) for group in self.param_groups for parameter in group["params"]]

    def close(self) -> None:
        """End the exchange's thread and process group; the optimiser can make no more steps."""
        if (overlap := self.__dict__.get("_overlap")) is not None:
            overlap.close()
        if (session := self.__dict__.get("_session")) is not None:
            session.close()
