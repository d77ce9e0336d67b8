"""Compiles kernels ahead of time, with no GPU, as the functions of ``laconic.kernels.gpu`` call them.

``python aot.py TARGET FOLDER`` writes each kernel's PTX and a list of them as JSON. The functions run with a
launcher that only notes what it is asked to launch.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from laconic.kernels import Purpose, Stream, gpu
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.levels import Levels
from laconic.kernels.position_plan import position_plan
from laconic.kernels.received import Received
from laconic.kernels.tables import SegmentTable, Vectors

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32)}
MODULES = (
    *("selection", "_short", "philox", "rounding", "sums", "scatter", "blocks", "codes", "segments"),
    *("segment_sums", "optimizer", "receive", "wire_put", "wire_get", "checksum"),
)
POINTERS = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
}
POWERS = Levels(torch.tensor([0.0, *(2.0**j for j in range(-149, 128))]), window=255)
WIDE_POWERS = Levels(
    torch.tensor([0.0, *(2.0**j for j in range(-1074, 1024))], dtype=torch.float64), window=1023
)
TABLE = Levels(torch.linspace(0, 1, 8))


def calls():
    """Every function, in the dtypes and forms that a training run uses."""
    x = torch.linspace(-1, 1, 12000)
    memory, short, double = x.flip(0).contiguous(), x.bfloat16(), x.double()
    long, blocks = SelectionTable.of([0], [12000], [120]), SelectionTable.of([0], [12000], [3], block=100)
    for target, kept in ((x, None), (short, memory), (double, None)):
        if target is not double:  # only reads and compares other bits
            gpu.top_k_segments(target, kept, long)
        gpu.top_k_segments(target, kept, blocks)
        gpu.norm(target, 2)
        gpu.quantize_blocks(target, 7, 64)
    draw, scale = Stream(7), torch.ones(1)
    gpu.words(draw, 100, Purpose.ROUNDING, "cpu")
    gpu.round_to_levels(x, POWERS)
    gpu.round_to_levels(short, POWERS, draw)
    gpu.round_to_levels(double, WIDE_POWERS, draw)
    gpu.round_to_levels(short, TABLE, draw, scale=scale)
    gpu.round_to_levels(x, TABLE)
    gpu.round_to_signs(short)
    gpu.canonical_sum(x)
    gpu.mean_magnitude(x)
    positions, values = torch.arange(20).view(2, 10), torch.ones(2, 10)
    gpu.scatter_add_(x, positions, values)
    levels, number = torch.linspace(0, 1, 9), torch.ones(1)
    gpu.dequantize_blocks(torch.ones(100, dtype=torch.int8), levels, number, number, 1024)
    for dtype in (torch.int8, torch.int16, torch.int32):
        gpu.pack_codes(torch.ones(100, dtype=dtype), 0, 16, 1, 4)
    gpu.pack_codes(torch.ones(100, dtype=torch.int8), 0, 3, 5, 8)


def segment_calls():
    """The same of the functions that work on segments and frames."""
    numels, starts = np.array([600, 500]), np.array([0, 600])

    def vectors(dtype):
        made = torch.linspace(-1, 1, 1100).to(dtype)
        return Vectors(made, starts, dtype, (made,))

    wide, short, double = map(vectors, (torch.float32, torch.bfloat16, torch.float64))
    for target, memory, out in (
        (wide, wide, torch.bfloat16),
        (short, wide, torch.bfloat16),
        (double, None, torch.float32),
    ):
        gpu.cast_segments(target, memory, numels, out)
        gpu.sign_segments(target, memory, numels)
        gpu.segment_sums(target, memory, numels, "means")
    gpu.segment_sums(wide, None, numels, "squares")
    gpu.add_segments(wide, wide, short, numels)
    gpu.copy_segments(short, wide, numels)
    gpu.copy_segments(wide, wide, numels)
    rows = np.array([[1, 0.9, 0.1, 1, 0.999, 0.001, 0.1, 1e-8, 1e-3]] * 2, np.float32)
    plain = rows.copy()
    plain[:, 1] = 0
    for gradient in (wide, short):
        gpu.adamw_update(wide, gradient, wide, wide, rows, numels)
        gpu.adamw_advance(wide, wide, gradient, rows, numels, wide)
        gpu.adamw_both(wide, gradient, wide, wide, plain, numels)
        gpu.apply_steps(gradient, wide, rows[:, :2].copy(), numels)
    gpu.adamw_update(double, double, double, double, rows.astype(np.float64), numels)
    gpu.momentum_update(wide, wide, wide, rows[:, :3].copy(), numels)
    gpu.scale_segments(wide, wide, rows[:, :2].copy(), numels)
    table = SegmentTable((0, 600), (600, 500), (10, 8), (0, 1))
    positions = torch.cat((torch.arange(10), torch.arange(8)))
    before = torch.zeros(36)
    for values, levels, scale, low, block in (
        (torch.ones(18), None, None, None, None),
        (torch.ones(18, dtype=torch.bfloat16), None, None, None, None),
        (torch.ones(18, dtype=torch.int8), torch.ones(3), torch.ones(2), None, None),
        (torch.ones(18, dtype=torch.int8), torch.ones(15), torch.ones(4), torch.ones(4), 5),
    ):
        nodes = [Received(values, positions, scale, low)] * 2
        own = Vectors(wide.array, table.start_array, torch.float32, wide.owners)
        gpu.add_nodes(own, nodes, [0.5, 0.5], table, levels, block, None, before, True, torch.float32)
        gpu.undo_nodes(own, nodes, table, before)
    gpu.add_nodes(None, nodes, [0.5, 0.5], table, levels, block, own, None, True, torch.float32)
    plan, words, flags = (
        position_plan([600, 500], [10, 8]),
        torch.zeros(200, dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
    )
    gpu.put_positions(words, 32, positions, plan)
    gpu.get_positions(words[None], 32, plan, flags)
    gpu.crc32_rows(words[None], 32, 300)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        gpu.put_numbers(words, 32, torch.ones(18, dtype=dtype))
        gpu.get_numbers(words[None], 32, 18, dtype, flags)
    for symbols, shared, width in ((2, 1, 1), (16, 1, 4), (3, 5, 8)):
        gpu.put_codes(words, 32, torch.ones(18, dtype=torch.int8), symbols, shared, width)
        gpu.get_codes(words[None], 32, 18, symbols, shared, width, symbols // 2, flags)


def recorded():
    """Each different launch: name, kernel, the types of its arguments, constants, warps."""
    found = {}

    def note(kernel, programs, *arguments, warps=4, **constants):
        names = kernel.arg_names
        types = {
            name: POINTERS[argument.dtype] if isinstance(argument, torch.Tensor) else "i32"
            for name, argument in zip(names, arguments, strict=False)
        }
        types |= dict.fromkeys(constants, "constexpr")
        types = {name: types[name] for name in names}
        module = kernel.fn.__module__.rpartition(".")[2].strip("_")
        key = (module, kernel.fn.__name__.strip("_"), *types.values(), *constants.items())
        found[key] = (kernel, types, constants, warps)

    for module in MODULES:
        importlib.import_module(f"laconic.kernels.gpu.{module}").launch = note
    calls()
    segment_calls()
    return [(f"{key[0]}.{key[1]}", *job) for key, job in found.items()]


def compiled(kernel, types, constants, warps, target, fusion=False):
    """The compiled kernel; ptxas, which Triton brings, has accepted it."""
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind[0] == "*"}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": fusion}
    return triton.compile(source, target=target, options=options)


def contracting(x, y, z, out, N: tl.constexpr):
    """A kernel that fuses, divides roughly and flushes, if it is let: what the check must notice."""
    i = tl.arange(0, N)
    a, b, c = tl.load(x + i), tl.load(y + i), tl.load(z + i)
    tl.store(out + i, tl.ceil(tl.exp((a * b + c) / c)))


def main(target, folder):
    """Writes all PTX and the list of it."""
    listed = []
    jobs = recorded()
    kinds = dict.fromkeys(("x", "y", "z", "out"), "*fp32") | {"N": "constexpr"}
    jobs.append(("contracting", triton.jit(contracting), kinds, {"N": 128}, 4))
    for number, (name, kernel, types, constants, warps) in enumerate(jobs):
        # What differs from another variant by its reading alone is compiled for one target.
        if target != "sm_80" and not constants.get("DIFFERENCE", True):
            continue
        path = Path(folder) / f"{number}.ptx"
        made = compiled(kernel, types, constants, warps, TARGETS[target], fusion=name == "contracting")
        path.write_text(made.asm["ptx"])
        listed.append((name, path.name))
    (Path(folder) / "kernels.json").write_text(json.dumps(listed))


if __name__ == "__main__":
    main(*sys.argv[1:])
