"""Detection of gradients that were averaged before the optimiser sees them, as by DDP around the model."""

import warnings

import torch
from torch import Tensor

from laconic.comm import crc32_of
from laconic.optim._groups import WITHOUT_DDP
from laconic.session import Session

_SAME = "the gradients are bit for bit the same on every rank before laconic exchanges anything"


def refuse_averaged_gradients(session: Session) -> None:
    """Compare this step's gradients over ranks; all call it together.

    Raises:
        RuntimeError: where they are the same on all, and views of larger buffers, as DDP makes them.

    Warns:
        UserWarning: where they are the same on all, and not all zeros.
    """
    if session.exchange.size == 1:
        return
    gradients = [p.grad for p in session.parameters.by_name.values() if p.grad is not None]
    found = session.exchange.gather(
        torch.tensor([_checksum(gradients)], device="cpu"), "the checksums of the gradients"
    )
    if any(int(other) != int(found[0]) for other in found) or int(found[0]) == 0:
        return
    if all(gradient.untyped_storage().nbytes() > gradient.nbytes for gradient in gradients):
        raise RuntimeError(f"{_SAME}, and lie in buffers as DDP's: {WITHOUT_DDP}")
    warnings.warn(
        f"{_SAME}. Are they averaged already? A model inside DistributedDataParallel belongs to "
        "laconic.ddp.hook, not to this optimiser. Or do all ranks see the same batches? Then use a "
        "DistributedSampler",
        stacklevel=2,
    )


def _checksum(gradients: list[Tensor]) -> int:
    """Of all bits; 0 where all are zeros."""
    if not any(bool(gradient.any()) for gradient in gradients):
        return 0
    value = 0
    for gradient in gradients:
        value = crc32_of(gradient, value)
    return value + 1
