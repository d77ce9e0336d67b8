"""Replicated parameters of an optimizer, and the exchange of their updates."""

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm import Exchange, Stats
from laconic.compressors import Compressor
from laconic.feedback import DCGD, Feedback
from laconic.layout import Layout
from laconic.session._exempt import Exempt, layout_with, plain_name

_SPARSE = 0.05


class Replicas:
    """Named parameters that are kept alike on all ranks, and the exchange between them.

    Args:
        parameters: by name, alike on all ranks; those of rank 0 are sent to the others.
        feedback: what the updates go through.
        exempt: which parameters travel whole, in bfloat16 or, those of float64, exactly.
        exact: whether all that travel whole travel exactly.
        process_group: the ranks; None is all of them.
        seed: of random compressors.
        timeout_s: how long to wait for the others, in seconds.
        settings: what else must be alike on all ranks, in words.
        adaptive: as for the exchange.

    Raises:
        ValueError: where the ranks differ in parameters or settings, or the feedback does not suit them.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        feedback: Feedback,
        exempt: Exempt,
        exact: bool,
        process_group: dist.ProcessGroup | None,
        seed: int,
        timeout_s: float,
        settings: str,
        adaptive: bool = False,
    ) -> None:
        """Compare the layouts, start the exchange, and send rank 0's parameters to all."""
        self.layout = layout_with(parameters, exempt, exact)
        self._exchange = Exchange(
            self.layout,
            feedback,
            process_group=process_group,
            seed=seed,
            timeout_s=timeout_s,
            adaptive=adaptive,
            dtypes={name: parameter.dtype for name, parameter in parameters.items()},
        )
        try:
            self._require_alike(f"{feedback!r}, seed {seed}, adaptive {adaptive}, {settings}")
        except ValueError:
            self._exchange.close()
            raise
        if self._exchange.size > 1:
            for parameter in parameters.values():
                sent = parameter.detach().contiguous()
                dist.broadcast(sent, group=process_group, group_src=0)
                parameter.detach().copy_(sent)

    def _require_alike(self, settings: str) -> None:
        own = torch.tensor([self.layout.digest, zlib.crc32(settings.encode())])
        everyone = self._exchange.gather(own, "the digests of parameters and settings")
        for rank, other in enumerate(everyone):
            if int(other[0]) != int(everyone[0][0]):
                raise ValueError(
                    f"rank {rank} has other parameters than rank 0 (their names, shapes or exemptions): "
                    "build the same model on every rank"
                )
            if int(other[1]) != int(everyone[0][1]):
                raise ValueError(
                    f"rank {rank} has other settings than rank 0; here they are {settings}: give every rank "
                    "the same"
                )

    def mean_(self, updates: dict[str, Tensor]) -> bool:
        """Replace the updates by the feedback's estimate of their mean; False where the step is void."""
        return self._exchange.reduce_(updates)

    def submit(self, names: Sequence[str], update: Tensor, *, last: bool) -> torch.futures.Future[Tensor]:
        """Begin to replace some of the updates, flat, by the estimate; the step ends with the last."""
        return self._exchange.submit(names, update, last=last)

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
                names[parameter] = (
                    str(index) if own is None else plain_name(own[place].removeprefix("module."))
                )
            index += 1
    if not names:
        raise ValueError("no parameter requires a gradient; there is nothing to train")
    return names


def settings_of(groups: Sequence[Mapping[str, Any]]) -> str:
    """The groups' settings in words, which all ranks must share: they act on every replica."""
    own = ("params", "param_names")
    return "; ".join(
        ", ".join(f"{k}={v}" for k, v in sorted(group.items()) if k not in own) for group in groups
    )


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
