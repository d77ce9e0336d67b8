"""Packing and unpacking of sections on the device against the bytes of the plain forms."""

import numpy as np
import pytest
import torch
from same import numbers, same

from laconic.kernels import gpu
from laconic.kernels._code_dtypes import code_dtype
from laconic.kernels.position_plan import position_plan
from laconic.kernels.reference.group_codes import get_codes_reference, put_codes_reference
from laconic.kernels.reference.group_positions import get_positions_reference, put_positions_reference

PLANS = {
    "every form": ([5000, 40, 3, 700, 60], [30, 39, 3, 7, 0], [0, 0, 0, 100, 0], [0, 0, 0, 1, 0]),
    "long": ([100_000], [2500], None, None),
    "dense": ([3000, 2000], [2990, 3], None, None),
    "implied": ([7, 4], [7, 0], None, None),
    "cells": ([1030, 64], [35, 2], [30, 32], [1, 1]),
}


def positions_of(plan, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for d, n, length, count in zip(plan.numels, plan.used, plan.cell_lengths, plan.cell_counts, strict=True):
        if length:
            cells = torch.arange(n) // count * length
            found.append(
                cells + torch.randint(int(min(length, d - int(cells.max()))), (n,), generator=generator)
            )
        else:
            found.append(torch.randperm(d, generator=generator)[:n].sort().values)
    return torch.cat(found)


def words_of(nbytes):
    return torch.zeros(nbytes // 4 + 3, dtype=torch.int32)


@pytest.mark.parametrize("byte", [0, 5])
@pytest.mark.parametrize("name", PLANS)
def test_positions(name, byte):
    plan = position_plan(*PLANS[name])
    rows = torch.stack([words_of(byte + plan.nbytes) for _ in range(3)])
    flags = torch.zeros(3, dtype=torch.int32)
    given = [positions_of(plan, seed) for seed in range(3)]
    for row, positions in zip(rows, given, strict=True):
        gpu.put_positions(row, byte, positions, plan)
        packed = row.view(torch.uint8)[byte : byte + plan.nbytes]
        assert same(packed, put_positions_reference(positions, plan))
        assert not row.view(torch.uint8)[byte + plan.nbytes :].any()
    assert same(gpu.get_positions(rows, byte, plan, flags), torch.stack(given))
    assert not flags.any()


@pytest.mark.parametrize("name", ["every form", "dense", "cells"])
def test_bytes_that_no_positions_make_are_noticed(name):
    plan = position_plan(*PLANS[name])
    good = words_of(plan.nbytes)
    gpu.put_positions(good, 0, positions_of(plan), plan)
    generator = torch.Generator().manual_seed(1)
    noticed = 0
    for i in range(14):
        rows = torch.stack([good, good])
        data = rows[1].view(torch.uint8)
        byte = int(torch.randint(plan.nbytes - 1, (), generator=generator))
        data[byte] = 255 if i % 2 else data[byte] ^ (1 << i // 2)
        flags = torch.zeros(2, dtype=torch.int32)
        found = gpu.get_positions(rows, 0, plan, flags)
        try:
            expected = get_positions_reference(data[: plan.nbytes].clone(), plan)
        except ValueError:
            expected = None
        assert flags[0] == 0
        filled = (plan.lows[-1] % 8, plan.highs[-1] % 8) != (0, 0)
        assert (flags[1] != 0) == (expected is None) or filled
        noticed += int(flags[1])
        if expected is not None:
            assert same(found[1], expected)
    assert noticed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_numbers(dtype):
    rows, flags = torch.zeros(2, 3000, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    given = [numbers((1100,), dtype, seed) for seed in range(2)]
    for row, own in zip(rows, given, strict=True):
        gpu.put_numbers(row, 7, own)
        assert same(row.view(torch.uint8)[7 : 7 + 1100 * dtype.itemsize].clone().view(dtype), own)
    assert same(gpu.get_numbers(rows, 7, 1100, dtype, flags), torch.stack(given))
    assert not flags.any()
    rows.zero_()
    given[1][1050] = -torch.inf
    for row, own in zip(rows, given, strict=True):
        gpu.put_numbers(row, 2, own)
    gpu.get_numbers(rows, 2, 1100, dtype, flags)
    assert flags.tolist() == [0, 1]


@pytest.mark.parametrize("count", [1, 33, 1100])
@pytest.mark.parametrize(
    ("symbols", "shared", "width"),
    [(2, 1, 1), (16, 1, 4), (511, 1, 9), (2**17, 1, 17), (3, 5, 8), (15, 2, 8)],
)
def test_codes(count, symbols, shared, width):
    top = symbols // 2
    generator = torch.Generator().manual_seed(count)
    codes = torch.randint(1, top + 1, (2, count), generator=generator)
    codes *= 1 - 2 * torch.randint(2, (2, count), generator=generator)
    if symbols % 2:
        codes[:, ::3] = 0
    codes = codes.to(code_dtype(top))
    nothing, bounds, used = np.array([0]), np.array([0, count]), np.array([count])
    rows, flags = torch.zeros(2, 3000, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    for row, own in zip(rows, codes, strict=True):
        gpu.put_codes(row, 3, own, symbols, shared, width)
        expected = put_codes_reference(own, nothing, bounds, used, symbols, shared, width)
        assert same(row.view(torch.uint8)[3 : 3 + len(expected)], expected)
    assert same(gpu.get_codes(rows, 3, count, symbols, shared, width, top, flags), codes)
    assert not flags.any()


@pytest.mark.parametrize(("symbols", "shared", "width"), [(511, 1, 9), (3, 5, 8), (15, 2, 8)])
def test_symbols_that_are_none_are_noticed(symbols, shared, width):
    count = 7
    nothing, bounds, used = np.array([0]), np.array([0, count]), np.array([count])
    generator = torch.Generator().manual_seed(0)
    noticed = 0
    for trial in range(20):
        size = (-(-count // shared) * width + 7) // 8
        data = torch.randint(256, (size,), generator=generator, dtype=torch.uint8)
        if trial % 4 == 0:
            data.fill_(255)
        if shared == 1:
            data[-1] &= (1 << count * width % 8) - 1
        row = torch.zeros(1, 10, dtype=torch.int32)
        row[0].view(torch.uint8)[:size] = data
        flags = torch.zeros(1, dtype=torch.int32)
        found = gpu.get_codes(row, 0, count, symbols, shared, width, symbols // 2, flags)[0]
        try:
            expected = get_codes_reference(data, nothing, bounds, used, symbols, shared, width, symbols // 2)
        except ValueError:
            assert flags[0] == 1
            noticed += 1
        else:
            assert flags[0] == 0
            assert same(found, expected)
    assert noticed
