"""The abstract compressed optimiser: arithmetic left open; exchange, clipping and checkpoints shared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from laconic.comm import Source, Stats, Topology, Vector
from laconic.feedback import Feedback
from laconic.formats import accumulation_dtype
from laconic.kernels import Arithmetic, apply_steps, warm_up_optimizer
from laconic.kernels.tables import Vectors
from laconic.optim._buckets import BackwardOverlap, ParameterBucket, UpdateBuckets
from laconic.optim._gradients import apply_, gradient_factors, local_gradient, loss_scale
from laconic.optim._groups import named_parameters, restore_dtypes, settings_in_words
from laconic.session import (
    Exempt,
    Session,
    TrainedParameters,
    check_positive,
    check_setting,
    make_schedule,
    vectors_and_small,
)

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
State = dict[str, Any]
"""What an optimiser remembers of one parameter."""


_COPIED = (
    "the optimiser is a copy or came from a pickle, which has no exchange with other ranks: make a new one "
    "on every rank and load this one's state_dict()"
)


class CompressedOptimizer(Optimizer, ABC):
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
        bucket_cap_mb, check_replicas_every: likewise.

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
    ) -> None:
        """Check the settings, meet the other ranks, and take over rank 0's parameters."""
        self._session: Session | None = None
        self._overlap: BackwardOverlap | None = None
        super().__init__(params, defaults)
        groups = self.param_groups
        if overlap and any(group["clip"] is not None for group in groups):
            raise ValueError(
                "overlap=True sends before the norm of the whole gradient is known: it needs clip=None"
            )
        check_positive("bucket_cap_mb", bucket_cap_mb)
        parameters = TrainedParameters(named_parameters(groups))
        session = Session(
            parameters,
            make_schedule(feedback, 0, None),
            exempt=exempt,
            exact=exact,
            process_group=process_group,
            topology=topology,
            clips=any(group["clip"] is not None for group in groups),
            dtypes={name: accumulation_dtype(dtype) for name, dtype in parameters.dtypes.items()},
            settings=f"bucket_cap_mb {bucket_cap_mb}, {settings_in_words(groups)}",
            seed=seed,
            timeout_s=timeout_s,
            adaptive=adaptive,
            check_replicas_every=check_replicas_every,
        )
        warm_up_optimizer(parameters.dtypes.values(), self.arithmetic())
        session.broadcast_parameters()
        self._inside = feedback.estimates == "step"
        # Groups by number, because load_state_dict makes them anew.
        self._group_of = {p: number for number, group in enumerate(groups) for p in group["params"]}
        self._buckets = UpdateBuckets(session, max(1, int(bucket_cap_mb * 2**20 / 4)), self._group_of)
        if overlap:
            ones = [1.0] * len(groups)
            self._overlap = BackwardOverlap(
                self._buckets, session, lambda bucket: self.source_of(bucket, ones), self._rates
            )
        for parameter in session.parameters.name_of:
            if state := self.new_state(parameter):
                self.state[parameter] = state
        self._session = session
        # Dynamo would specialise on the first parameter of each shape. Making an optimiser has imported it.
        self._untraced_step = torch.compiler.disable(self._step)  # type: ignore[no-untyped-call]

    @abstractmethod
    def update(self, state: State, group: Mapping[str, Any], gradient: Tensor) -> Tensor:
        """What a node sends of a parameter, without the learning rate.

        Args:
            state: of the parameter; it must not change here, for the step may be void.
            group: the parameter's settings.
            gradient: of this node, clipped and unscaled, in the accumulation dtype: float64 for float64
                parameters, else float32.

        Returns:
            The gradient's shape and dtype: a new tensor, or the gradient itself. A NaN makes the step void.
        """

    @abstractmethod
    def advance(self, state: State, group: Mapping[str, Any], gradient: Tensor) -> None:
        """Move the state of a parameter on, once the step stands; arguments as for :meth:`update`."""

    def new_state(self, parameter: Tensor) -> State:  # noqa: ARG002
        """The state of a parameter before the first step; empty by default."""
        return {}

    def arithmetic(self) -> Arithmetic:
        """Which loops :meth:`updates_of` runs, to be compiled when the optimiser is made."""
        return "scale"

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Refuse settings out of their range.

        Raises:
            ValueError: naming the setting.
        """
        check_setting("lr", group["lr"], 0.0)
        check_setting("weight_decay", group["weight_decay"], 0.0)
        if group["clip"] is not None:
            check_positive("clip", group["clip"])

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
            raise RuntimeError(_COPIED)
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
            RuntimeError: for a gradient of a parameter that was frozen when the optimiser was made.
            laconic.ExchangeError: where another rank died or hangs.
        """
        if "_untraced_step" not in self.__dict__:
            raise RuntimeError(_COPIED)
        found: float | None = self._untraced_step(closure)
        return found

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        session = self.session
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_unknown(session)
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
        return loss

    def gradient_factors(self) -> list[float]:
        """For each group what its gradients are multiplied by: unscaling and clipping."""
        return gradient_factors(self.param_groups, self.session.parameters, loss_scale(self))

    @property
    def parameter_buckets(self) -> Sequence[ParameterBucket]:
        """The parameters in the buckets in which their updates are exchanged."""
        return self._buckets.buckets

    def updates(self, factors: list[float]) -> dict[Tensor, Tensor]:
        """What this node sends of each parameter, new tensors; nothing changes."""
        return {
            parameter: update.clone()
            for bucket in self._buckets.buckets
            for parameter, update in zip(
                bucket.parameters, bucket.split(self.updates_of(bucket, factors)), strict=True
            )
        }

    def updates_of(self, bucket: ParameterBucket, factors: list[float]) -> Vector:
        """What this node sends of a bucket's parameters; nothing changes. For speed, in one call for all.

        Args:
            bucket: the parameters.
            factors: of the gradients, by group.

        Returns:
            In the accumulation dtype: flat (d,), or a tensor for each parameter. Overwritten by the estimate.
        """
        return [self._update_of(parameter, factors) for parameter in bucket.parameters]

    def source_of(self, bucket: ParameterBucket, factors: list[float]) -> Source:
        """As :meth:`updates_of`; or what computes them while the compressor reads them.

        The state after the step may be computed in the same reading; :meth:`advance_bucket` takes it over.
        """
        return self.updates_of(bucket, factors)

    def advance_all(self, factors: list[float]) -> None:
        """Move the state of all parameters on: computed anew, which costs less than keeping it staged."""
        for bucket in self._buckets.buckets:
            self.advance_bucket(bucket, factors)

    def advance_bucket(self, bucket: ParameterBucket, factors: list[float]) -> None:
        """Move the state of a bucket's parameters on. For speed, in one call for all."""
        for parameter in bucket.parameters:
            if parameter.requires_grad:
                number = self._group_of[parameter]
                state = self.state.get(parameter, {})
                self.advance(state, self.param_groups[number], local_gradient(parameter, factors[number]))
                if state:
                    self.state[parameter] = state

    def apply_all(self, estimates: Sequence[Vector]) -> None:
        """Subtract each bucket's estimates from the parameters, and decay these."""
        by_group = [self._decay_and_rate(group) for group in self.param_groups]
        for bucket, estimate in zip(self._buckets.buckets, estimates, strict=True):
            if bucket.compiled and bucket.is_trained():
                steps = bucket.vectors(estimate)
                parameters = Vectors.of(bucket.parameters)
                apply_steps(parameters, steps, bucket.rows(by_group), bucket.numels)
                torch.autograd.graph.increment_version(bucket.parameters)
                continue
            for parameter, step in zip(bucket.parameters, bucket.split(estimate), strict=True):
                if parameter.requires_grad:
                    decay, rate = by_group[self._group_of[parameter]]
                    apply_(parameter, step * rate, decay)

    def _decay_and_rate(self, group: Mapping[str, Any]) -> tuple[float, float]:
        lr = float(group["lr"])
        return 1.0 - lr * group["weight_decay"], 1.0 if self._inside else lr

    def rate_inside(self, group: Mapping[str, Any]) -> float:
        """What a group's updates are multiplied by before they are sent."""
        return float(group["lr"]) if self._inside else 1.0

    def _update_of(self, parameter: Tensor, factors: list[float]) -> Tensor:
        number = self._group_of[parameter]
        group = self.param_groups[number]
        gradient = local_gradient(parameter, factors[number])
        if not parameter.requires_grad:
            return torch.zeros_like(gradient)
        update = self.update(self.state.get(parameter, {}), group, gradient)
        return update * self.rate_inside(group) if self._inside else update

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

    def state_dict(self) -> dict[str, Any]:
        """This rank's settings, state and, under "exchange", memories; every rank saves its own."""
        return super().state_dict() | {"exchange": self.session.exchange.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what this rank saved; parameters are the model's to restore, on every rank.

        Raises:
            ValueError: for the state of another rank, method, model or optimiser.
        """
        if "exchange" not in state_dict:
            raise ValueError(
                "the state has no 'exchange': it was saved by another optimiser, or by a tool that keeps "
                "only 'state' and 'param_groups'; save this optimiser's own state_dict(), one file a rank"
            )
        self.session.exchange.load_state_dict(state_dict["exchange"])
        super().load_state_dict(state_dict)
        restore_dtypes(self, state_dict)

    def close(self) -> None:
        """End the exchange's thread and process group; the optimiser can make no more steps."""
        if (overlap := self.__dict__.get("_overlap")) is not None:
            overlap.close()
        if (session := self.__dict__.get("_session")) is not None:
            session.close()
