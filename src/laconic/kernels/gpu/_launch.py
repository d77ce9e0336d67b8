"""Launches of kernels, without fused multiply-add and on the device of their tensors."""
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
    if programs:
        run(kernel, programs, arguments, warps, constants)


def run(kernel, programs, arguments, warps, constants):
    """Run at least one program, on the device and the current stream of the first tensor."""
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, num_warps=warps, enable_fp_fusion=False, **constants)


def as_rows(x):
    """x, contiguous, as (rows, d)."""
    return x.detach().reshape(-1, x.shape[-1]).contiguous()


def power_of_two(number):
    """The smallest power of two that is at least ``number``."""
    return 1 << max(0, number - 1).bit_length()
