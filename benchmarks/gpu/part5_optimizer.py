"""Part 5: ``CompressedAdamW.step`` against ``torch.optim.AdamW(fused=True)``, one rank without a link."""

import torch
from part3_times import clock
from torch import nn

import laconic

TARGET = 3.0


def main(settings):
    """A row for each size."""
    device = settings.device(stand_in=False)
    repeats = settings.choose(15, 7, 2)
    for dim in settings.choose((10_000_000, 125_000_000), (10_000_000, 125_000_000), (20_000,)):
        dense = torch.optim.AdamW(parameters_of(dim, device), lr=1e-4, fused=True)
        least = best(dense, repeats, device)
        settings.report(optimizer="AdamW, fused", d=dim, ms=1e3 * least, times_fused=1.0)
        for name, fraction in (("CompressedAdamW, 1 %", 0.01), ("CompressedAdamW, 0.1 %", 0.001)):
            feedback = laconic.EF14(laconic.TopK(fraction) >> laconic.ScaledSign())
            optimizer = laconic.optim.CompressedAdamW(parameters_of(dim, device), lr=1e-4, feedback=feedback)
            seconds = best(optimizer, repeats, device)
            row = {"optimizer": name, "d": dim, "ms": 1e3 * seconds, "times_fused": seconds / least}
            if dim == 125_000_000:
                row["target_met"] = seconds / least <= TARGET
            settings.report(**row)
            optimizer.close()
            del optimizer
        del dense


def parameters_of(dim, device, tensors=150):
    """About ``dim`` numbers in matrices, and a third as many vectors of 256, with gradients."""
    vectors = tensors // 3
    rows = max(1, (dim - 256 * vectors) // (tensors - vectors) // 1000)
    generator = torch.Generator(device).manual_seed(0)
    found = []
    for i in range(tensors):
        shape = (256,) if i % 3 == 0 else (rows, 1000)
        parameter = nn.Parameter(torch.randn(shape, device=device, generator=generator))
        parameter.grad = torch.randn(shape, device=device, generator=generator)
        found.append(parameter)
    return found


def best(optimizer, repeats, device):
    """The median time of a step in seconds, after two that do not count."""
    found = []
    for _ in range(2 + repeats):
        began = clock(device)
        optimizer.step()
        found.append(clock(device) - began)
    return sorted(found[2:])[repeats // 2]
