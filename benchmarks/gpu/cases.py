"""Calls of every kernel for GPUs, on inputs of one size."""

import numpy as np
import torch

from laconic.formats.grids import BlockLevels, Signs, UniformLevels, level_table, signed_table
from laconic.kernels import Levels, Purpose, Stream, gpu
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.position_plan import position_plan
from laconic.kernels.received import Received
from laconic.kernels.tables import SegmentTable, Vectors


def same_bits(a, b):
    """Whether two tensors of one shape and dtype hold the same bits."""
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def cases(device, d):
    """Pairs of a name and a function that gives tensors, made anew at each call."""
    generator = torch.Generator().manual_seed(d)
    x = torch.randn(d, generator=generator).to(device)
    h = torch.randn(d, generator=generator).to(device)
    short, ties = x.to(torch.bfloat16), (3 * x).round()
    cut = d // 3
    numels = np.array([cut, d - cut])
    kept = numels // 100
    table = SegmentTable((0, cut), tuple(numels.tolist()), tuple(kept.tolist()), (0, 1))
    vectors = [Vectors.flat(each, table.start_array) for each in (x, h)]
    long = SelectionTable.of(table.starts, table.numels, kept)
    blocks = SelectionTable.of([0], [d], [10], block=1000, last=min(10, d % 1000))
    positions, values = gpu.top_k_segments(x, h, long)
    rows = np.array([[1, 0, 1, 1, 0.999, 0.001, 0.1, 1e-8, 1e-3]] * 2, np.float32)
    plan = position_plan(numels, kept)
    nodes = [Received(each, positions) for each in (values, 2 * values)]
    draw, levels = Stream(7), Levels(level_table(UniformLevels(7), torch.float32, device))
    signs = gpu.sign_segments(Vectors.flat(values, table.bounds[:-1]), None, kept)
    signed, codes = signed_table(Signs(), torch.float32, device), gpu.quantize_blocks(values, 7, 64)

    def received():
        memory, before = h.clone(), torch.zeros(2 * table.columns, device=device)
        out = torch.empty(d, dtype=torch.bfloat16, device=device)
        own, other = (Vectors.flat(each, table.start_array) for each in (memory, out))
        gpu.add_nodes(own, nodes, [0.5, 0.5], table, None, None, other, before, True, torch.float32)
        gpu.undo_nodes(own, nodes, table, before)
        return memory, out, before

    def of_signs():
        out = torch.empty(d, device=device)
        node = [Received(signs, positions, torch.ones(2, device=device))]
        gpu.add_nodes(
            None,
            node,
            [0.5],
            table,
            signed,
            None,
            Vectors.flat(out, table.start_array),
            None,
            True,
            torch.float32,
        )
        return (out,)

    def stepped():
        out, after, moved = (torch.empty_like(x) for _ in range(3))
        own = [Vectors.flat(each, table.start_array) for each in (out, after, moved)]
        gpu.adamw_update(own[0], vectors[0], vectors[1], vectors[1], rows, numels)
        gpu.adamw_advance(vectors[1], vectors[1], vectors[0], rows, numels, own[1])
        gpu.add_segments(own[2], *vectors, numels)
        gpu.apply_steps(own[2], own[0], rows[:, :2].copy(), numels)
        return out, after, moved

    def travelled():
        words = torch.zeros((plan.nbytes + 8 * table.columns) // 4 + 9, dtype=torch.int32, device=device)
        gpu.put_positions(words, 32, positions, plan)
        gpu.put_numbers(words, 32 + plan.nbytes, values)
        gpu.put_codes(words, 32 + plan.nbytes + 4 * table.columns, signs, 2, 1, 1)
        flags = torch.zeros(1, dtype=torch.int32, device=device)
        places = gpu.get_positions(words[None], 32, plan, flags)
        found = gpu.get_numbers(words[None], 32 + plan.nbytes, table.columns, torch.float32, flags)
        back = gpu.get_codes(
            words[None], 32 + plan.nbytes + 4 * table.columns, table.columns, 2, 1, 1, 1, flags
        )
        return words, places, found, back, flags

    yield "top_k_segments of x - h", lambda: gpu.top_k_segments(x, h, long)
    yield "top_k_segments, bfloat16", lambda: gpu.top_k_segments(short, None, long)
    yield "top_k_segments with ties", lambda: gpu.top_k_segments(ties, None, long)
    yield "top_k_segments of blocks", lambda: gpu.top_k_segments(x, h, blocks)
    yield "norm 2", lambda: (gpu.norm(x, 2),)
    yield "segment_sums", lambda: (gpu.segment_sums(*vectors, numels, "means"),)
    yield "canonical_sum", lambda: (gpu.canonical_sum(x),)
    yield "cast_segments", lambda: gpu.cast_segments(*vectors, numels, torch.bfloat16)
    yield "sign_segments", lambda: (gpu.sign_segments(*vectors, numels),)
    yield (
        "round_to_levels, random",
        lambda: (gpu.round_to_levels(x, levels, draw, scale=torch.ones(1, device=device)),),
    )
    yield "round_to_signs", lambda: (gpu.round_to_signs(x),)
    yield "quantize_blocks", lambda: gpu.quantize_blocks(x, 7, 64)
    yield (
        "dequantize_blocks",
        lambda: (
            gpu.dequantize_blocks(
                codes[0], level_table(BlockLevels(4), torch.float32, device), codes[2], codes[1], 64
            ),
        ),
    )
    yield "words", lambda: (gpu.words(draw, d, Purpose.ROUNDING, device),)
    yield "pack_codes", lambda: (gpu.pack_codes(codes[0], 0, 16, 1, 4),)
    yield "add_nodes, undo_nodes", received
    yield "add_nodes of signs", of_signs
    yield "optimiser arithmetic", stepped
    yield "put and get of a frame", travelled
