"""Compressors by name, as on the command line: ``top-k:0.01+natural``."""

import warnings
from collections.abc import Iterator

from laconic._nearest import look_up
from laconic.compressors._base import Compressor
from laconic.compressors._block_quantizer import BlockQuantizer
from laconic.compressors._cast import Cast, Identity
from laconic.compressors._clipped import ClippedExponent
from laconic.compressors._dithering import (
    ExponentialDithering,
    NaturalDithering,
    RandomDithering,
    ScaledSign,
    Ternary,
)
from laconic.compressors._plugins import installed, load
from laconic.compressors._random_sparsifiers import AdaptiveRandom, RandK, RandomSparsification
from laconic.compressors._registry_entry import Entry, count_or_fraction, dtype_named
from laconic.compressors._rounding import BiasedRounding, NaturalCompression, UnbiasedRounding
from laconic.compressors._top_k import BlockTopK, TopK

NAMES: dict[str, Entry] = {
    "identity": Entry("identity", Identity),
    "top-k": Entry("top-k:K", TopK, (count_or_fraction,), 1),
    "block-top-k": Entry("block-top-k:K:BLOCK", BlockTopK, (count_or_fraction, int), 2),
    "rand-k": Entry("rand-k:K", RandK, (count_or_fraction,), 1),
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
    "cast": Entry("cast:bf16|fp16|fp32", Cast, (dtype_named,), 1),
}


def parse_compressor(text: str) -> Compressor:
    """The compressor that a name with arguments means; a ``+`` stands for ``>>``.

    Names are those of this package, and those of installed packages with entry points in the group
    ``laconic.compressors``.

    Raises:
        ValueError: for an unknown name (with the nearest one), arguments that do not fit it, or a
            compressor of another package that cannot be used.

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
            f"{text!r} chains {len(links)} compressors; a sparsifier and one quantizer can be chained"
        )
    try:
        return links[0] if len(links) == 1 else links[0] >> links[1]
    except TypeError as error:
        raise ValueError(str(error)) from error


def _parse_link(text: str) -> Compressor:
    name, *arguments = text.split(":")
    others = installed(frozenset(NAMES))
    point = look_up("compressor", name, {**dict.fromkeys(NAMES), **others})
    entry = NAMES[name] if point is None else load(point)
    if not entry.required <= len(arguments) <= len(entry.readers):
        raise ValueError(f"{text!r} has {len(arguments)} arguments; write {entry.usage}")
    read = []
    for reader, argument in zip(entry.readers, arguments, strict=False):
        try:
            read.append(reader(argument))
        except ValueError as error:
            raise ValueError(f"cannot read {argument!r} in {text!r}; write {entry.usage}") from error
    return entry.make(*read)


def installed_names() -> Iterator[tuple[str, Entry]]:
    """The compressors of other installed packages, by name; a broken one is left out with a warning."""
    for name, point in installed(frozenset(NAMES)).items():
        try:
            entry = load(point)
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
        else:
            yield name, entry
