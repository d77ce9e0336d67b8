"""AdamW whose update is compressed with error feedback."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from laconic._arguments import check_number, check_positive
from laconic.comm import OnMismatch, Source, Topology, Vector
from laconic.compressors import BlockTopK, ScaledSign
from laconic.feedback import EF14, Feedback
from laconic.formats import accumulation_dtype
from laconic.kernels import AdamWUpdate, Arithmetic, adamw_advance, adamw_update
from laconic.kernels.reference.optimizer import normalized
from laconic.kernels.tables import SegmentedVector, Vectors
from laconic.optim._arithmetic import State
from laconic.optim._base import CompressedOptimizer, Parameters
from laconic.optim._buckets import ParameterBucket
from laconic.optim._clipping import ClipBy
from laconic.session import Density, Exempt, vectors_and_small


class CompressedAdamW(CompressedOptimizer):
    r"""AdamW whose *update* is compressed with error feedback; in the place of DDP and AdamW.

    Every node clips its own gradient, runs Adam's second moment on it, and sends the normalised update,
    in which every coordinate is of one size, through feedback and compressor; the mean of what all sent is
    subtracted on every node, and weight decay happens there:

    .. math::
        g_i &\leftarrow \min(1, \text{clip} / |g_i|)\, g_i \\
        v_i &\leftarrow \beta_2 v_i + (1 - \beta_2) g_i^2 \\
        u_i &= \gamma\, \hat m_i / (\sqrt{\hat v_i} + \epsilon) \\
        x &\leftarrow (1 - \gamma \lambda) x - \text{feedback}(u_1, \ldots, u_n)

    With a feedback whose ``estimates`` is "step" (EF14) the learning rate :math:`\gamma` is inside, as
    written, so that what waits in the memory keeps the learning rate of its time; with others (EF21) the
    update is sent without it and the mean is multiplied.

    Do not wrap the model in DDP. Its parameters are sent from rank 0 at construction;
    buffers, such as the statistics of batch normalisation, are each rank's own. Every rank calls
    :meth:`step` at the same points of its program; a parameter without a gradient counts as zeros.

    The defaults are those of the study in ``benchmarks/accuracy``: a byte-level transformer of 665,600
    parameters, 4 nodes with 256 tokens each a step. With twice the dense learning rate, the root of the
    number of nodes, and no weight decay it ends +0.18 % above tuned dense AdamW in validation loss after
    3,000 steps (95 % interval -0.09 to +0.45 %, 5 seeds). beta_2 = 0.95 is 1 % better in runs of 1,000
    steps and 1.6 % worse in one of 3,000. In a first study, of 400 steps and one seed, beta_1 = 0.5 was
    2 % worse than 0 and 0.9 20 % worse, no feedback 24 %, EF21 in the place of EF14 42 %.
    Not measured: models of more than a million parameters, larger batches, more than 16 nodes.

    Args:
        params: parameters, groups, or named parameters, which give checkpoints their names. A group may
            have its own lr, betas, eps, weight_decay and clip.
        lr: the learning rate; that of dense AdamW times the root of the number of ranks is a good start.
        feedback: what the update goes through.
        betas: (beta_1, beta_2). beta_1 = 0 by default: the feedback averages already.
        eps: added to the root of the second moment.
        weight_decay: decoupled, as AdamW's.
        clip: a node's gradient is shortened to this norm; None does not. Groups with the same clip share
            one norm over all their parameters.
        process_group: the ranks; None is all of them. Without ``torch.distributed`` there is one node.
        topology: as for :class:`laconic.Exchange`.
        exempt: which parameters travel whole, by name and tensor; by default those of at most one dimension
            and the small ones. They travel in bfloat16 through the same feedback, those of float64 exactly.
        exact: whether exempt parameters travel exactly.
        seed: of random compressors; alike on all ranks.
        timeout_s: how long to wait for the other ranks, in seconds.
        clip_by: whose norm clips a step: "this" one's, for which the exchange waits until backward has ended;
            or that of the "last" committed step, so that ``overlap`` is possible. A gradient that is longer
            than the one before is then shortened too little. The first step, and one after a gradient of
            zeros, is clipped by its own norm. In a small study "last" was no better than no clip.
        overlap: begin to send while the backward pass still runs; needs clip=None or clip_by="last". It
            changes no value. Settings must then be changed before the backward pass, gradients left alone
            after it, and all backward passes of a step but the last be put into :meth:`accumulate`;
            ``GradScaler`` is refused.
        adaptive: whether positions travel in blocks that adapt to their density: fewer bytes, but one more
            exchange, of sizes, a step; alike on all ranks.
        bucket_cap_mb: size of a bucket of updates in MiB, as for DDP; alike on all ranks. While one is
            exchanged the next one's updates are computed.
        check_replicas_every: compare the parameters' checksums over ranks after every so many steps.
        density: what is used from which step on, as for :class:`laconic.ddp.CommState`: None (dense), a share
            for the compressor's ``k``, or a method that differs in its compressor; memories carry over, and
            frames change their size on all ranks together. Steps count those that stand.
            :func:`laconic.optim.density_warm_up` makes one that was measured.
        dense_lr: whether ``lr`` is that of dense AdamW: updates are then multiplied by the root of the
            number of ranks, decay is not. Off by default. *Measured* on one byte-level transformer of 83,968
            parameters: the best factor was 2 at 4 ranks and 4 at 16, one seed each, of 1, 2, 4 and 2, 4, 8;
            half of it cost 2.6 % in loss, twice 13 %; on one of 665,600 parameters the root of n was best of
            half, once and twice it at 2, 4, 8 and 16 ranks, two seeds (4 ranks: one): half cost 1.5 to 2.9 %,
            twice 28 to 32 %.
            The reason given, that a node's gradient is mostly noise, fails for large batches.

    Raises:
        ValueError: for a setting out of its range, a compressor that the feedback cannot use, or ranks
            that differ.
        TypeError: for complex, integer or sparse parameters.

    Warns:
        UserWarning: where beta_1 > 0 and the feedback keeps less than 5 % of the coordinates; where a
            scheduler sets it, at that step.

    A step is *void* where a gradient was not finite on any rank: parameters, moments, step counts and
    memories stay as they were, bit for bit, on every rank, and :attr:`skipped` counts it. ``GradScaler`` is
    understood: pass the optimiser to ``scaler.step``. Moments and memories are in unscaled units, so the
    ranks' scales may differ.

    Moments and memories differ by rank: every rank saves its own :meth:`state_dict`, or rank 0 those of all,
    ``state_dict(gather=True)``. Moments are float32 (float64 for float64 parameters), also for bfloat16
    parameters.

    Example:
        >>> import torch, laconic
        >>> model = torch.nn.Linear(64, 64)
        >>> optimizer = laconic.optim.CompressedAdamW(model.parameters(), lr=2e-3)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(8, 64)).square().mean().backward()
        ...     optimizer.step()
        >>> optimizer.stats().steps
        3
        >>> optimizer.close()
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor,
        feedback: Feedback = EF14(BlockTopK(41, 4096) >> ScaledSign()),  # noqa: B008 - frozen
        betas: tuple[float, float] = (0.0, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        clip: float | None = 0.5,
        process_group: dist.ProcessGroup | None = None,
        topology: str | Topology = "auto",
        exempt: Exempt = vectors_and_small,
        exact: bool = False,
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
        self._pending: dict[ParameterBucket, AdamWUpdate] = {}
        self._after: dict[ParameterBucket, list[Tensor]] = {}
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "clip": clip}
        super().__init__(
            params,
            defaults,
            feedback,
            exempt=exempt,
            exact=exact,
            process_group=process_group,
            topology=topology,
            seed=seed,
            timeout_s=timeout_s,
            clip_by=clip_by,
            overlap=overlap,
            adaptive=adaptive,
            bucket_cap_mb=bucket_cap_mb,
            check_replicas_every=check_replicas_every,
            density=density,
            dense_lr=dense_lr,
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Refuse settings out of their range with a ValueError that names the first."""
        super().check_group(group)
        check_positive("eps", group["eps"])
        for number, beta in enumerate(group["betas"]):
            check_number(f"betas[{number}]", beta, 0.0, 1.0)

    def momentum_setting(self) -> str | None:
        """Where it is positive in any group."""
        return "beta_1 > 0" if any(group["betas"][0] > 0 for group in self.param_groups) else None

    def arithmetic(self) -> Arithmetic:
        """AdamW's."""
        return "adamw"

    def new_state(self, parameter: Tensor) -> State:
        """A second moment of zeros, and the count of steps, which all trained parameters share."""
        count = self.__dict__.setdefault("_count", torch.tensor(0.0, device="cpu"))
        dtype = accumulation_dtype(parameter.dtype)
        state = {"step": count, "exp_avg_sq": torch.zeros_like(parameter, dtype=dtype)}
        if self.param_groups[self._group_of[parameter]]["betas"][0] > 0:
            # A checkpoint that fills the tensors of a new optimiser needs all of them.
            state["exp_avg"] = torch.zeros_like(parameter, dtype=dtype)
        return state

    def update(self, state: State, group: Mapping[str, Any], gradient: Tensor) -> Tensor:
        """The normalised update that the moments would make of this gradient; they stay as they are."""
        row = torch.tensor(
            _row(group, 1.0, float(state["step"]) + 1.0, 1.0), dtype=gradient.dtype, device="cpu"
        )
        mean = None
        if group["betas"][0] > 0:
            mean = state.get("exp_avg", torch.zeros_like(gradient))
        return normalized(gradient, mean, state["exp_avg_sq"], row)

    def advance(self, state: State, group: Mapping[str, Any], gradient: Tensor) -> None:
        """Move the moments on; the count moves with the last parameter."""
        beta1, beta2 = group["betas"]
        if beta1 > 0:
            first = state.setdefault("exp_avg", torch.zeros_like(gradient))
            first.mul_(beta1).add_(gradient * (1.0 - beta1))
        state["exp_avg_sq"].mul_(beta2).add_(gradient * gradient * (1.0 - beta2))

    def updates_of(self, bucket: ParameterBucket, factors: list[float]) -> Vector:
        """As :meth:`update`, of a whole bucket in one call."""
        gradients, moments = bucket.gradients(), self._moments(bucket)
        if gradients is None or moments is None:
            return super().updates_of(bucket, factors)
        first, second, counts = moments
        out = bucket.vectors(bucket.room)
        adamw_update(out, gradients, first, second, self._rows(bucket, factors, counts), bucket.numels)
        return bucket.room

    def source_of(self, bucket: ParameterBucket, factors: list[float]) -> Source:
        """What computes the updates in the pass that compresses them, and the second moments after the step.

        These go to a second buffer, which :meth:`advance_bucket` swaps: a void step has nothing to undo, and
        no pass computes the moments again.
        """
        self._pending.pop(bucket, None)
        gradients, moments = bucket.gradients(), self._moments(bucket)
        if gradients is None or moments is None or any(group["betas"][0] > 0 for group in self.param_groups):
            return self.updates_of(bucket, factors)
        _, second, counts = moments
        if bucket not in self._after:
            self._after[bucket] = [torch.empty_like(moment) for moment in second.owners]
        after = Vectors.of(self._after[bucket])
        update = AdamWUpdate.of(gradients, second, after, self._rows(bucket, factors, counts), bucket.numels)
        self._pending[bucket] = update
        return SegmentedVector(bucket.room, computed=update)

    def advance_bucket(self, bucket: ParameterBucket, factors: list[float]) -> None:
        """As :meth:`advance`, of a whole bucket in one call."""
        update = self._pending.pop(bucket, None)
        if update is not None:
            update.finish()
            for parameter, moment in zip(bucket.parameters, self._after[bucket], strict=True):
                self.state[parameter]["exp_avg_sq"] = moment
            self._after[bucket] = list(update.moment.owners)
            return
        gradients, moments = bucket.gradients(), self._moments(bucket)
        if gradients is None or moments is None:
            super().advance_bucket(bucket, factors)
            return
        first, second, counts = moments
        adamw_advance(first, second, gradients, self._rows(bucket, factors, counts), bucket.numels)

    def _scratch_nbytes(self) -> int:
        return sum(moment.nbytes for own in self._after.values() for moment in own)

    def advance_all(self, factors: list[float]) -> None:
        """Move moments and counts on; frozen parameters' stay."""
        super().advance_all(factors)
        counts = {id(own["step"]): own["step"] for p, own in self.state.items() if p.requires_grad}
        for parameter, own in self.state.items():
            if not parameter.requires_grad and id(own.get("step")) in counts:
                # Its moment stays, too: with the others' count it would not be corrected for its zeros.
                own["step"] = own["step"].clone()
        for count in counts.values():
            count.add_(1.0)

    def _rows(
        self, bucket: ParameterBucket, factors: list[float], counts: list[float]
    ) -> npt.NDArray[np.float64]:
        """The settings of each parameter for the loops, float64 (S, 9)."""
        groups, rates = self.param_groups, [self.rate_inside(group) for group in self.param_groups]
        if len(set(counts)) == 1:
            settings = zip(groups, factors, rates, strict=True)
            return bucket.rows([_row(group, factor, counts[0], rate) for group, factor, rate in settings])
        places = zip(bucket.groups.tolist(), counts, strict=True)
        return np.array([_row(groups[g], factors[g], count, rates[g]) for g, count in places], np.float64)

    def _moments(self, bucket: ParameterBucket) -> tuple[Vectors, Vectors, list[float]] | None:
        """First and second moments, and numbers of this step; None where loops do not take them."""
        states = [self.state[parameter] for parameter in bucket.parameters]
        if not bucket.compiled:
            return None
        counts = {id(state["step"]): state["step"] for state in states}
        numbers = {key: float(count) + 1.0 for key, count in counts.items()}
        second = [state["exp_avg_sq"] for state in states]
        first = second
        if any(group["betas"][0] > 0 for group in self.param_groups):
            for state in states:
                if "exp_avg" not in state:
                    state["exp_avg"] = torch.zeros_like(state["exp_avg_sq"])
            first = [state["exp_avg"] for state in states]
        return Vectors.of(first), Vectors.of(second), [numbers[id(state["step"])] for state in states]

    def load_state_dict(self, state_dict: dict[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """As :meth:`CompressedOptimizer.load_state_dict`; counts that are alike are shared again."""
        super().load_state_dict(state_dict, on_mismatch)
        self._pending.clear()
        self._after.clear()
        counts: dict[float, Tensor] = {}
        for state in self.state.values():
            state["step"] = counts.setdefault(float(state["step"]), state["step"])


def _row(group: Mapping[str, Any], factor: float, count: float, rate: float) -> tuple[float, ...]:
    """A row of the settings of :func:`laconic.kernels.adamw_update`."""
    beta1, beta2 = group["betas"]
    whole1, whole2 = 1.0 - beta1**count, 1.0 - beta2**count
    return factor, beta1, 1.0 - beta1, whole1, beta2, 1.0 - beta2, whole2, group["eps"], rate
