"""Every compressor of the library, in settings that differ in kind."""

import math

import pytest
import torch

import laconic as lc


def _param(compressor):
    return pytest.param(compressor, id=repr(compressor).replace("torch.", ""))


_COMPRESSORS = [
    lc.Identity(),
    lc.TopK(1),
    lc.TopK(2),
    lc.TopK(0.3),
    lc.RandK(2),
    lc.RandK(0.5, shared=True),
    lc.RandK(1, unbiased=False),
    lc.RandomSparsification(0.3),
    lc.AdaptiveRandom(),
    lc.UnbiasedRounding(2.0),
    lc.UnbiasedRounding(1.1),
    lc.UnbiasedRounding(grid=(1, 1.5, 2)),
    lc.BiasedRounding(2.0),
    lc.BiasedRounding(10.0),
    lc.BiasedRounding(grid=(1, 1.25, 1.5, 1.75, 2)),
    lc.NaturalCompression(),
    lc.Cast(torch.bfloat16),
    lc.Cast(torch.float16),
    lc.Cast(torch.float32),
    lc.ExponentialDithering(2.0, 4, math.inf),
    lc.ExponentialDithering(3.0, 3, 1.0),
    lc.ExponentialDithering(1.5, 5, 3.0),
    lc.NaturalDithering(8, 2.0),
    lc.RandomDithering(4, 2.0),
    lc.RandomDithering(1, 1.0),
    lc.Ternary(),
    lc.ScaledSign(),
    lc.TopK(2) >> lc.NaturalCompression(),
    lc.TopK(0.3) >> lc.NaturalDithering(3),
    lc.TopK(2) >> lc.BiasedRounding(2.0),
    lc.TopK(2) >> lc.ScaledSign(),
    lc.TopK(2) >> lc.Cast(torch.bfloat16),
    lc.RandK(2) >> lc.NaturalCompression(),
    lc.RandomSparsification(0.5) >> lc.NaturalCompression(),
    lc.AdaptiveRandom() >> lc.BiasedRounding(2.0),
    lc.NaturalCompression().contractive(),
    lc.Ternary().contractive(),
    (lc.RandK(2) >> lc.NaturalCompression()).contractive(),
    lc.TopK(2).scaled(0.5),
    lc.BlockTopK(1, block=4),
    lc.BlockTopK(0.3, block=7),
    lc.BlockQuantizer(bits=2, block=4),
    lc.BlockQuantizer(bits=8),
    lc.ClippedExponent(bits=2),
    lc.ClippedExponent(bits=3),
    lc.TopK(0.3) >> lc.BlockQuantizer(bits=4),
    lc.BlockTopK(2, block=8) >> lc.ClippedExponent(bits=4),
]

ALL_COMPRESSORS = [_param(compressor) for compressor in _COMPRESSORS]
"""One ``pytest.param`` for each; all of them take vectors of length 2 and more."""

CONTRACTIVE_COMPRESSORS = [_param(c) for c in _COMPRESSORS if c.constants(10).delta is not None]
"""Those with a B3 class at d = 10."""


def range_of(compressor):
    """The magnitudes on which its constants hold: all, or the normal range of a cast's dtype."""
    cast = getattr(compressor, "then", compressor)
    if not isinstance(cast, lc.Cast):
        return None
    info = torch.finfo(cast.dtype)
    return (info.smallest_normal, info.max)
