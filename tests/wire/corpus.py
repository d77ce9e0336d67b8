"""One message of every kind, as bytes."""

import math
from dataclasses import dataclass
from functools import cache

import torch

import laconic as lc
from laconic.formats import MessageFormat

D = 260

COMPRESSORS = [
    lc.Identity(),
    lc.Cast(torch.bfloat16),
    lc.Cast(torch.float16),
    lc.TopK(0.05),
    lc.TopK(0.4),
    lc.TopK(D),
    lc.BlockTopK(3, block=16),
    lc.RandK(0.1),
    lc.RandK(0.5, shared=True),
    lc.RandK(2),
    lc.RandomSparsification(0.3),
    lc.AdaptiveRandom(),
    lc.NaturalCompression(),
    lc.UnbiasedRounding(grid=(1, 1.5, 2)),
    lc.ClippedExponent(3),
    lc.NaturalDithering(8),
    lc.ExponentialDithering(3.0, 3),
    lc.RandomDithering(2, math.inf),
    lc.Ternary(),
    lc.ScaledSign(),
    lc.BlockQuantizer(4, block=64),
    lc.TopK(0.1) >> lc.BlockQuantizer(3, block=10),
    lc.BlockTopK(0.1, block=100) >> lc.ClippedExponent(2),
    lc.RandomSparsification(0.5) >> lc.Ternary(),
    lc.RandomSparsification(0.5) >> lc.NaturalCompression(),
    (lc.RandK(0.2) >> lc.Ternary()).contractive(),
]

SEGMENTS = (1, 2, 3, 64, 65, 5, 1, 130, 7, 40, 100, 31)
"""Lengths of the twelve segments of messages of many; the eighth and ninth travel whole."""


@dataclass(frozen=True)
class Sample:
    """A message, its bytes, and what has to be known to read them."""

    name: str
    message: lc.Message
    packed: bytes
    expect: MessageFormat | None


def layout():
    """Three segments, of which one travels whole."""
    return lc.Layout.of({"weight": (10, 13), "bias": (5,), "head": (125,)}, exact=["bias"])


def twelve():
    """Twelve segments of unlike lengths, of which one travels whole and one in bfloat16."""
    shapes = {f"s{i}": (length,) for i, length in enumerate(SEGMENTS)}
    return lc.Layout.of(shapes, exact=["s7"], bfloat16=["s8"])


def messages():
    """(name, message): of every compressor, several segments, and rounds that are silent or dense."""
    x = torch.randn(D, generator=torch.Generator().manual_seed(1))
    for compressor in COMPRESSORS:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            generator = torch.Generator().manual_seed(2)
            yield f"{compressor!r} {dtype}", compressor.compress(x.to(dtype), generator)
    y = torch.randn(sum(SEGMENTS), generator=torch.Generator().manual_seed(3))
    for compressor in COMPRESSORS:
        if getattr(compressor, "k", None) in (2, 3, D):  # more than the shortest segments have
            continue
        yield f"{compressor!r} 12 segments", lc.DCGD(compressor).sender(twelve(), node=1, seed=5).send(y)
    for init in ("gradient", "zero", "compressed"):
        for method in (lc.EF21, lc.EF21Plus):
            sender = method(lc.TopK(0.2), init=init).sender(layout(), node=3, seed=7)
            for round in range(3):
                yield f"{method.__name__} {init} round {round}", sender.send(x * (round + 1))


@cache
def corpus():
    """Every message in every form."""
    samples = []
    for name, message in messages():
        known = message.format
        for adaptive, expect in ((False, None), (True, None), (False, known), (True, known.adapted())):
            packed = lc.pack(message, expect=expect, adaptive=adaptive).numpy().tobytes()
            samples.append(Sample(f"{name} {adaptive} {expect is None}", message, packed, expect))
        if message.digest:
            named = layout() if message.d == D else twelve()
            packed = lc.pack(message, layout=named).numpy().tobytes()
            samples.append(Sample(f"{name} named", message, packed, None))
    return tuple(samples)
