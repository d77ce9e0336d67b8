"""The checker: it passes every compressor of the library and refuses every wrong one."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from wrong import WRONG, declares
from zoo import ALL_COMPRESSORS, range_of

import laconic
from laconic import Compressor, Constants, RandK, TopK
from laconic.compressors._base import unbiased
from laconic.kernels import Purpose
from laconic.messages import Message, Part, accumulation_dtype
from laconic.testing import CompressorError, check_compressor


@pytest.mark.parametrize("compressor", ALL_COMPRESSORS)
def test_every_compressor_keeps_its_promises(compressor):
    report = check_compressor(compressor, draws=1024, within=range_of(compressor))
    assert report.worst
    assert report.vectors > 300


@pytest.mark.parametrize(("compressor", "promise"), WRONG, ids=lambda value: repr(value)[:50])
def test_a_wrong_compressor_is_refused_by_the_promise_it_breaks(compressor, promise):
    with pytest.raises(CompressorError, match=promise) as refusal:
        check_compressor(compressor)
    assert len(str(refusal.value).splitlines()) <= 3


@dataclass(frozen=True)
class Coin(Compressor):
    """A user's compressor: each number stays with probability p, divided by p."""

    p: float

    random = True

    def encode(self, x, draw):
        x = x.to(accumulation_dtype(x.dtype))
        kept = draw.uniform(x.shape[-1], Purpose.SELECTION) < self.p
        return Message((Part(d=x.shape[-1], values=torch.where(kept, x / self.p, 0), dtype=x.dtype),))

    def constants(self, d):
        return unbiased(1.0 / self.p)


def test_a_users_compressor_of_twenty_lines_passes():
    report = check_compressor(Coin(0.5))
    worst = {w.promise: w.ratio for w in report.worst}
    assert worst["U (second moment)"] == pytest.approx(1.0, abs=0.2)
    text = str(report)
    assert "Coin(p=0.5) keeps its promises" in text
    assert "U (second moment)" in text


def test_a_rarely_kept_coordinate_is_no_false_alarm():
    check_compressor(Coin(0.01), dtypes=(torch.float32,))


def test_a_compressor_that_declares_nothing_passes_with_nothing_to_report():
    assert check_compressor(declares()).worst == ()


def test_the_report_names_what_was_skipped():
    report = check_compressor(TopK(3), dtypes=(torch.float64,))
    assert report.skipped == (1, 2)
    assert report.dims == (3, 10, 64)
    assert report.dtypes == ("float64",)
    assert "not 1, 2: refused" in str(report)
    assert report == check_compressor(TopK(3), dtypes=(torch.float64,))


def test_no_usable_length_is_an_error():
    with pytest.raises(ValueError, match="refuses vectors of every length"):
        check_compressor(TopK(100), dims=(1, 2))


def test_only_compressors_are_checked():
    with pytest.raises(TypeError, match=r"takes a laconic\.Compressor"):
        check_compressor(lambda x: x)


def test_global_random_states_are_left_as_they_were():
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_compressor(RandK(1), dims=(2,), dtypes=(torch.float32,), draws=64)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_a_range_is_respected():
    cast = laconic.Cast(torch.float16)
    with pytest.raises(CompressorError, match="B"):
        check_compressor(cast)
    check_compressor(cast, within=(2.0**-14, 65504.0))


@pytest.mark.parametrize("key", ["alpha", "beta", "gamma", "delta", "zeta"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_constants_must_be_positive_numbers(key, value):
    with pytest.raises(CompressorError, match="not positive and finite"):
        check_compressor(declares(**{key: value}))


@pytest.mark.parametrize("part", ["alpha", "beta", "gamma", "delta"])
def test_a_constant_of_top_k_that_is_a_percent_too_good_is_refused(part):
    @dataclass(frozen=True)
    class Better(Compressor):
        def encode(self, x, draw):
            return TopK(1).encode(x, draw)

        def constants(self, d):
            true = TopK(1).constants(d)
            better = getattr(true, part) * (1.01 if part in ("alpha", "gamma") else 0.99)
            return Constants(
                alpha=better if part == "alpha" else None,
                beta=better if part == "beta" else true.beta,
                gamma=better if part == "gamma" else None,
                delta=better if part == "delta" else None,
            )

    with pytest.raises(CompressorError, match=r"B1|B2|B3"):
        check_compressor(Better(), dims=(2, 3, 10))
