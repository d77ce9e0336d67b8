"""The model behind DDP: its trained parameters, gradients in DDP's buckets, and what is refused."""

import sys
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from laconic.session import TrainedParameters, check_dense

_JOIN = (
    "laconic.ddp does not work inside DDP's join(): a rank that has run out of data would send zeros as if "
    "they were its gradient, and every memory would follow them. Give all ranks as many batches (a "
    "DistributedSampler, drop_last=True)"
)
_PYTHON_REDUCER = (
    'torch._dynamo.config.optimize_ddp = "python_reducer" hands hooks (gradient, parameter) pairs of one '
    'parameter and ignores what they return; set it to True or "ddp_optimizer" before DDP is made'
)
_SKIPS = (
    "DDP(skip_all_reduce_unused_params=True) does not call the hook for buckets that are not used, so that "
    "no step would end; freeze what is never used, requires_grad_(False), before DDP is made"
)
_INTERRUPTED = (
    "a backward pass was interrupted in the middle of a step, so the ranks are out of step: restart from the "
    "last checkpoint"
)


class DDPModel:
    """A model's trained parameters, and the DDP module around it, where there is one.

    Args:
        model: a module, or one wrapped by DDP or ``torch.compile``.

    Raises:
        TypeError: for something else, a sharded model, or complex, sparse or integer parameters.
        ValueError: where nothing is trained.
        RuntimeError: where DDP uses dynamo's python_reducer, or skips unused buckets.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find DDP around the model, if it is there, and the parameters inside."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        inner, ddp = _unwrapped(model)
        _refuse_fsdp(inner)
        if getattr(ddp, "_use_python_reducer", False):
            raise RuntimeError(_PYTHON_REDUCER)
        if getattr(ddp, "skip_all_reduce_unused_params", False):
            raise RuntimeError(_SKIPS)
        # A weak reference: DDP holds the state, so that the two would keep each other alive.
        self._ddp = None if ddp is None else weakref.ref(ddp)
        self._failed = False
        # DDP's own set holds those whose all-reduce it delays, too: it averages these itself.
        ignored = {
            *getattr(inner, "_ddp_params_and_buffers_to_ignore", ()),
            *getattr(ddp, "parameters_to_ignore", ()),
        }
        self.parameters = TrainedParameters(
            (name, parameter) for name, parameter in inner.named_parameters() if name not in ignored
        )

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """DDP's, where DDP is known."""
        ddp = self._known_ddp()
        return None if ddp is None else ddp.process_group

    def require_all(self, sent: Sequence[str]) -> None:
        """Refuse a step in which a parameter was not in any bucket.

        Raises:
            RuntimeError: naming the first.
        """
        if missing := self.parameters.by_name.keys() - set(sent):
            first = next(name for name in self.parameters.by_name if name in missing)
            raise RuntimeError(
                f"DDP did not send the gradient of {first!r} (and of {len(missing) - 1} others): was it "
                "frozen when DDP was made? Freeze and unfreeze first, then make DDP and CommState. Or does "
                "DDP leave it out (delay_all_reduce_named_params)? Then give CommState model=ddp_model"
            )

    def refuse_join(self) -> None:
        """Refuse to go on inside ``join()``; RuntimeError. Only where DDP is known can this be seen."""
        ddp = self._known_ddp()
        if ddp is not None and ddp._join_config.enable:
            raise RuntimeError(_JOIN)

    @property
    def synchronises(self) -> bool:
        """Whether DDP, where it is known, would call the hook in this backward pass."""
        ddp = self._known_ddp()
        return ddp is None or bool(ddp.require_backward_grad_sync)

    @property
    def leaves_unused(self) -> bool:
        """Whether DDP leaves alone the gradients of parameters no rank used; so, too, if it is unknown."""
        ddp = self._known_ddp()
        return ddp is None or bool(ddp.find_unused_parameters or ddp.static_graph)

    @property
    def copies_gradients(self) -> bool:
        """Whether gradients are no views of DDP's buckets; so, too, if DDP is unknown."""
        ddp = self._known_ddp()
        return ddp is None or not ddp.gradient_as_bucket_view

    def raise_from_now_on(self, error: BaseException) -> None:
        """Let DDP's next forward pass raise the error; DDP would report a state of its own instead."""
        if not isinstance(error, Exception):  # KeyboardInterrupt must not come from nowhere
            error = RuntimeError(_INTERRUPTED)
        ddp = self._known_ddp()
        if ddp is None or self._failed:
            return
        self._failed = True

        def fail(module: nn.Module, _: Any) -> None:
            if torch.is_grad_enabled() and module.require_backward_grad_sync:
                raise error

        ddp.register_forward_pre_hook(fail)

    def _known_ddp(self) -> DistributedDataParallel | None:
        return None if self._ddp is None else self._ddp()


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


def _refuse_fsdp(model: nn.Module) -> None:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in model.modules()):
        raise TypeError(
            "the model is sharded by FullyShardedDataParallel, which never calls DDP's hook: use "
            "DistributedDataParallel in its place"
        )


def _unwrapped(model: nn.Module) -> tuple[nn.Module, DistributedDataParallel | None]:
    ddp = None
    while True:
        if isinstance(model, DistributedDataParallel):
            ddp, model = model, model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model, ddp
