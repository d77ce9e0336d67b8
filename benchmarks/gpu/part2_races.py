"""Part 2: every kernel many times on the same input; the bits must be the same every time."""

import torch
from cases import cases, same_bits


def main(settings):
    """One row a kernel."""
    device = settings.device()
    d = settings.choose(3_000_000, 3_000_000, 3000)
    times = settings.choose(200, 200, 2)
    for name, call in cases(device, d):
        first = [each.clone() for each in call()]
        unequal = 0
        for _ in range(times - 1):
            unequal += any(not same_bits(a, b) for a, b in zip(first, call(), strict=True))
        settings.report(kernel=name, runs=times, unequal=unequal, ok=unequal == 0)
    if device.type == "cuda":
        torch.cuda.synchronize()
