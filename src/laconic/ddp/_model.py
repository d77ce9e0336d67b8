"""The model behind DDP: names of its parameters, their layout, and what DDP is refused for."""

import weakref
import zlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from laconic.layout import Layout
from laconic.session._exempt import Exempt, layout_with, plain_name

_JOIN = (
    "laconic.ddp does not work inside DDP's join(): a rank that has run out of data would send zeros as if "
    "they were its gradient, and every memory would follow them. Give all ranks as many batches (a "
    "DistributedSampler, drop_last=True)"
)
_PYTHON_REDUCER = (
    'torch._dynamo.config.optimize_ddp = "python_reducer" hands hooks (gradient, parameter) pairs of one '
    'parameter and ignores what they return; set it to True or "ddp_optimizer" before DDP is made'
)


class Named:
    """A model's trained parameters by name, whatever wraps it.

    Args:
        model: a module, or one wrapped by DDP or ``torch.compile``.

    Raises:
        TypeError: for something else, or complex, sparse or integer parameters.
        ValueError: where nothing is trained.
        RuntimeError: where DDP uses dynamo's python_reducer.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find DDP around the model, if it is there, and the names inside."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        inner, ddp = _unwrapped(model)
        if getattr(ddp, "_use_python_reducer", False):
            raise RuntimeError(_PYTHON_REDUCER)
        # A weak reference: DDP holds the state, so that the two would keep each other alive.
        self._ddp = None if ddp is None else weakref.ref(ddp)
        ignored = set(getattr(inner, "_ddp_params_and_buffers_to_ignore", ()))
        self.parameters = {
            plain_name(name): parameter
            for name, parameter in inner.named_parameters()
            if parameter.requires_grad and name not in ignored and parameter.numel() > 0
        }
        if not self.parameters:
            raise ValueError("no parameter of the model requires a gradient; there is nothing to exchange")
        for name, parameter in self.parameters.items():
            check_dense(parameter, f"the parameter {name!r}")
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in self.parameters.items()}

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """DDP's, where DDP is known."""
        ddp = None if self._ddp is None else self._ddp()
        return None if ddp is None else ddp.process_group

    def names(self, parameters: Sequence[Tensor]) -> tuple[str, ...]:
        """The names of a bucket's parameters.

        Raises:
            RuntimeError: for one that the model did not have, or did not train, at the time.
        """
        for parameter in parameters:
            if parameter not in self._names:
                raise RuntimeError(
                    f"DDP sends the gradient of a parameter of shape {tuple(parameter.shape)} that CommState "
                    "does not know: it was frozen, or not yet part of the model, when CommState was given "
                    "the model. Freeze and add parameters first, then make DDP and CommState"
                )
        return tuple([self._names[parameter] for parameter in parameters])

    def require_all(self, sent: Sequence[str]) -> None:
        """Refuse a step in which a parameter was not in any bucket.

        Raises:
            RuntimeError: naming the first.
        """
        if missing := self.parameters.keys() - set(sent):
            first = next(name for name in self.parameters if name in missing)
            raise RuntimeError(
                f"DDP did not send the gradient of {first!r} (and of {len(missing) - 1} others): was it "
                "frozen when DDP was made? Freeze and unfreeze first, then make DDP and CommState"
            )

    def refuse_join(self) -> None:
        """Refuse to go on inside ``join()``; RuntimeError. Only where DDP is known can this be seen."""
        ddp = None if self._ddp is None else self._ddp()
        if ddp is not None and ddp._join_config.enable:
            raise RuntimeError(_JOIN)

    def layout(self, exempt: Exempt, exact: bool) -> Layout:
        """A segment for each parameter; exempt ones travel in bfloat16, or exactly if they are float64."""
        return layout_with(self.parameters, exempt, exact)

    @property
    def double(self) -> bool:
        """Whether any parameter is float64."""
        return any(parameter.dtype == torch.float64 for parameter in self.parameters.values())

    def fingerprints(self) -> Tensor:
        """A checksum of each parameter's bits: int64 (parameters,) on the CPU."""
        return torch.tensor([_checksum(parameter) for parameter in self.parameters.values()])


def gradients_in(buffer: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of each parameter in DDP's buffer, as views of the parameters' shapes.

    DDP lays a gradient out as its parameter where that is dense in memory. ``GradBucket.gradients()`` takes
    them all for contiguous, which permutes those of channels_last weights.
    """
    found, offset = [], 0
    for parameter in parameters:
        dense = torch.empty_like(parameter, device="meta").stride() == parameter.stride()
        flat = buffer[offset : offset + parameter.numel()]
        if dense:
            found.append(flat.as_strided(parameter.shape, parameter.stride()))
        else:
            found.append(flat.view(parameter.shape))
        offset += parameter.numel()
    return found


def check_bucket(bucket: Any) -> None:
    """Refuse what is not a bucket of dense real gradients.

    Raises:
        TypeError: saying what it is, and what to do.
    """
    if isinstance(bucket, tuple):
        raise TypeError(_PYTHON_REDUCER)
    check_dense(bucket.buffer(), "a gradient")


def check_dense(tensor: Tensor, what: str) -> None:
    """Refuse sparse, complex and integer tensors with TypeError."""
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{what} is sparse: build the embedding with sparse=False; compressing it is laconic's own work"
        )
    if not tensor.is_floating_point():
        raise TypeError(f"{what} is {tensor.dtype}: laconic compresses real floating-point numbers only")


def _unwrapped(model: nn.Module) -> tuple[nn.Module, DistributedDataParallel | None]:
    ddp = None
    while True:
        if isinstance(model, DistributedDataParallel):
            ddp, model = model, model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model, ddp


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().to("cpu", memory_format=torch.contiguous_format).reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data)
