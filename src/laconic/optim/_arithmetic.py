"""The abstract arithmetic of a compressed optimiser: what a node sends, how its state moves on."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic._arguments import check_number, check_positive
from laconic.comm import Destination, Source, Vector
from laconic.kernels import Arithmetic, apply_steps
from laconic.kernels.tables import SegmentedVector, Vectors
from laconic.optim._buckets import ParameterBucket, UpdateBuckets
from laconic.optim._exchanging import ExchangingOptimizer
from laconic.optim._gradients import apply_, local_gradient

State = dict[str, Any]
"""Optimiser state of one parameter."""


class UpdateArithmetic(ExchangingOptimizer):
    """Updates of parameters from gradients and state, by parameter or by bucket.

    ``update`` and ``advance`` are an optimiser's own. The rest follows from them, and is replaced only for
    speed, by the same numbers bit for bit.
    """

    _buckets: UpdateBuckets
    _group_of: dict[Tensor, int]
    _inside: bool
    """Whether updates are sent times the learning rate."""
    _rate_factor = 1.0
    """What learning rates are multiplied by in updates; decay takes them as they are."""

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
        check_number("lr", group["lr"], 0.0)
        check_number("weight_decay", group["weight_decay"], 0.0)
        if group["clip"] is not None:
            check_positive("clip", group["clip"])

    def rate_inside(self, group: Mapping[str, Any]) -> float:
        """What a group's updates are multiplied by before they are sent."""
        return self._rate(group) if self._inside else 1.0

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
        """Move the state of all parameters on, once the step stands."""
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

    def apply_all(self, estimates: Sequence[Destination]) -> None:
        """Subtract each bucket's estimates from the parameters, and decay these.

        A subclass that replaces this is given flat vectors, or a tensor for each parameter.
        """
        by_group = [self._decay_and_rate(group) for group in self.param_groups]
        for bucket, estimate in zip(self._buckets.buckets, estimates, strict=True):
            if bucket.takes_loops():
                rows, parameters = bucket.rows(by_group), Vectors.of(bucket.parameters)
                if isinstance(estimate, SegmentedVector) and estimate.deferred:
                    for summands in estimate.deferred:
                        summands.subtract_from(parameters, rows)
                else:
                    apply_steps(parameters, bucket.vectors(estimate), rows, bucket.numels)
                torch.autograd.graph.increment_version(bucket.parameters)
                continue
            for parameter, step in zip(bucket.parameters, bucket.split(estimate), strict=True):
                if parameter.requires_grad:
                    decay, rate = by_group[self._group_of[parameter]]
                    apply_(parameter, step * rate, decay)

    def _decay_and_rate(self, group: Mapping[str, Any]) -> tuple[float, float]:
        return 1.0 - float(group["lr"]) * group["weight_decay"], 1.0 if self._inside else self._rate(group)

    def _rate(self, group: Mapping[str, Any]) -> float:
        return float(group["lr"]) * self._rate_factor

    def _update_of(self, parameter: Tensor, factors: list[float]) -> Tensor:
        number = self._group_of[parameter]
        group = self.param_groups[number]
        gradient = local_gradient(parameter, factors[number])
        if not parameter.requires_grad:
            return torch.zeros_like(gradient)
        update = self.update(self.state.get(parameter, {}), group, gradient)
        return update * self.rate_inside(group) if self._inside else update
