"""Block quantiser and packing kernels against their plain forms, bit for bit."""

import numpy as np
import pytest
import torch
from same import numbers, same

from laconic.formats.grids import BlockLevels, level_table
from laconic.kernels import gpu
from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.reference.blocks import dequantize_blocks_reference, quantize_blocks_reference
from laconic.kernels.reference.group_codes import put_codes_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
@pytest.mark.parametrize("block", [1, 7, 64, 130, 1024])
def test_block_quantiser(block, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = numbers((2, 300), dtype, block)
    found = gpu.quantize_blocks(x, 7, block)
    expected = quantize_blocks_reference(x, 7, block)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    levels = level_table(BlockLevels(4), wide, x.device)
    decoded = gpu.dequantize_blocks(found[0], levels, *found[:0:-1], block)
    assert same(decoded, dequantize_blocks_reference(found[0], levels, *found[:0:-1], block))


def test_a_span_that_would_reach_infinity():
    most = torch.finfo(torch.float32).max
    x = torch.tensor([most, -most / 3, most / 1.5, 1.0, 5e-45, -0.0])
    for found, expected in zip(
        gpu.quantize_blocks(x, 127, 3), quantize_blocks_reference(x, 127, 3), strict=True
    ):
        assert same(found, expected)


@pytest.mark.parametrize("count", [1, 32, 33, 1100])
@pytest.mark.parametrize(
    ("symbols", "shared", "width", "base"),
    [
        (2, 1, 1, 0),
        (16, 1, 4, 0),
        (511, 1, 9, 22),
        (2**17, 1, 17, 0),
        (3, 5, 8, 0),
        (15, 2, 8, 9),
    ],
)
def test_codes_as_bits(count, symbols, shared, width, base):
    generator = torch.Generator().manual_seed(count)
    size = torch.randint(1, symbols // 2 + 1, (count,), generator=generator) + base
    sign = 1 - 2 * torch.randint(2, (count,), generator=generator)
    codes = (size * sign).to(code_dtype(symbols // 2 + base))
    if symbols % 2:
        codes[::3] = 0
    bases, bounds, used = np.array([base]), np.array([0, count]), np.array([count])
    expected = put_codes_reference(codes, bases, bounds, used, symbols, shared, width)
    assert same(gpu.pack_codes(codes, base, symbols, shared, width), expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="blocks of 1 to 4096"):
        gpu.quantize_blocks(torch.zeros(9000), 7, 5000)
