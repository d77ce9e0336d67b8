"""Copies from a GPU to main memory, through page-locked memory."""

import torch
from torch import Tensor


def to_host(tensor: Tensor) -> Tensor:
    """The tensor in main memory, once the GPU's current stream has made it; itself where it is there already.

    Page-locked memory spares the driver a copy of its own; PyTorch keeps such buffers for the next call.
    """
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(
        tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda", device="cpu"
    )
    return host.copy_(tensor)
