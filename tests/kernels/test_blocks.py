"""Block quantiser: compiled loops equal the plain form."""

import pytest
import torch

from laconic.kernels import blocks
from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.reference.blocks import dequantize_blocks_reference, quantize_blocks_reference


@pytest.mark.parametrize("shape", [(1,), (5,), (1024,), (1025,), (3, 2, 777), (2, 3500)])
@pytest.mark.parametrize("scale", [1.0, 1e38, 1e-40, 0.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16, 17])
def test_blocks(shape, scale, bits):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(bits)) ** 3 * scale
    x = x.clamp(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
    x[..., ::3] *= -0.0
    steps = (1 << (bits - 1)) - 1
    for block in (1, 100, 2000):
        fast = blocks.quantize_blocks(x, steps, block)
        for a, b in zip(fast, quantize_blocks_reference(x, steps, block), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        codes, low, span = fast
        assert codes.dtype == code_dtype(steps + 1)
        assert int(codes.abs().to(torch.int64).max()) <= steps + 1
        levels = torch.cat((torch.zeros(1), torch.arange(steps + 1) / steps))
        numbers = blocks.dequantize_blocks(codes, levels, span, low, block)
        assert torch.equal(numbers, dequantize_blocks_reference(codes, levels, span, low, block))
        assert torch.equal(numbers, blocks.dequantize_blocks(codes.to(torch.int64), levels, span, low, block))
        assert bool(numbers.isfinite().all())


def test_the_largest_number_does_not_become_infinite():
    """low + span can round beyond the range although the largest magnitude is within."""
    largest = torch.finfo(torch.float32).max
    for exponent in range(100, 108):
        for odd in range(1, 16, 2):
            x = torch.tensor([largest, odd * 2.0**exponent])
            codes, low, span = blocks.quantize_blocks(x, 7, 8)
            levels = torch.cat((torch.zeros(1), torch.arange(8) / 7))
            assert bool(blocks.dequantize_blocks(codes, levels, span, low, 8).isfinite().all())
