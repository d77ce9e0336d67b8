"""Optimiser arithmetic: compiled loops equal the definitions bit for bit, wherever the segments lie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels import (
    adamw_advance,
    adamw_update,
    apply_steps,
    kernel_counts,
    momentum_update,
    scale_segments,
    set_threads,
)
from laconic.kernels._dispatch import force_reference
from laconic.kernels.tables import Vectors

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def numbers(numels, dtype, seed, positive=False):
    """A tensor for each segment, of magnitudes that span many powers of two, some 0, infinite or NaN."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for numel in numels:
        x = torch.randn(numel, generator=generator, dtype=torch.float64)
        x *= 2.0 ** torch.randint(-30, 12, (numel,), generator=generator)
        x[torch.rand(numel, generator=generator) < 0.05] = 0.0
        x[torch.rand(numel, generator=generator) < 0.01] = torch.inf
        x[torch.rand(numel, generator=generator) < 0.01] = torch.nan
        found.append((x.abs() if positive else x).to(dtype))
    return found


def same(a, b):
    return all(
        torch.equal(x.view(torch.uint8), y.view(torch.uint8))
        or (torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num()))
        for x, y in zip(a, b, strict=True)
    )


def both(function, written, *read):
    """What the loops and the definition write, each into copies of the same tensors."""
    results = []
    for reference in (False, True):
        own = [[t.clone() for t in tensors] for tensors in written]
        vectors = [Vectors.of(tensors) for tensors in own]
        if reference:
            with force_reference():
                function(*vectors, *map(Vectors.of, read))
        else:
            before = kernel_counts().get("cpu:optimizer", 0)
            function(*vectors, *map(Vectors.of, read))
            assert kernel_counts()["cpu:optimizer"] == before + 1
        results.append(own)
    return results


cases = given(
    numels=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
)


def rows_of(numels, seed, beta1):
    """Settings that differ by segment; every other one without a first moment."""
    generator = np.random.default_rng(seed)
    rows = []
    for s in range(len(numels)):
        own = beta1 * (s % 2 == 0)
        factor, beta2, eps, rate = generator.random(4)
        rows.append((factor, own, 1 - own, 1 - own**3, beta2, 1 - beta2, 1 - beta2**3, eps * 1e-3, rate))
    return np.array(rows)


@cases
@settings(max_examples=60, deadline=None)
def test_adamw(numels, dtype, seed, beta1):
    rows, lengths = rows_of(numels, seed, beta1), np.array(numels)
    gradients = numbers(numels, dtype, seed)
    first, second = (
        numbers(numels, wide(dtype), seed + 1),
        numbers(numels, wide(dtype), seed + 2, positive=True),
    )
    out = [torch.empty(n, dtype=wide(dtype)) for n in numels]
    found, expected = both(
        lambda out, g, m, v: adamw_update(out, g, m, v, rows, lengths), [out], gradients, first, second
    )
    assert same(found[0], expected[0])
    found, expected = both(lambda m, v, g: adamw_advance(m, v, g, rows, lengths), [first, second], gradients)
    assert same(found[0], expected[0])
    assert same(found[1], expected[1])


@cases
@settings(max_examples=40, deadline=None)
def test_momentum_scaling_and_steps(numels, dtype, seed, beta1):
    rows, lengths = rows_of(numels, seed, beta1), np.array(numels)
    gradients, buffer = numbers(numels, dtype, seed), numbers(numels, wide(dtype), seed + 1)
    out = [torch.empty(n, dtype=wide(dtype)) for n in numels]
    found, expected = both(
        lambda out, g, m: momentum_update(out, g, m, rows[:, :3], lengths), [out], gradients, buffer
    )
    assert same(found[0], expected[0])
    found, expected = both(lambda out, g: scale_segments(out, g, rows[:, :2], lengths), [out], gradients)
    assert same(found[0], expected[0])
    parameters = numbers(numels, torch.bfloat16 if dtype == torch.float16 else dtype, seed + 2)
    found, expected = both(lambda p, s: apply_steps(p, s, rows[:, :2], lengths), [parameters], buffer)
    assert same(found[0], expected[0])


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads(threads):
    numels = [100_000, 7, 150_001]
    rows, lengths = rows_of(numels, 5, 0.5), np.array(numels)
    tensors = [numbers(numels, torch.float32, seed, positive=seed == 3) for seed in (1, 2, 3)]
    out = [torch.empty(n) for n in numels]
    set_threads(threads)
    found, expected = both(lambda *v: adamw_update(*v, rows, lengths), [out], *tensors)
    assert same(found[0], expected[0])


def test_an_update_is_adamws():
    """Written down once more, of one number."""
    g, m, v, t = 0.5, 0.25, 0.125, 3
    rows = np.array([[2.0, 0.5, 0.5, 1 - 0.5**t, 0.75, 0.25, 1 - 0.75**t, 0.0, 0.125]])
    vectors = [Vectors.of([torch.tensor([x], dtype=torch.float64)]) for x in (0.0, g, m, v)]
    adamw_update(*vectors, rows, np.array([1]))
    mean = (m * 0.5 + 2 * g * 0.5) / (1 - 0.5**t)
    square = (v * 0.75 + (2 * g) ** 2 * 0.25) / (1 - 0.75**t)
    assert vectors[0].array[0] == pytest.approx(mean / square**0.5 * 0.125, rel=1e-14)
