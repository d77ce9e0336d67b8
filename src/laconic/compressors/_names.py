"""Compressors by name, as on the command line: ``top-k:0.01+natural``."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from laconic._nearest import look_up
from laconic.compressors._base import Compressor
from laconic.compressors._block_quantizer import BlockQuantizer
from laconic.compressors._block_top_k import BlockTopK
from laconic.compressors._clipped import ClippedExponent
from laconic.compressors._dithering import (
    ExponentialDithering,
    NaturalDithering,
    RandomDithering,
    ScaledSign,
    Ternary,
)
from laconic.compressors._rounding import BiasedRounding, Cast, NaturalCompression, UnbiasedRounding
from laconic.compressors._sparsify import AdaptiveRandom, Identity, RandK, RandomSparsification, TopK

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _count_or_fraction(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _dtype(text: str) -> torch.dtype:
    return look_up("dtype", text, _DTYPES)


@dataclass(frozen=True)
class Entry:
    """One name: how it is written, what the arguments are read with, what it makes.

    Args:
        usage: the name with its arguments.
        make: the compressor from the arguments that were read.
        readers: one for each argument, in order; those without a given argument fall to defaults.
        required: how many arguments must be given.
    """

    usage: str
    make: Callable[..., Compressor]
    readers: tuple[Callable[[str], object], ...] = ()
    required: int = 0


NAMES: dict[str, Entry] = {
    "identity": Entry("identity", Identity),
    "top-k": Entry("top-k:K", TopK, (_count_or_fraction,), 1),
    "block-top-k": Entry("block-top-k:K:BLOCK", BlockTopK, (_count_or_fraction, int), 2),
    "rand-k": Entry("rand-k:K", RandK, (_count_or_fraction,), 1),
    "random-sparsification": Entry("random-sparsification:P", RandomSparsification, (float,), 1),
    "adaptive-random": Entry("adaptive-random", AdaptiveRandom),
    "unbiased-rounding": Entry("unbiased-rounding[:BASE]", UnbiasedRounding, (float,)),
    "biased-rounding": Entry("biased-rounding[:BASE]", BiasedRounding, (float,)),
    "block-quantizer": Entry("block-quantizer:BITS[:BLOCK]", BlockQuantizer, (int, int), 1),
    "clipped-exponent": Entry("clipped-exponent:BITS", ClippedExponent, (int,), 1),
    "natural": Entry("natural", NaturalCompression),
    "exponential-dithering": Entry(
        "exponential-dithering[:BASE[:LEVELS[:P]]]", ExponentialDithering, (float, int, float)
    ),
    "natural-dithering": Entry("natural-dithering[:LEVELS[:P]]", NaturalDithering, (int, float)),
    "random-dithering": Entry("random-dithering[:LEVELS[:P]]", RandomDithering, (int, float)),
    "ternary": Entry("ternary", Ternary),
    "sign": Entry("sign", ScaledSign),
    "cast": Entry("cast:bf16|fp16|fp32", Cast, (_dtype,), 1),
}


def parse_compressor(text: str) -> Compressor:
    """The compressor that a name with arguments means; a ``+`` stands for ``>>``.

    Raises:
        ValueError: for an unknown name (with the nearest one), or arguments that do not fit it.

    Example:
        >>> parse_compressor("top-k:0.01+natural")
        Chain(first=TopK(k=0.01), then=NaturalCompression())
        >>> parse_compressor("topk:5")
        Traceback (most recent call last):
        ValueError: unknown compressor 'topk'; did you mean 'top-k'?
    """
    links = [_parse_link(link.strip()) for link in text.split("+")]
    if len(links) > 2:
        raise ValueError(
            f"{text!r} chains {len(links)} compressors; a sparsifier and one quantiser can be chained"
        )
    try:
        return links[0] if len(links) == 1 else links[0] >> links[1]
    except TypeError as error:
        raise ValueError(str(error)) from error


def _parse_link(text: str) -> Compressor:
    name, *arguments = text.split(":")
    entry = look_up("compressor", name, NAMES)
    if not entry.required <= len(arguments) <= len(entry.readers):
        raise ValueError(f"{text!r} has {len(arguments)} arguments; write {entry.usage}")
    read = []
    for reader, argument in zip(entry.readers, arguments, strict=False):
        try:
            read.append(reader(argument))
        except ValueError as error:
            raise ValueError(f"cannot read {argument!r} in {text!r}; write {entry.usage}") from error
    return entry.make(*read)
