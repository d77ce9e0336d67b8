"""Laws of the exchange on random layouts: neither buckets nor void steps nor resumes change a bit."""

from functools import partial

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from states import segments_of

import laconic
from laconic.comm import Exchange

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
METHODS = (
    laconic.DCGD(laconic.RandomSparsification(0.3)),
    laconic.EF14(laconic.TopK(0.3) >> laconic.ScaledSign()),
    laconic.EF21(laconic.TopK(0.2)),
    laconic.EF21Plus(laconic.TopK(1)),
    laconic.EF21SGDM(laconic.TopK(0.2), eta=0.5),
)


@st.composite
def cases(draw):
    numels = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    rules = [draw(st.sampled_from(["compress", "exact", "bfloat16"])) for _ in numels]
    names = [f"s{i}" for i in range(len(numels))]
    layout = laconic.Layout.of(
        {name: (d,) for name, d in zip(names, numels, strict=True)},
        exact=[n for n, rule in zip(names, rules, strict=True) if rule == "exact"],
        bfloat16=[n for n, rule in zip(names, rules, strict=True) if rule == "bfloat16"],
    )
    dtypes = dict.fromkeys(names, draw(st.sampled_from(DTYPES)))
    buckets = [draw(bucketings(names)) for _ in range(5)]
    void = [draw(st.none() | st.tuples(st.sampled_from(names), st.integers(0, 39))) for _ in range(4)]
    resumed = [False, *(draw(st.booleans()) for _ in range(3))]
    return layout, draw(st.sampled_from(METHODS)), dtypes, buckets, void, resumed


@st.composite
def bucketings(draw, names):
    order = draw(st.permutations(names))
    cuts = sorted(draw(st.sets(st.integers(1, len(names)))))
    return [list(order[a:b]) for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True)]


def gradients(layout, dtypes, step):
    generator = torch.Generator().manual_seed(step)
    return {s.name: torch.randn(s.numel, generator=generator).to(dtypes[s.name]) for s in layout.segments}


def bits(state):
    return {
        (segment, end, key): value.tolist() if isinstance(value, torch.Tensor) else value
        for segment, ends in segments_of(state).items()
        for end, holder in ends.items()
        for key, value in holder.items()
    }


@settings(max_examples=20, deadline=None)
@given(cases())
def test_buckets_void_steps_and_resumes_change_no_bit(case):
    layout, method, dtypes, buckets, void, resumed = case
    make = partial(Exchange, layout, method, seed=2, dtypes=dtypes)
    plain, other = make(), make(buckets=buckets[-1])
    for step, place in enumerate(void):
        if resumed[step]:
            saved = other.state_dict()
            other.close()
            other = make(buckets=buckets[step])
            other.load_state_dict(saved)
        if place is not None:
            poisoned, before = gradients(layout, dtypes, step + 10), bits(other.state_dict())
            name, offset = place
            poisoned[name][offset % len(poisoned[name])] = (torch.inf, torch.nan)[step % 2]
            assert not other.reduce_(poisoned)
            assert all(bool(tensor.isnan().all()) for tensor in poisoned.values())
            assert bits(other.state_dict()) == before
        expected, found = gradients(layout, dtypes, step), gradients(layout, dtypes, step)
        assert plain.reduce_(expected)
        assert other.reduce_(found)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert {name: tensor.dtype for name, tensor in found.items()} == dtypes
    assert bits(plain.state_dict()) == bits(other.state_dict())
    plain.close()
    other.close()
