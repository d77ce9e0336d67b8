"""CRC-32 on the device against zlib's."""

import zlib

import pytest
import torch

from laconic.kernels import gpu
from laconic.kernels.reference.checksum import checksum_before


@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000, 128 * 130])
def test_rows(length):
    generator = torch.Generator().manual_seed(length)
    rows = torch.randint(-(2**31), 2**31, (2, length // 4 + 12), generator=generator, dtype=torch.int32)
    found = gpu.crc32_rows(rows, 32, length)
    for row, state in zip(rows, found.tolist(), strict=True):
        data = bytes(row.view(torch.uint8)[32 : 32 + length].tolist())
        assert state ^ checksum_before(b"head", length) == zlib.crc32(b"head" + data)


def test_more_chunks_than_one_program_joins(monkeypatch):
    checksum = __import__("laconic.kernels.gpu.checksum", fromlist=["checksum"])
    monkeypatch.setattr(checksum, "_CHUNK", 4)
    rows = torch.arange(1100, dtype=torch.int32).view(1, -1) * 77777
    data = bytes(rows.view(torch.uint8)[0, :4397].tolist())
    assert int(gpu.crc32_rows(rows, 0, 4397)) ^ checksum_before(b"", 4397) == zlib.crc32(data)
