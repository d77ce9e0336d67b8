"""The cases of the golden hashes: every compressor with every method, every kind of message, long runs."""

import math
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import torch
from golden import NODES, Case, given, hash_of

sys.path.extend([str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "feedback")])

from courses import ALL_PAIRS, KIND_PAIRS, ONLY_KINDS, D

import laconic as lc
from laconic.layout import Layout

# The pairs are contractive up to D; 16 and 9 are squares, for some constants take the root of d.
THREE = Layout.of({"weight": (D // 4, 4), "bias": (5,), "small": (9,)}, bfloat16=["bias"])
TWELVE = Layout.of(
    {
        "first.weight": (100, 100),
        "first.bias": (100,),
        "gain": (3,),
        "second.weight": (400, 500),
        "second.bias": (400,),
        "shift": (3,),
        "third.weight": (64, 64),
        "third.bias": (64,),
        "temperature": (1,),
        "fourth.weight": (31, 33),
        "fourth.bias": (31,),
        "fifth.weight": (129, 127),
    },
    exact=["shift", "temperature"],
    bfloat16=["first.bias", "second.bias", "fourth.bias"],
)
LONG = 5_000_000
ONE_LONG = Layout.flat(LONG)
MANY_LONG = Layout.of(
    {
        f"{name}{i}": shape
        for i in range(50)
        for name, shape in (("w", (48, 1039)), ("b", (256,)), ("v", (48, 1039)))
    },
    bfloat16=[f"b{i}" for i in range(50)],
)
LAYOUTS = {"3 segments": THREE, "12 segments": TWELVE}

BF16 = lc.TopK(0.01) >> lc.Cast(torch.bfloat16)
SIGNS = lc.TopK(0.01) >> lc.ScaledSign()
FOUR_BITS = lc.TopK(0.01) >> lc.BlockQuantizer(bits=4, block=256)

KINDS = [
    lc.EF21(lc.TopK(0.01)),
    lc.EF14(lc.TopK(0.01)),
    lc.EF21(lc.TopK(0.3), init="bfloat16"),
    lc.EF14(lc.TopK(3)),
    lc.DCGD(lc.TopK(0.05)),
    lc.EF21(BF16, init="bfloat16"),
    lc.EF14(BF16),
    lc.EF21(SIGNS, init="bfloat16"),
    lc.EF14(SIGNS),
    lc.EF21(FOUR_BITS, init="bfloat16"),
    lc.EF14(FOUR_BITS),
    lc.EF21(lc.TopK(0.02) >> lc.NaturalCompression(), init="compressed"),
    lc.EF14((lc.TopK(0.02) >> lc.RandomDithering(8, 2.0)).contractive()),
    lc.EF14(lc.TopK(0.02) >> lc.NaturalDithering(8, math.inf)),
    lc.EF21(lc.BlockTopK(2, block=256), init="bfloat16"),
    lc.EF14(lc.BlockTopK(0.05, block=100)),
    lc.EF14(lc.BlockTopK(2, block=64) >> lc.ClippedExponent(bits=3)),
    lc.EF21(lc.BlockTopK(0.02, block=512) >> lc.BlockQuantizer(bits=4, block=64), init="bfloat16"),
    lc.DCGD(lc.RandK(0.05)),
    lc.EF21(lc.RandK(0.05).contractive(), init="bfloat16"),
    lc.EF14(lc.RandK(0.05, shared=True, unbiased=False)),
    lc.EF14(lc.RandK(0.05, unbiased=False) >> lc.ScaledSign()),
    lc.EF14(lc.RandomSparsification(0.1)),
    lc.EF21(lc.RandomSparsification(0.1), init="zero"),
    lc.DCGD(lc.RandomSparsification(0.05) >> lc.NaturalCompression()),
    lc.EF21(lc.AdaptiveRandom(), init="bfloat16"),
    lc.DCGD(lc.NaturalCompression()),
    lc.EF14(lc.NaturalCompression()),
    lc.EF21(lc.BiasedRounding(2.0)),
    lc.EF14(lc.BiasedRounding(grid=(1, 1.25, 1.5, 1.75, 2))),
    lc.EF14(lc.UnbiasedRounding(2.0)),
    lc.EF14(lc.ClippedExponent(bits=3)),
    lc.EF21(lc.ClippedExponent(bits=2)),
    lc.DCGD(lc.RandomDithering(4, 2.0)),
    lc.EF21(lc.RandomDithering(16, math.inf).contractive()),
    lc.EF14(lc.ExponentialDithering(2.0, 8, math.inf).contractive()),
    lc.DCGD(lc.NaturalDithering(8, 1.0)),
    lc.DCGD(lc.Ternary()),
    lc.EF21(lc.Ternary().contractive()),
    lc.EF14(lc.ScaledSign()),
    lc.EF21(lc.ScaledSign(), init="compressed"),
    lc.EF14(lc.BlockQuantizer(bits=4)),
    lc.EF21(lc.BlockQuantizer(bits=8, block=100)),
    lc.EF21(lc.Cast(torch.bfloat16)),
    lc.EF14(lc.Cast(torch.float16)),
    lc.DCGD(lc.Identity()),
    lc.EF14(lc.Identity()),
    lc.EF21(lc.Identity(), init="bfloat16"),
    lc.EF21Plus(lc.TopK(0.02), init="bfloat16"),
    lc.EF21Plus(SIGNS, init="compressed"),
    lc.EF21Plus(lc.ScaledSign()),
    lc.EF21Plus(FOUR_BITS, init="zero"),
    lc.EF21SGDM(BF16, eta=0.25, init="bfloat16"),
    lc.EF21SGDM(lc.TopK(0.02), eta=0.25, init="zero"),
]
"""Every kind of message, and each method with some of them."""

DTYPES = [
    (torch.bfloat16, lc.EF21(BF16, init="bfloat16")),
    (torch.bfloat16, lc.EF14(lc.TopK(0.02))),
    (torch.bfloat16, lc.DCGD(lc.TopK(0.02))),
    (torch.float16, lc.EF14(SIGNS)),
    (torch.float64, lc.EF21(lc.TopK(0.02))),
    (torch.float64, lc.EF14(FOUR_BITS)),
]
LONG_RUNS = [
    lc.EF21(BF16, init="bfloat16"),
    lc.EF14(SIGNS),
    lc.EF14(FOUR_BITS),
    lc.EF14(lc.RandK(0.02, unbiased=False)),
    lc.EF21Plus(lc.TopK(0.02), init="bfloat16"),
    lc.EF21SGDM(lc.BlockTopK(2, block=256), eta=0.25, init="bfloat16"),
]


def _through_a_power_function(value) -> bool:
    """Whether a method or compressor takes a norm with p other than 1, 2 and infinity."""
    if not is_dataclass(value):
        return False
    if getattr(value, "p", 2.0) not in (1.0, 2.0, math.inf) and hasattr(value, "levels"):
        return True
    return any(_through_a_power_function(getattr(value, field.name)) for field in fields(value))


def said(value) -> str:
    """A method or compressor as text, without fields that have their defaults."""
    if hasattr(value, "then"):
        return f"{said(value.first)} >> {said(value.then)}"
    if hasattr(value, "inner"):
        scaling = "contractive()" if value.factor is None else f"scaled({value.factor})"
        return f"({said(value.inner)}).{scaling}"
    if is_dataclass(value):
        arguments = []
        for field in fields(value):
            argument = getattr(value, field.name)
            if field.default is MISSING:
                arguments.append(said(argument))
            elif argument != field.default:
                arguments.append(f"{field.name}={said(argument)}")
        return f"{type(value).__name__}({', '.join(arguments)})"
    return str(value).removeprefix("torch.")


def _all() -> Iterator[tuple[str, Case]]:
    for pair in [*ALL_PAIRS, *(pair for pair in KIND_PAIRS if pair.id.startswith(ONLY_KINDS))]:
        (method,) = pair.values
        if pair.id.startswith("econtrol"):  # no method of the library: the tests' own
            continue
        if not _through_a_power_function(method):
            yield f"3 segments: {said(method)}", Case(method, THREE, 4)
    for method in KINDS:
        yield f"12 segments: {said(method)}", Case(method, TWELVE, 6, threads=True)
    for dtype, method in DTYPES:
        yield f"12 segments, {said(dtype)}: {said(method)}", Case(method, TWELVE, 6, dtype, threads=True)
    for method in (lc.EF14(SIGNS), lc.EF14(lc.TopK(0.02))):
        case = Case(method, TWELVE, 6, stepsize=0.3, threads=True)
        yield f"12 segments, stepsize: {said(method)}", case
    for method in LONG_RUNS:
        case = Case(method, TWELVE, 50, decoded=False, threads=True, slow=True)
        yield f"12 segments, 50 rounds: {said(method)}", case
    for name, layout in (("one segment", ONE_LONG), ("150 segments", MANY_LONG)):
        for method in (lc.EF21(BF16, init="bfloat16"), lc.EF14(SIGNS)):
            case = Case(method, layout, 3, threads=True, slow=True)
            yield f"5,000,000 numbers in {name}: {said(method)}", case


def _by_name() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name, case in _all():
        # Some compressors of the table have the same contractive form.
        assert cases.setdefault(name, case) == case, f"two cases are called {name!r}"
    return cases


CASES = _by_name()


def gradients() -> dict[str, str]:
    """The hashes of the given gradients, which tell a change of what is put in from one of what comes out."""
    return {
        f"{name}, node {i}": " ".join(hash_of(given(layout, t, i)) for t in range(6))
        for name, layout in LAYOUTS.items()
        for i in range(NODES)
    }
