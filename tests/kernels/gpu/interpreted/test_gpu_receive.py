"""Addition of nodes' columns on the device, and its undoing, against the plain form, bit for bit."""

import numpy as np
import pytest
import torch
from same import numbers, same

from laconic.formats.grids import BlockLevels, Signs, UniformLevels, signed_table
from laconic.kernels import gpu
from laconic.kernels.received import Received
from laconic.kernels.reference.receive import add_nodes_reference
from laconic.kernels.tables import SegmentTable, Vectors

SPARSE = SegmentTable((0, 40, 1100), (40, 1060, 100), (7, 1050, 100), (0, 1, 2))
DENSE = SegmentTable((5, 50), (40, 1060), (40, 1060), (0, 1))


def flat(vector, table):
    return Vectors(vector, table.start_array, vector.dtype, (vector,))


def node_of(table, seed, wide, form, sparse):
    generator = torch.Generator().manual_seed(seed)
    positions = None
    if sparse:
        both = zip(table.numels, table.kept, strict=True)
        positions = torch.cat([torch.randperm(d, generator=generator)[:k].sort().values for d, k in both])
    k = table.columns
    if form in (torch.float32, torch.bfloat16, torch.float64):
        return Received(numbers((k,), form, seed, edges=False), positions), None, None
    grid, block = {
        "signs": (Signs(), None),
        "blocks": (BlockLevels(4), 64),
        "levels": (UniformLevels(7), None),
    }[form]
    levels = signed_table(grid, wide, torch.device("cpu"))
    top = len(levels) // 2
    codes = torch.randint(1, top + 1, (k,), generator=generator) * (
        1 - 2 * torch.randint(2, (k,), generator=generator)
    )
    scale = numbers((int(table.blocks(block)[-1]),), wide, seed + 1, edges=False).abs()
    low = scale.flip(0).contiguous() if form == "blocks" else None
    factors = np.array([0.3, *[1.7] * (len(table.numels) - 1)]) if form == "levels" else None
    return Received(codes.to(torch.int8), positions, scale, low, None, factors), levels, block


FORMS = [torch.float32, torch.bfloat16, "signs", "blocks", "levels"]


@pytest.mark.parametrize("way", ["commit", "stage", "no memory", "narrow", "memory alone"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_every_way(form, sparse, way):
    table, wide = (SPARSE if sparse else DENSE), torch.float32
    made = [node_of(table, seed, wide, form, sparse) for seed in (1, 5)]
    nodes, levels, block = [node for node, _, _ in made], made[0][1], made[0][2]
    weights, commit = [0.5, 1 / 3], way in ("commit", "narrow", "memory alone")
    ends = []
    for add in (gpu.add_nodes, add_nodes_reference):
        memory = None if way == "no memory" else numbers((1200,), wide, 9, edges=False)
        out = (
            None
            if way == "memory alone"
            else torch.zeros(1200, dtype=torch.bfloat16 if way == "narrow" else wide)
        )
        before = torch.zeros(table.columns * (2 if sparse else 1)) if commit else None
        add(
            None if memory is None else flat(memory, table), nodes, weights, table, levels, block,
            None if out is None else flat(out, table), before, commit, wide,
        )  # fmt: skip
        ends.append([each for each in (memory, out, before) if each is not None])
    assert all(same(a, b) for a, b in zip(*ends, strict=True))
    if commit:
        gpu.undo_nodes(flat(ends[0][0], table), nodes, table, ends[0][-1])
        assert same(ends[0][0], numbers((1200,), wide, 9, edges=False))


def test_float64_and_counts():
    table = SPARSE
    nodes = [node_of(table, seed, torch.float64, torch.float64, True)[0] for seed in (1, 5)]
    nodes[1] = nodes[1]._replace(counts=np.array([3, 1000, 0]))
    ends = []
    for add in (gpu.add_nodes, add_nodes_reference):
        memory = numbers((1200,), torch.float64, 9, edges=False)
        add(flat(memory, table), nodes, [0.5, 0.5], table, None, None, None, None, True, torch.float64)
        ends.append(memory)
    assert same(*ends)


def test_what_does_not_fit_adds_nothing():
    table = SegmentTable((0,), (4,), (3,), (0,))
    memory, levels = torch.zeros(8), torch.tensor([-1.0, 0.0, 1.0])
    node = Received(torch.tensor([1, 5, 1], dtype=torch.int8), torch.tensor([-1, 0, 5]))
    gpu.add_nodes(flat(memory, table), [node], [1.0], table, levels, None, None, None, True, torch.float32)
    assert not memory.any()
