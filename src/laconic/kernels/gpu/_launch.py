"""How every kernel is launched: without fused multiply-add, on the device of its tensors."""
# mypy: ignore-errors
# Triton's decorators are not typed.

import torch

LARGEST_TILE = 4096
"""Numbers that a program holds at once."""

MAGNITUDE_BITS = {torch.float64: 63, torch.float32: 31, torch.float16: 15, torch.bfloat16: 15}
"""Bits of a number without its sign."""


def launch(kernel, programs, *arguments, warps=4, **constants):
    """Run ``programs`` programs of a kernel.

    Args:
        kernel: decorated with ``triton.jit``.
        programs: how many; none is fine.
        arguments: tensors and integers; the first is a tensor.
        warps: warps of 32 threads a program.
        constants: what is known when the kernel is compiled.
    """
    if programs == 0:
        return
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=False, **constants)


def as_rows(x, memory=None):
    """x as (rows, d), and memory alike or x in its place where there is none.

    Raises:
        TypeError: where memory is not float32 or float64, or narrower than x.
        ValueError: where the shapes differ or the memory is not contiguous.
    """
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    if memory is None:
        return rows, rows
    if memory.shape != x.shape or not memory.is_contiguous():
        raise ValueError(f"memory must be contiguous and of shape {tuple(x.shape)}, as the target")
    if memory.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"memory must be float32 or float64, got {memory.dtype}")
    if torch.promote_types(x.dtype, memory.dtype) != memory.dtype:
        raise TypeError(f"a {x.dtype} target does not fit a {memory.dtype} memory; widen the memory")
    return rows, memory.detach().view(-1, x.shape[-1])


def wide(dtype):
    """The dtype that numbers of ``dtype`` are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def power_of_two(number):
    """The smallest power of two that is at least ``number``."""
    return 1 << max(0, number - 1).bit_length()
