"""Counter-based draws: published vectors, an independent scalar form, permutations, distributions."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from laconic.kernels import SHARED, Purpose, Stream
from laconic.kernels.reference.philox import philox4x32, uniform_reference, words_reference

MASK = 0xFFFFFFFF

# Random123, kat_vectors: philox4x32, 10 rounds.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((MASK,) * 4, (MASK,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def scalar_philox(counter, key):
    """The same function on Python's integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def scalar_key(seed, purpose, step=0):
    return scalar_philox((int(purpose), step, 0, 0), (seed & MASK, (seed >> 32) & MASK))[:2]


def scalar_words(seed, round_, node, segment, count, purpose):
    k0, k1 = scalar_key(seed, purpose)
    blocks = (scalar_philox((j, segment, node, round_), (k0, k1)) for j in range((count + 3) // 4))
    return list(itertools.chain.from_iterable(blocks))[:count]


def scalar_image(position, d, seed, round_, node, segment):
    """One image of the keyed permutation: twenty Feistel steps, again while the image is no position."""
    rows = math.isqrt(d - 1) + 1
    columns = -(-d // rows)
    while True:
        left, right = divmod(position, columns)
        for step in range(20):
            half, side = (right, rows) if step % 2 == 0 else (left, columns)
            high, low, _, _ = scalar_philox(
                (half, segment, node, round_), scalar_key(seed, Purpose.PERMUTATION, step)
            )
            added = ((high >> 1) << 31) | (low >> 1)
            if step % 2 == 0:
                left = (left + added) % side
            else:
                right = (right + added) % side
        position = left * columns + right
        if position < d:
            return position


def tensors(numbers):
    return tuple(torch.tensor(v, dtype=torch.int64) for v in numbers)


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_published_vectors(counter, key, words):
    found = philox4x32(tensors(counter), tensors(key))
    assert " ".join(f"{int(w):08x}" for w in found) == words
    assert " ".join(f"{w:08x}" for w in scalar_philox(counter, key)) == words


word = st.integers(0, MASK)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_philox_equals_the_scalar_form(counter, key):
    assert tuple(map(int, philox4x32(tensors(counter), tensors(key)))) == scalar_philox(counter, key)


@given(st.integers(-(2**63), 2**64 - 1), word, word, word, st.integers(1, 9), st.sampled_from(list(Purpose)))
def test_words_equal_the_scalar_form(seed, round_, node, segment, count, purpose):
    found = Stream(seed, round_, node, segment).words(count, purpose)
    assert found.tolist() == scalar_words(seed % 2**64, round_, node, segment, count, purpose)


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(0, 2**64 - 1), word, word, word)
def test_permuted_equals_the_scalar_form(d, seed, round_, node, segment):
    found = Stream(seed, round_, node, segment).permuted(d, min(d, 3)).tolist()
    assert found == [scalar_image(i, d, seed, round_, node, segment) for i in range(min(d, 3))]


def test_words_of_a_place_are_these():
    """A literal, so that no release changes the draws of another."""
    assert Stream(seed=2026, round=7, node=3, segment=1).words(5, Purpose.ROUNDING).tolist() == [
        4019103053,
        747665483,
        1314636823,
        4240982863,
        3256443263,
    ]
    assert Stream(seed=2026, round=7, node=3, segment=1).permuted(20, 6).tolist() == [3, 13, 5, 11, 6, 2]


def test_negative_seeds_are_taken_modulo_two_to_the_64():
    assert torch.equal(Stream(-1).words(9, Purpose.COIN), Stream(2**64 - 1).words(9, Purpose.COIN))


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_batch_draws_what_each_would_draw_alone(purpose):
    seeds = torch.tensor([[5], [2**40], [-3]])
    nodes = torch.tensor([0, 7, 9, 2**32 - 1])
    batch = Stream(seed=seeds, round=4, node=nodes, segment=2)
    uniform, coin, images = batch.uniform(11, purpose), batch.coin(purpose), batch.permuted(30, 7)
    assert uniform.shape == (3, 4, 11)
    assert coin.shape == (3, 4)
    assert images.shape == (3, 4, 7)
    for i, j in itertools.product(range(3), range(4)):
        one = Stream(seed=int(seeds[i]), round=4, node=int(nodes[j]), segment=2)
        assert torch.equal(uniform[i, j], one.uniform(11, purpose))
        assert torch.equal(coin[i, j], one.coin(purpose))
        assert torch.equal(images[i, j], one.permuted(30, 7))


def test_a_longer_draw_continues_a_shorter_one():
    stream = Stream(seed=1)
    assert torch.equal(stream.words(100, Purpose.ROUNDING)[:7], stream.words(7, Purpose.ROUNDING))
    assert torch.equal(stream.permuted(1000, 50)[:7], stream.permuted(1000, 7))


def test_every_part_of_a_place_counts():
    places = [
        Stream(1),
        Stream(2),
        Stream(1 + 2**32),
        Stream(1, round=1),
        Stream(1, node=1),
        Stream(1, segment=1),
    ]
    drawn = {tuple(place.words(4, purpose).tolist()) for place in places for purpose in Purpose}
    assert len(drawn) == len(places) * len(Purpose)
    images = {tuple(place.permuted(1000, 8).tolist()) for place in places}
    assert len(images) == len(places)


def test_shared_and_at():
    stream = Stream(seed=1, round=2, node=torch.arange(3), segment=4)
    assert stream.shared() == Stream(seed=1, round=2, node=SHARED, segment=4)
    assert torch.equal(stream.shared().words(3, Purpose.COIN), Stream(1, 2, SHARED, 4).words(3, Purpose.COIN))
    assert stream.at(6).segment == 6
    assert torch.equal(
        stream.at(6).words(3, Purpose.COIN), Stream(1, 2, torch.arange(3), 6).words(3, Purpose.COIN)
    )


def test_uniform_numbers_are_multiples_of_two_to_the_minus_32():
    stream = Stream(seed=3)
    u = stream.uniform(10_000, Purpose.ROUNDING)
    assert u.dtype == torch.float64
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    assert torch.equal((u * 2**32).to(torch.int64), stream.words(10_000, Purpose.ROUNDING))


def test_a_coin_has_53_bits():
    words = Stream(seed=3, node=torch.arange(500)).words(2, Purpose.COIN)
    coin = Stream(seed=3, node=torch.arange(500)).coin(Purpose.COIN)
    for (high, low), value in zip(words.tolist(), coin.tolist(), strict=True):
        assert value == ((high << 32 | low) >> 11) / 2**53
    assert len(set(coin.tolist())) == 500


def test_uniform_and_coin_are_uniform():
    for numbers in (
        Stream(seed=8).uniform(100_000, Purpose.ROUNDING),
        Stream(seed=torch.arange(20_000)).coin(Purpose.SELECTION),
        Stream(seed=8, node=torch.arange(20_000)).uniform(1, Purpose.SELECTION)[:, 0],
    ):
        assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-4
        assert stats.chisquare(torch.histc(numbers, 64, 0, 1).numpy()).pvalue > 1e-4


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(d, seed):
    assert sorted(Stream(seed=seed).permuted(d, d).tolist()) == list(range(d))


def test_permuted_stays_in_range_where_d_is_huge():
    for d in (2**31 - 1, 2**31, 10**9 + 7):
        images = Stream(seed=1).permuted(d, 2000)
        assert len(set(images.tolist())) == 2000
        assert int(images.min()) >= 0
        assert int(images.max()) < d
        # Spread over all of [0, d).
        assert stats.kstest(images.double().numpy() / d, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6])
def test_all_permutations_are_equally_likely(d):
    """Chi-squared on whole permutations: 120 draws for each of d! outcomes, at least 5000."""
    k = d if d <= 5 else 3
    outcomes = list(itertools.permutations(range(d), k))
    n = max(5000, 120 * len(outcomes))
    images = Stream(seed=torch.arange(n)).permuted(d, k)
    weights = d ** torch.arange(k)
    codes, counts = (images * weights).sum(-1).unique(return_counts=True)
    assert len(codes) == len(outcomes)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("d", "k"), [(5, 2), (7, 3), (10, 1)])
def test_all_subsets_are_equally_likely(d, k):
    subsets = list(itertools.combinations(range(d), k))
    n = 20_000
    images = Stream(seed=4, node=torch.arange(n)).permuted(d, k).sort(dim=-1).values
    _, counts = (images * d ** torch.arange(k)).sum(-1).unique(return_counts=True)
    assert len(counts) == len(subsets)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("count", [1024, 1025, 4095, 4099, 100_003])
def test_compiled_words_equal_the_plain_ones(count):
    for stream in (
        Stream(-(2**63), round=MASK, node=MASK, segment=MASK),
        Stream(2026, 7, 3, 1),
        Stream(torch.tensor([[5], [-3]]), 4, torch.tensor([0, MASK, 9]), 2),
        Stream(torch.tensor([5, 2**62]), 4, 1, 2),
    ):
        for purpose in (Purpose.ROUNDING, Purpose.COIN):
            assert torch.equal(stream.words(count, purpose), words_reference(stream.origin(), count, purpose))
        uniform = stream.uniform(count, Purpose.ROUNDING)
        assert uniform.dtype == torch.float64
        assert torch.equal(uniform, uniform_reference(stream.origin(), count, Purpose.ROUNDING))


def test_compiled_words_equal_the_scalar_form():
    found = Stream(2**64 - 7, 5, 6, 8).words(1500, Purpose.ROUNDING)
    assert found.tolist() == scalar_words(2**64 - 7, 5, 6, 8, 1500, Purpose.ROUNDING)


def test_sources_are_keys_and_places():
    one = Stream(seed=-5, round=2, node=3, segment=4)
    many = Stream(seed=torch.tensor([-5, -5]), round=2, node=3, segment=4)
    alone, batch = one.sources(Purpose.COIN, torch.Size()), many.sources(Purpose.COIN, torch.Size([2]))
    assert alone.shape == (1, 23)
    assert batch.tolist() == alone.tolist() * 2
    assert alone[0, :2].tolist() == list(scalar_key(-5, Purpose.COIN))
    assert alone[0, 20:].tolist() == [4, 3, 2]
