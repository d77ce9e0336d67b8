"""Every kernel goes to the GPU's form where a tensor lies on one; a stand-in takes the place of both."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from laconic import kernels
from laconic.kernels import (
    Levels,
    Purpose,
    SegmentedInput,
    SelectionTable,
    Stream,
    _dispatch,
    group_codes,
)
from laconic.kernels.receive import Received, add_nodes
from laconic.kernels.segments import copy_segments
from laconic.kernels.tables import SegmentTable, Vectors

X = torch.tensor([3.0, -1.0, 0.5, 2.0])
PLACES, NUMBERS = [torch.tensor([1, 3])], [torch.tensor([1.0, 2.0])]
LEVELS = Levels(torch.tensor([0.0, 1.0, 2.0, 4.0]))
CODES = torch.tensor([1, -2], dtype=torch.int32)
TABLE = SegmentTable((0,), (4,), (4,), (0,))
VECTORS = Vectors.flat(X.clone(), TABLE.start_array)
INPUTS = SegmentedInput.of(VECTORS, TABLE)
SEGMENT = np.array([0]), np.array([0, 2]), np.array([2])  # base, bounds, used

CALLS = {
    "top_k_positions": lambda: kernels.top_k_positions(X, 2),
    "top_k_segments": lambda: kernels.top_k_segments(X.to("meta"), None, SelectionTable.of([0], [4], 2)),
    "round_to_levels": lambda: kernels.round_to_levels(X, LEVELS),
    "round_to_signs": lambda: kernels.round_to_signs(X),
    "largest_magnitude": lambda: kernels.largest_magnitude(X),
    "words": lambda: Stream(seed=1).words(8, Purpose.COIN),
    "canonical_sum": lambda: kernels.canonical_sum(X),
    "squared_norm": lambda: kernels.squared_norm(X),
    "norm": lambda: kernels.norm(X, math.inf),
    "mean_magnitude": lambda: kernels.mean_magnitude(X),
    "scatter_add_": lambda: kernels.scatter_add_(X.clone(), PLACES[0][None], NUMBERS[0][None]),
    "quantize_blocks": lambda: kernels.quantize_blocks(X, 3, 2),
    "dequantize_blocks": lambda: kernels.dequantize_blocks(CODES, LEVELS.table, X[:1], X[:1], 2),
    "segment_sums": lambda: kernels.squared_norms(INPUTS),
    "sign_segments": lambda: kernels.sign_segments(INPUTS),
    "add_segments": lambda: kernels.add_segments(VECTORS, VECTORS, VECTORS, TABLE.numel_array),
    "copy_segments": lambda: copy_segments(VECTORS, VECTORS, TABLE.numel_array),
    "adamw_update": lambda: kernels.adamw_update(*[VECTORS] * 4, np.ones((1, 9)), TABLE.numel_array),
    "adamw_advance": lambda: kernels.adamw_advance(*[VECTORS] * 3, np.ones((1, 9)), TABLE.numel_array),
    "momentum_update": lambda: kernels.momentum_update(*[VECTORS] * 3, np.ones((1, 3)), TABLE.numel_array),
    "scale_segments": lambda: kernels.scale_segments(*[VECTORS] * 2, np.ones((1, 2)), TABLE.numel_array),
    "apply_steps": lambda: kernels.apply_steps(*[VECTORS] * 2, np.ones((1, 2)), TABLE.numel_array),
    "add_nodes": lambda: add_nodes(VECTORS, [Received(X)], [1.0], TABLE),
    "pack_codes": lambda: group_codes._put_on_device(CODES, *SEGMENT, 5, 1, 3),
}


@pytest.mark.parametrize("name", CALLS)
def test_kernels_go_where_the_tensors_are(name, monkeypatch):
    asked = []

    def found(*arguments, **options):
        asked.append((arguments, options))
        return "the GPU's"

    monkeypatch.setattr(_dispatch, "on_gpu", lambda tensor: SimpleNamespace(**{name: found}))
    before = kernels.kernel_counts()
    result = CALLS[name]()
    assert len(asked) == 1
    counted = {key for key, count in kernels.kernel_counts().items() if count > before.get(key, 0)}
    assert len(counted) == 1
    assert counted.pop().startswith("gpu:")
    in_place = "scatter", "add_", "copy_", "adamw", "momentum", "scale", "apply"
    assert result == (None if name.startswith(in_place) else "the GPU's")


def test_main_memory_is_no_gpu():
    assert _dispatch.on_gpu(X) is None


def test_inside_force_reference_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(_dispatch, "cpu_kernels", lambda name: pytest.fail("asked for loops"))
    long = torch.arange(10_000.0)
    with _dispatch.force_reference():
        assert float(kernels.canonical_sum(long)) == 49_995_000
        assert kernels.top_k_positions(long, 2).tolist() == [9998, 9999]


def test_what_a_kernel_raises_of_its_arguments_is_raised():
    def wrong(loops):
        torch.zeros(2) + torch.zeros(3)

    with pytest.raises(RuntimeError, match="size of tensor"):
        _dispatch.dispatch("scatter", wrong, lambda: pytest.fail("the plain form ran"))
    assert _dispatch.cpu_kernels("scatter") is not None
