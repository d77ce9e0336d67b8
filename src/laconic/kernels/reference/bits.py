"""Bits as bytes: they are numbered from the lowest of the first byte, and zeros fill the last one."""

import torch
from torch import Tensor


def joined(bits: Tensor) -> Tensor:
    """Bits, lowest first, as bytes: uint8 (n,) to uint8 (ceil(n / 8),)."""
    padded = torch.nn.functional.pad(bits, (0, -bits.numel() % 8)).view(-1, 8)
    weights = 1 << torch.arange(8, device=bits.device)
    return (padded * weights).sum(dim=-1).to(torch.uint8)


def bits_of(data: Tensor, count: int) -> Tensor:
    """The first ``count`` bits, lowest first: uint8 (count,); ValueError where the rest is not zero."""
    bits = (data[:, None] >> torch.arange(8, device=data.device) & 1).flatten()
    if bool(bits[count:].any()):
        raise ValueError("the bits that fill the last byte are not zero")
    return bits[:count]
