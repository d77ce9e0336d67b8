"""The replicas of a model: the same parameters on every rank, and the mean of what each wants to do."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm import Exchange, Stats
from laconic.compressors import Compressor
from laconic.feedback import DCGD, Feedback
from laconic.layout import Layout
from laconic.training._exempt import Exempt

_SPARSE = 0.05


class Replicas:
    """Named parameters that are kept alike on all ranks, and the exchange between them.

    Args:
        parameters: by name, alike on all ranks; those of rank 0 are sent to the others.
        feedback: what the updates go through.
        exempt: which parameters travel whole.
        process_group: the ranks; None is all of them.
        seed: of random compressors.
        timeout_s: how long to wait for the others, in seconds.

    Raises:
        ValueError: where the ranks have different parameters, or the feedback does not suit them.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        feedback: Feedback,
        exempt: Exempt,
        process_group: dist.ProcessGroup | None,
        seed: int,
        timeout_s: float,
    ) -> None:
        """Compare the layouts, start the exchange, and send rank 0's parameters to all."""
        whole = [name for name, parameter in parameters.items() if exempt(name, parameter)]
        self.layout = Layout.of(parameters, exact=whole)
        distributed = dist.is_available() and dist.is_initialized()
        if distributed:
            _require_same_layout(self.layout, next(iter(parameters.values())).device, process_group)
        self._exchange = Exchange(
            self.layout, feedback, process_group=process_group, seed=seed, timeout_s=timeout_s
        )
        if distributed:
            for parameter in parameters.values():
                sent = parameter.detach().contiguous()
                dist.broadcast(sent, group=process_group, group_src=0)
                parameter.detach().copy_(sent)

    def mean_(self, updates: dict[str, Tensor]) -> bool:
        """Replace the updates by the feedback's estimate of their mean; False where the step is void."""
        return self._exchange.reduce_(updates)

    def stats(self) -> Stats:
        """What the exchange has sent, received and spent."""
        return self._exchange.stats()

    def state_dict(self) -> dict[str, Any]:
        """This rank's memories."""
        return self._exchange.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over this rank's memories."""
        self._exchange.load_state_dict(state)

    def close(self) -> None:
        """End the exchange's thread, and give its process group back."""
        self._exchange.close()


def parameter_names(groups: Sequence[Mapping[str, Any]]) -> dict[Tensor, str]:
    """A name for each parameter that is trained: its own where the optimiser was given names, else its index.

    Frozen parameters and those without a number have none: nothing of them is ever sent.
    """
    names: dict[Tensor, str] = {}
    index = 0
    for group in groups:
        own = group.get("param_names")
        for place, parameter in enumerate(group["params"]):
            if parameter.requires_grad and parameter.numel() > 0:
                names[parameter] = str(index) if own is None else _plain(own[place])
            index += 1
    if not names:
        raise ValueError("no parameter requires a gradient; there is nothing to train")
    return names


def trained(group: Mapping[str, Any], names: Mapping[Tensor, str]) -> Iterator[tuple[Tensor, str]]:
    """The group's parameters that have a name, with it.

    Raises:
        RuntimeError: where one without a name has a gradient.
    """
    for parameter in group["params"]:
        if parameter in names:
            yield parameter, names[parameter]
        elif parameter.grad is not None:
            raise RuntimeError(
                f"a parameter of shape {tuple(parameter.shape)} has a gradient, but was frozen when "
                "the optimiser was made: make a new one to train it"
            )


def opened(replicas: Replicas | None) -> Replicas:
    """The replicas of an optimiser that is made."""
    if replicas is None:
        raise RuntimeError("the optimiser is not made yet, or came from a pickle: make a new one")
    return replicas


def refuse_groups(replicas: Replicas | None) -> None:
    """Refuse a group that comes after the ranks have agreed on the parameters.

    Raises:
        RuntimeError: saying what to do.
    """
    if replicas is not None:
        raise RuntimeError(
            "the ranks have agreed on the parameters: give all groups when the optimiser is made, those for "
            "later with lr=0, or make a new optimiser"
        )


def _plain(name: str) -> str:
    """The name without what wrappers put before it, so that a checkpoint fits with and without them."""
    for prefix in ("_orig_mod.", "module."):
        name = name.replace(prefix, "")
    return name


def warn_of_momentum(what: str, feedback: Feedback, layout: Layout, stacklevel: int) -> None:
    """Warn where error feedback keeps so little that it averages like momentum already."""
    if isinstance(feedback, DCGD) or density(feedback.compressor, layout) >= _SPARSE:
        return
    warnings.warn(
        f"{what} together with {feedback!r}: error feedback that keeps less than 5 % of the coordinates "
        "already averages each over tens of steps, and momentum delays them once more. In our first study "
        f"this cost up to 20 % in loss; set {what.split(maxsplit=1)[0]} to 0",
        UserWarning,
        stacklevel=stacklevel + 1,
    )


def density(compressor: Compressor, layout: Layout) -> float:
    """The share of the compressed segments' coordinates that a message names; 1 where none is compressed.

    Example:
        >>> import laconic
        >>> density(laconic.TopK(0.01) >> laconic.ScaledSign(), Layout.flat(1000))
        0.01
    """
    compressed = [segment.numel for segment in layout.segments if segment.rule == "compress"]
    if not compressed:
        return 1.0
    return sum(compressor.structure(d, torch.float32).k for d in compressed) / sum(compressed)


def _require_same_layout(
    layout: Layout, device: torch.device, process_group: dist.ProcessGroup | None
) -> None:
    own = torch.tensor([layout.digest, layout.d, len(layout.segments)], device=device)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size(process_group))]
    dist.all_gather(everyone, own, group=process_group)
    for rank, other in enumerate(everyone):
        if not torch.equal(other, everyone[0]):
            _, d, segments = other.tolist()
            raise ValueError(
                f"rank {rank} has other parameters than rank 0 ({segments} tensors with {d} numbers, on "
                f"rank 0 {int(everyone[0][2])} with {int(everyone[0][1])}, or other names or shapes): build "
                "the same model on every rank"
            )
