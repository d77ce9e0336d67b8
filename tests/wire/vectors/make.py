"""Writes the stored messages that are missing: ``python tests/wire/vectors/make.py``.

Those that exist are never written again: a change of their bytes is a new version of the format, with a
folder of its own.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

import laconic as lc
from laconic.kernels import Stream

VECTORS = Path(__file__).parent / "v2"


def vector(d, dtype=torch.float32):
    """d numbers that every machine computes alike, of unlike magnitudes and both signs."""
    i = torch.arange(1, d + 1, dtype=torch.int64)
    word = (i * 2654435761) % 2**32
    numbers = (word.to(torch.float64) - 2.0**31) / 2.0**31
    return (numbers**3 * 2.0 ** (i % 7 - 3)).to(dtype)


def build():
    """(name, message, options of pack) for each file."""
    x = vector(40)
    draw = Stream(seed=-5, round=3, node=2, segment=0)
    layout = lc.Layout.of({"encoder.weight": (5, 6), "norm.bias": (4,), "größe": (6,)}, exact=["norm.bias"])
    unlike = lc.Layout.of(
        {"a": (30,), "b": (1,), "c": (7,), "d": (64,), "e": (9,)}, exact=["b"], bfloat16=["c"]
    )
    sparse = lc.Layout.of({"a": (5000,), "b": (2,), "c": (3000,)})
    long = lc.Layout.of({"a": (70,), "b": (2,), "c": (60,)})

    def one(compressor, vector=x):
        return replace(compressor.encode(vector, draw), round=3)

    def several(compressor, layout=unlike, dtype=torch.float32):
        sender = lc.DCGD(compressor).sender(layout, node=2, seed=-5, dtype=dtype)
        return sender.send(vector(layout.d, dtype))

    plus = lc.EF21Plus(lc.TopK(0.2), init="compressed").sender(layout, node=1, seed=9)
    return [
        ("dense-float32", one(lc.Identity(), vector(5)), {}),
        ("dense-float64", one(lc.Identity(), vector(5, torch.float64)), {}),
        ("dense-bfloat16", one(lc.Cast(torch.bfloat16), vector(5)), {}),
        ("dense-float16", one(lc.Cast(torch.float16), vector(5)), {}),
        ("top-k-elias-fano", one(lc.TopK(4), vector(400)), {}),
        ("top-k-bitmap", one(lc.TopK(20)), {}),
        ("top-k-all", one(lc.TopK(5), vector(5)), {}),
        ("top-k-adaptive", one(lc.TopK(70), vector(4000) * (torch.arange(4000) < 500)), {"adaptive": True}),
        ("top-k-adaptive-declined", one(lc.TopK(1), vector(64)), {"adaptive": True}),
        ("block-top-k-cells", one(lc.BlockTopK(2, block=16)), {}),
        ("rand-k-seed", one(lc.RandK(0.5), vector(200)), {}),
        ("rand-k-listed", one(lc.RandK(3)), {}),
        ("random-sparsification", one(lc.RandomSparsification(0.3)), {}),
        ("natural", one(lc.NaturalCompression()), {}),
        ("natural-float64", one(lc.NaturalCompression(), vector(6, torch.float64)), {}),
        ("rounding-quarters", one(lc.BiasedRounding(grid=(1, 1.25, 1.5, 1.75, 2))), {}),
        ("clipped-exponent", one(lc.ClippedExponent(2)), {}),
        ("exponential-dithering", one(lc.ExponentialDithering(3.0, 4)), {}),
        ("random-dithering", one(lc.RandomDithering(8)), {}),
        ("five-symbols", one(lc.RandomDithering(2, float("inf"))), {}),
        ("ternary", one(lc.Ternary()), {}),
        ("signs", one(lc.ScaledSign()), {}),
        ("four-bits", one(lc.BlockQuantizer(4, block=16)), {}),
        ("three-bits-on-top-k", one(lc.TopK(10) >> lc.BlockQuantizer(3, block=8), vector(1000)), {}),
        ("scaled", one((lc.RandK(8) >> lc.Ternary()).contractive()), {}),
        ("segments-top-k", several(lc.TopK(0.2)), {}),
        ("segments-adaptive", several(lc.TopK(0.02), sparse), {"adaptive": True}),
        ("segments-adaptive-declined", several(lc.TopK(0.4), long), {"adaptive": True}),
        ("segments-cells", several(lc.BlockTopK(2, block=8)), {}),
        ("segments-seed", several(lc.RandK(0.6), long), {}),
        ("segments-counted", several(lc.RandomSparsification(0.3) >> lc.Ternary()), {}),
        ("segments-bases", several(lc.ClippedExponent(2)), {}),
        ("segments-signs", several(lc.ScaledSign()), {}),
        ("segments-blocks", several(lc.BlockQuantizer(3, block=8), long, torch.float64), {}),
        ("segments-named", lc.EF21(lc.TopK(0.2)).sender(layout).send(x), {"layout": layout}),
        ("segments-choosing", [plus.send(x), plus.send(x * 2)][1], {"layout": layout}),
        ("silent", lc.EF21(lc.TopK(0.2), init="zero").sender(layout).send(x), {}),
    ]


def record(name, message, data):
    """What a file says: the bytes, sixteen a line, and what they mean."""
    text = data.hex()
    values = {}
    for group in message.groups:
        row, bounds = group.decode(), group.format.table.bounds.tolist()
        values |= {place: row[bounds[s] : bounds[s + 1]] for s, place in enumerate(group.format.places)}
    parts = []
    for place, part in enumerate(message.parts):
        used = part.k if part.count is None else int(part.count)
        parts.append(
            {
                "d": part.d,
                "positions": None if part.positions is None else part.positions[:used].tolist(),
                "values": [float(number).hex() for number in values[place][:used]],
            }
        )
    return {
        "name": name,
        "bytes": [text[i : i + 32] for i in range(0, len(text), 32)],
        "round": message.round,
        "digest": message.digest,
        "replaces": None if message.replaces is None else message.replaces.tolist(),
        "parts": parts,
    }


def main():
    """Write every file that does not exist."""
    for name, message, options in build():
        path = VECTORS / f"{name}.json"
        if not path.exists():
            data = lc.pack(message, **options).numpy().tobytes()
            path.write_text(json.dumps(record(name, message, data), indent=1) + "\n")


if __name__ == "__main__":
    main()
