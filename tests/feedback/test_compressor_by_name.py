"""Feedback methods whose compressor is given by name."""

import pytest

import laconic

METHODS = [laconic.DCGD, laconic.EF14, laconic.EF21, laconic.EF21Plus, laconic.EF21SGDM]


@pytest.mark.parametrize("method", METHODS)
def test_a_name_stands_for_the_compressor(method):
    assert method("top-k:0.01") == method(laconic.TopK(0.01))
    with pytest.raises(ValueError, match=r"unknown compressor 'topk'; did you mean 'top-k'"):
        method("topk:1")
    with pytest.raises(TypeError, match=rf"{method.__name__} needs a compressor"):
        method(3)
