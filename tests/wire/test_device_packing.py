"""Packing on a device equals packing in main memory; tensors in main memory stand in for the device's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo import ALL_COMPRESSORS

import laconic
from laconic.kernels import device_packing, packing
from laconic.sizes import symbol_bits
from laconic.wire import _pack, _values


def agree(function, numbers, *arguments):
    """Both pack alike, or both refuse."""
    results = []
    for module, given_ in ((device_packing, torch.from_numpy(numbers)), (packing, numbers)):
        try:
            results.append(np.asarray(getattr(module, function)(given_, *arguments)))
        except ValueError as error:
            results.append(str(error))
    assert type(results[0]) is type(results[1])
    assert np.array_equal(*results), (function, results)


@given(st.lists(st.integers(-3, 300), max_size=60, unique=True), st.sampled_from([1, 70, 300]), st.data())
def test_positions(numbers, d, data):
    positions = np.array(sorted(numbers) if data.draw(st.booleans()) else numbers, np.int64)
    agree("put_bitmap", positions, d)
    agree("put_elias_fano", positions, d, data.draw(st.integers(0, 8)))
    agree("put_cells", positions, d, data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5)))


@given(st.lists(st.integers(-9, 9), max_size=40), st.integers(2, 19), st.integers(0, 3))
def test_codes(codes, symbols, base):
    for kind in (np.int8, np.int16, np.int32):
        agree("put_codes", np.array(codes, kind), base, symbols, *symbol_bits(symbols))


def test_more_numbers_than_are_spread_out_at_a_time(monkeypatch):
    monkeypatch.setattr(device_packing, "_CHUNK", 16)
    numbers = np.random.default_rng(0).integers(0, 1 << 11, 123)
    agree("put_bits", numbers, 11)


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS, ids=repr)
def test_a_message_packed_on_its_device_has_the_same_bytes(compressor, monkeypatch):
    message = compressor.compress(torch.linspace(-3, 4, 75), torch.Generator().manual_seed(1))
    expected = laconic.pack(message)
    for module in (_values, _pack):
        monkeypatch.setattr(module, "packed_in_place", lambda tensor: True)
    assert torch.equal(laconic.pack(message), expected)
