"""Compiles kernels ahead of time, with no GPU, as the functions of ``laconic.kernels.gpu`` call them.

``python aot.py TARGET FOLDER`` writes each kernel's PTX and a list of them as JSON. The functions run with a
launcher that only notes what it is asked to launch.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from laconic.kernels import Purpose, Stream, gpu
from laconic.kernels._selection_table import SelectionTable
from laconic.kernels.levels import Levels

TARGETS = {"sm_80": GPUTarget("cuda", 80, 32), "sm_90": GPUTarget("cuda", 90, 32)}
MODULES = ("selection", "_short", "philox", "rounding", "sums", "scatter", "blocks", "codes")
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
    return [(f"{key[0]}.{key[1]}", *job) for key, job in found.items()]


def ptx(kernel, types, constants, warps, target, fusion=False):
    """The compiled kernel's PTX; ptxas, which Triton brings, has accepted it."""
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind[0] == "*"}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": fusion}
    return triton.compile(source, target=target, options=options).asm["ptx"]


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
        path.write_text(ptx(kernel, types, constants, warps, TARGETS[target], fusion=name == "contracting"))
        listed.append((name, path.name))
    (Path(folder) / "kernels.json").write_text(json.dumps(listed))


if __name__ == "__main__":
    main(*sys.argv[1:])
