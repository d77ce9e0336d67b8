"""The base class of compressed optimisers: construction, steps, clipping and loading."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic._arguments import check_positive
from laconic.comm import OnMismatch, Topology
from laconic.feedback import Feedback
from laconic.formats import accumulation_dtype
from laconic.kernels import warm_up_optimizer
from laconic.optim._arithmetic import UpdateArithmetic
from laconic.optim._averaged import refuse_averaged_gradients
from laconic.optim._buckets import BackwardOverlap, Update, UpdateBuckets
from laconic.optim._checkpoint import adopted
from laconic.optim._clipping import ClipBy, GradientClipping, loss_scale
from laconic.optim._exchanging import tensor_bytes
from laconic.optim._groups import named_parameters, restore_state
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
        exempt, exact, process_group, topology, seed, timeout_s, clip_by, overlap: as for
            :class:`CompressedAdamW`.
        adaptive, bucket_cap_mb, check_replicas_every, density, dense_lr: likewise.

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
        clip_by: ClipBy = "this",
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
        self._judged: Feedback | None = None
        self._warned, self._compared = False, False
        super().__init__(params, defaults)
        groups = self.param_groups
        if overlap and clip_by == "this" and any(group["clip"] is not None for group in groups):
            raise ValueError(
                "overlap=True sends before the norm of the whole gradient is known: it needs clip=None, or "
                "clip_by='last'"
            )
        check_positive("bucket_cap_mb", bucket_cap_mb)
        parameters = TrainedParameters(named_parameters(groups))
        warm_up_optimizer(parameters.dtypes_in_main_memory, self.arithmetic())
        session = Session(
            parameters,
            make_schedule(feedback, 0, density),
            exempt=exempt,
            exact=exact,
            process_group=process_group,
            topology=topology,
            clips=any(group["clip"] is not None for group in groups),
            dtypes={name: accumulation_dtype(dtype) for name, dtype in parameters.dtypes.items()},
            settings={
                "bucket_cap_mb": bucket_cap_mb,
                "dense_lr": dense_lr,
                "clip_by": clip_by,
                **group_settings(groups),
            },
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
            self._settings,
            defers=type(self).apply_all is UpdateArithmetic.apply_all,
        )
        if overlap:
            self._overlap = BackwardOverlap(self._buckets, session, self._update_before, self._settings)
        for parameter in session.parameters.name_of:
            # Also where it is empty: torch.distributed.checkpoint would make a step to fill an empty dict.
            self.state[parameter] = self.new_state(parameter)
        self.clipping = GradientClipping(self, session.parameters, clip_by)
        self._start(session)
        self._warn_of_momentum(stacklevel=3)

    def momentum_setting(self) -> str | None:
        """Which setting averages gradients over steps now, as "momentum > 0"; None where none does."""
        return None

    def _warn_of_momentum(self, stacklevel: int) -> None:
        if self._warned or (what := self.momentum_setting()) is None:
            return
        method = self.session.schedule.at(self.session.iteration)
        if method is not None and method is not self._judged:
            self._judged = method
            self._warned = warn_of_momentum(what, method, self.session.layout, stacklevel + 1)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, while the optimiser is made; later it is refused.

        Raises:
            RuntimeError: once the optimiser is made.
            ValueError: for a setting out of its range.
        """
        super().add_param_group(param_group)
        self.check_group(self.param_groups[-1])

    def set_nodes(self, nodes: int) -> None:
        """Take the number of nodes for ``dense_lr``; :func:`laconic.lab.train` simulates several."""
        self._rate_factor = math.sqrt(nodes) if self._dense_lr else 1.0

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        session = self.session
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_unknown()
        self._warn_of_momentum(stacklevel=5)
        if self._overlap is not None:
            if getattr(self, "found_inf", None) is not None:
                raise RuntimeError(
                    "overlap=True does not know the scale of a GradScaler: use overlap=False with it"
                )
            self._overlap.end_step()
        scale = loss_scale(self)  # on a GPU the host waits for it
        norms = self.clipping.norms(scale)
        factors = self.clipping.factors(norms, scale)
        estimates = self._buckets.finish(lambda bucket: self.source_of(bucket, factors))
        if estimates is not None:
            self.advance_all(factors)
            self.clipping.keep(norms)
            self.apply_all(estimates)
        session.check_replicas_in_turn()
        if not self._compared:
            self._compared = True
            refuse_averaged_gradients(session)
        return loss

    def _update_before(self) -> Update | None:
        """What is sent while backward still runs; None where a step is clipped by its own norm."""
        factors = self.clipping.factors_before()
        return None if factors is None else lambda bucket: self.source_of(bucket, factors)

    def _settings(self) -> dict[str, object]:
        return group_settings(self.param_groups)

    def accumulate(self) -> AbstractContextManager[None]:
        """Context manager for gradient accumulation, needed only with ``overlap=True``, as DDP's ``no_sync``.

        All backward passes of a step but the last belong inside.
        """
        self.session  # noqa: B018 - which refuses a copy
        return nullcontext() if self._overlap is None else self._overlap.paused()

    def held_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds beside parameters and gradients, by kind."""
        held = self.session.exchange.held_bytes()
        scratch = held["scratch"] + self._buckets.room_nbytes + self._scratch_nbytes()
        return {"state": tensor_bytes(self.state.values()), "memory": held["memory"], "scratch": scratch}

    def _scratch_nbytes(self) -> int:
        return 0

    def load_state_dict(self, state_dict: dict[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Take over what this rank saved; parameters are the model's to restore, on every rank.

        The state of a dense optimiser with the same moments is adopted: settings stay as they are here, the
        memories are new, and a line of the log says so.

        Args:
            state_dict: of this rank, or gathered, or of a dense optimiser.
            on_mismatch: "error", or "resync": where the state of any rank is of another method, rank,
                number of ranks or dtype, the memories of all ranks start anew, moments are kept, those of
                another rank where there are none of this one's, and a line of the log says so. All ranks call
                it together then.

        Raises:
            ValueError: for the state of another rank, method, model or optimiser.
        """
        exchange, saved = self.session.exchange, self._saved(state_dict)
        plain = saved.plain
        if saved.exchange is None:
            plain = adopted(plain, self._plain_state(), exchange.rank)
            exchange.reset()
        else:
            self._load_exchange(saved.exchange, on_mismatch)
        self.session.compare_replicas_at_next_step()
        super().load_state_dict(plain)
        restore_state(self, plain, self.new_state)
        self.clipping.share_last()

    def close(self) -> None:
        """End the exchange's thread and process group; the optimiser can make no more steps."""
        if (overlap := self.__dict__.get("_overlap")) is not None:
            overlap.close()
        super().close()
