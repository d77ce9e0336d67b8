"""Equality of bits."""

import torch


def same(a, b):
    """Whether two tensors have one shape and dtype and the same bits."""
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a.contiguous().view(width) == b.contiguous().view(width)).all())


def numbers(shape, dtype, seed, edges=True):
    """Finite numbers of many sizes, subnormal ones, both zeros, powers of two and the largest among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = (x * 2.0 ** torch.randint(-30, 30, x.shape, generator=generator)).to(dtype)
    if edges:
        info = torch.finfo(dtype)
        tiny = info.smallest_normal * info.eps
        special = [0.0, -0.0, tiny, -3 * tiny, info.smallest_normal, info.max, -info.max, 1.0, -2.0, 1.5]
        flat = x.flatten()
        places = torch.randperm(flat.numel(), generator=generator)[: len(special)]
        flat[places] = torch.tensor(special, dtype=torch.float64)[: len(places)].to(dtype)
        x = flat.view(shape)
    return x.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
