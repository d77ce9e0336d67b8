"""Canonical sums and norms on the device against their plain forms, bit for bit."""

import math

import pytest
import torch
from same import numbers, same

from laconic.kernels import gpu, sums
from laconic.kernels.gpu.sums import _folded as folded

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float16]


@pytest.mark.parametrize("d", [1, 63, 65, 4096, 4097, 70000])
def test_lengths(d):
    x = numbers((d,), torch.float32, d)
    assert same(gpu.canonical_sum(x), sums.canonical_sum(x))
    assert same(gpu.squared_norm(x), sums.squared_norm(x))


@pytest.mark.parametrize("blocks", [2, 3, 1024, 1025, 3073])
def test_blocks_fold_in_neighbours(blocks):
    expected = found = torch.randn(2, blocks, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    while expected.shape[1] > 1:
        expected = torch.nn.functional.pad(expected, (0, expected.shape[1] % 2))
        expected = expected[:, 0::2] + expected[:, 1::2]
    assert same(folded(found), expected[:, 0])


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(dtype, p):
    x = numbers((2, 130), dtype, 1)
    assert same(gpu.norm(x, p), sums.norm(x, p))


@pytest.mark.parametrize("size", [0.0, 5e-324, 1e-310, 1e-160, 1e160, 1.7e308])
def test_norms_of_extremes(size):
    x = torch.full((1, 100), size, dtype=torch.float64)
    assert same(gpu.norm(x, 2), sums.norm(x, 2))


def test_the_mean_magnitude():
    x = numbers((2, 777), torch.float32, 3)
    assert same(gpu.mean_magnitude(x), sums.canonical_sum(x.abs().to(torch.float64) / 777))


def test_other_norms_are_refused():
    with pytest.raises(ValueError, match="norms 1, 2 and infinity"):
        gpu.norm(torch.ones(3), 3)
