"""Laws of the engine on simulated ranks: layouts, buckets, methods, dtypes, void rounds, cuts and resumes.

Every rank sends frames of each bucket and reads all of them, as ranks do; replicas, memories and iterates are
held against the methods as the papers print them, which know no buckets, frames or checkpoints.
"""

import copy

import torch
from courses import memory_of, some_gradients, twin
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.feedback import NotFiniteError

ROUNDS = 4
RATE = 0.125
METHODS = (
    laconic.DCGD(laconic.RandomSparsification(0.3)),
    laconic.EF14(laconic.TopK(0.3) >> laconic.ScaledSign()),
    laconic.EF14(laconic.TopK(0.3) >> laconic.ScaledSign(), decay=0.75, residual=torch.bfloat16),
    laconic.EF14((laconic.TopK(0.5) >> laconic.NaturalCompression()).contractive()),
    laconic.EF21(laconic.TopK(0.2)),
    laconic.EF21(laconic.TopK(1), init="compressed"),
    laconic.EF21(laconic.RandK(0.5).contractive(), init="zero"),
    laconic.EF21Plus(laconic.TopK(1)),
    laconic.EF21SGDM(laconic.TopK(0.2), eta=0.5),
)


class Rank:
    """One rank: a sender and a receiver of each bucket, and a replica of the iterate."""

    def __init__(self, number, ranks, layout, buckets, method, dtype):
        self.buckets = [layout.select(names) for names in buckets]
        self.senders = [method.sender(b, node=number, seed=7, dtype=dtype) for b in self.buckets]
        self.receivers = [method.receiver(b, ranks, dtype=dtype) for b in self.buckets]
        self.x = torch.zeros(layout.d, dtype=dtype)
        self.layout, self.method = layout, method
        self.number = number

    def cut(self, vector, bucket):
        at = {s.name: s for s in self.layout.segments}
        return torch.cat([vector[at[s.name].offset : at[s.name].end] for s in bucket.segments])

    def frames(self, gradient):
        """A frame for each bucket; None where its numbers are not finite."""
        found = []
        for bucket, sender in zip(self.buckets, self.senders, strict=True):
            try:
                found.append(laconic.pack(sender.stage(self.cut(gradient, bucket))))
            except NotFiniteError:
                found.append(None)
        return found

    def read(self, frames_of_ranks):
        """Take a step with all ranks' frames, or none where one is missing."""
        if any(frame is None for frames in frames_of_ranks for frame in frames):
            for end in (*self.senders, *self.receivers):
                end.roll_back()
            return None
        estimate = torch.empty_like(self.x)
        at = {s.name: s for s in self.layout.segments}
        for place, (bucket, receiver) in enumerate(zip(self.buckets, self.receivers, strict=True)):
            found = receiver.stage([laconic.unpack(frames[place]) for frames in frames_of_ranks])
            for s in bucket.segments:
                estimate[at[s.name].offset : at[s.name].end] = found[s.offset : s.end]
        for end in (*self.senders, *self.receivers):
            end.commit()
        self.x = self.x - RATE * estimate
        return estimate

    def state(self):
        ends = (*self.senders, *self.receivers)
        return copy.deepcopy([end.state_dict() for end in ends]), self.x.clone()

    def load(self, state):
        for end, saved in zip((*self.senders, *self.receivers), state[0], strict=True):
            end.load_state_dict(saved)
        self.x = state[1].clone()


@st.composite
def cases(draw):
    numels = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    names = [f"s{i}" for i in range(len(numels))]
    exact = [name for name in names if draw(st.booleans())]
    layout = laconic.Layout.of(dict(zip(names, [(d,) for d in numels], strict=True)), exact=exact)
    order = draw(st.permutations(names))
    cuts = sorted(draw(st.sets(st.integers(1, len(names)))) | {len(names)})
    buckets = [list(order[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)]
    ranks = draw(st.integers(1, 3))
    place = st.tuples(st.integers(0, ranks - 1), st.integers(0, layout.d - 1), st.sampled_from([1, -1, 0]))
    void = [draw(st.none() | place) for _ in range(ROUNDS)]
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    resumed = [draw(st.booleans()) for _ in range(ROUNDS)]
    return layout, buckets, ranks, draw(st.sampled_from(METHODS)), dtype, void, resumed


@settings(max_examples=25, deadline=None)
@given(cases())
def test_replicas_and_iterates_are_those_of_the_plain_methods(case):
    layout, buckets, ranks, method, given_dtype, void, resumed = case
    gradients = some_gradients(ROUNDS, ranks, layout.d, seed=layout.d, dtype=given_dtype)
    dtype = torch.promote_types(given_dtype, torch.float32)  # 16-bit gradients accumulate in float32
    make = lambda: [Rank(r, ranks, layout, buckets, method, dtype) for r in range(ranks)]  # noqa: E731
    world, x = make(), torch.zeros(layout.d, dtype=dtype)
    for t, (expected, memories) in enumerate(twin(method, gradients.to(dtype), layout)):
        if void[t] is not None:
            rank, offset, sign = void[t]
            spoiled = gradients[t].clone()
            spoiled[rank, offset] = sign * torch.inf  # NaN where the sign is 0
            before = [r.state() for r in world]
            frames = [r.frames(g) for r, g in zip(world, spoiled, strict=True)]
            assert [r.read(frames) for r in world] == [None] * ranks
            for r, saved in zip(world, before, strict=True):
                torch.testing.assert_close(r.state(), saved, rtol=0, atol=0, equal_nan=True)
        if resumed[t]:
            saved, world = [r.state() for r in world], make()
            for r, state in zip(world, saved, strict=True):
                r.load(state)
        frames = [r.frames(g) for r, g in zip(world, gradients[t], strict=True)]
        x = x - RATE * expected
        for r in world:
            assert torch.equal(r.read(frames), expected)
            assert torch.equal(r.x, x)
            for bucket, sender in zip(r.buckets, r.senders, strict=True):
                if (found := memory_of(sender.state_dict())) is not None:
                    assert torch.equal(found.reshape(-1), r.cut(memories[r.number], bucket))
