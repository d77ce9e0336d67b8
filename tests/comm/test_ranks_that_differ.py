"""Ranks whose settings, memories or programs differ: an error on every rank, and nothing is committed.

Each situation runs on real processes; a rank that joined a collective of another length would die of SIGABRT.
"""

from dataclasses import replace

import pytest
import torch
from processes import run_ranks

import laconic
from laconic.comm import Alike, Exchange, ExchangeError, RanksDifferError
from laconic.comm._agreement import checksum
from laconic.comm.transport.collectives import Collectives
from laconic.feedback import EF14, EF21, EF21Plus

LAYOUT = laconic.Layout.of({"a": (20, 30), "b": (40,), "c": (8, 9)}, exact=["b"])
METHOD = EF21(laconic.TopK(0.1))
NAMES = ("a", "b", "c")
BUCKETS = [["a", "b"], ["c"]]


def tensors(rank, step):
    made = torch.Generator().manual_seed(100 * rank + step)
    return {s.name: torch.randn(s.shape, generator=made) for s in LAYOUT.segments}


def exchange_of(**changes):
    return Exchange(LAYOUT, METHOD, **{"timeout_s": 60, "buckets": BUCKETS, **changes})


def steps(exchange, first, last):
    for step in range(first, last):
        assert exchange.reduce_(tensors(exchange.rank, step))


def refusal(action):
    """The text of the error that an action raises."""
    with pytest.raises(RanksDifferError) as caught:
        action()
    assert isinstance(caught.value, ExchangeError)
    return str(caught.value)


def bits(exchange):
    return {
        name: {end: checksum(state) for end, state in ends.items()}
        for name, ends in exchange.state_dict()["ranks"][str(exchange.rank)].items()
    }


CONSTRUCTIONS = {
    "feedback: EF21(compressor=TopK(k=0.2)": lambda: exchange_of_method(EF21(laconic.TopK(0.2))),
    "feedback: EF14": lambda: exchange_of_method(EF14(laconic.TopK(0.1))),
    "segment 'c': ((9, 9)": lambda: Exchange(other_layout(), METHOD),
    "segment 'b': ((40,), 'compress'": lambda: Exchange(inexact_layout(), METHOD, buckets=BUCKETS),
    "order of segments": lambda: Exchange(laconic.Layout.of(reversed_shapes(), exact=["b"]), METHOD),
    "segment 'a'": lambda: exchange_of(dtypes={"a": torch.float64}),
    "topology: dense": lambda: exchange_of(topology="dense"),
    "buckets": lambda: exchange_of(buckets=BUCKETS[::-1]),
    "seed: 1 on": lambda: exchange_of(seed=1),
    "adaptive: True on": lambda: exchange_of(adaptive=True),
}


def exchange_of_method(method):
    return Exchange(LAYOUT, method, buckets=BUCKETS)


def other_layout():
    return laconic.Layout.of({"a": (20, 30), "b": (40,), "c": (9, 9)}, exact=["b"])


def inexact_layout():
    return laconic.Layout.of({"a": (20, 30), "b": (40,), "c": (8, 9)})


def reversed_shapes():
    return {s.name: s.shape for s in reversed(LAYOUT.segments)}


def construction(rank):
    return [refusal(other if rank == 1 else exchange_of) for other in CONSTRUCTIONS.values()]


def test_other_settings_are_refused_on_all_ranks_at_construction(tmp_path):
    for found in run_ranks(construction, 2, tmp_path, timeout=240):
        for expected, text in zip(CONSTRUCTIONS, found, strict=True):
            assert f"the ranks differ in {expected}" in text
            assert "rank 1" in text


def load_own(exchange):
    exchange.load_state_dict(exchange.state_dict())


def load_older(exchange):
    exchange.load_state_dict(exchange.older)


def load_other(exchange):
    state = exchange.state_dict()
    receiver = state["ranks"][str(exchange.rank)]["a"]["receiver"]
    receiver["memory"] = receiver["memory"] + 1.0
    exchange.load_state_dict(state)


def switch(exchange):
    exchange.switch(replace(METHOD, compressor=laconic.TopK(0.5)))


def other_buckets(exchange):
    exchange._buckets = (("b", "a"), ("c",))


def later_bucket(exchange):
    exchange._buckets = (("a", "b"), ("c", "a"))


def other_dtype(exchange):
    exchange.source = lambda rank, step: {n: t.double() for n, t in tensors(rank, step).items()}


def compare_alone(exchange):
    exchange.gather(torch.arange(5), "five numbers")


def shorter(exchange):
    exchange.submit(BUCKETS[0], torch.zeros(600), last=False)
    exchange.submit(BUCKETS[1], torch.zeros(72), last=True).wait()


def other_order(exchange):
    a, b, c = tensors(exchange.rank, 4).values()
    exchange.submit(BUCKETS[0], [b, a], last=False)
    exchange.submit(BUCKETS[1], [c], last=True).wait()


def dense(exchange):
    for number, names in enumerate(BUCKETS):
        source = torch.cat([tensors(exchange.rank, 9)[name].reshape(-1) for name in names])
        future = exchange.submit(names, source, last=number == 1, dense=True)
    future.wait()


EVENTS = {
    "an older state": (load_older, "rounds since the memories are new: 1 on rank 1, 4 on ranks 0, 2"),
    "another estimate": (load_other, "memory of the receiver"),
    "resync": (Exchange.reset, "rounds since the memories are new: 0 on rank 1, 4 on ranks 0, 2"),
    "another compressor": (switch, "feedback: EF21(compressor=TopK(k=0.5)"),
    "another bucket": (other_buckets, "operation"),
    "a repeated segment": (later_bucket, "operation"),
    "another dtype": (other_dtype, "dtype: torch.float64 on rank 1, torch.float32 on ranks 0, 2"),
    "something else": (compare_alone, "operation: comparison of 5 numbers, five numbers on rank 1"),
    "a shorter vector": (shorter, "the bucket of 'a' has 640 elements, got 600 on rank 1"),
    "tensors in another order": (other_order, "'a' has 600 elements, got a tensor of 40 on rank 1"),
    "a dense step": (dense, "operation: exchange of a dense bucket"),
}


def event_on_one(rank):
    found = {}
    for name, (event, _) in EVENTS.items():
        exchange = exchange_of()
        exchange.source = tensors
        steps(exchange, 0, 1)
        exchange.older = exchange.state_dict()
        steps(exchange, 1, 4)
        before = bits(exchange)

        def act(exchange=exchange, event=event):
            if rank == 1:
                event(exchange)
            exchange.reduce_(exchange.source(rank, 4))

        text = refusal(act)
        kept = bits(exchange) == before or (
            rank == 1 and name in ("an older state", "another estimate", "resync")
        )
        with pytest.raises(ExchangeError, match="failed before"):
            exchange.reduce_(tensors(rank, 5))
        found[name] = text, kept
        exchange.close()
    return found


def test_an_event_on_one_rank_of_three_is_refused_on_all_and_commits_nothing(tmp_path):
    for found in run_ranks(event_on_one, 3, tmp_path, timeout=240):
        for name, (_, expected) in EVENTS.items():
            text, kept = found[name]
            assert expected in text, (name, text)
            assert "rank 1" in text
            assert kept, name


def resumed_and_fresh(rank):
    first = exchange_of()
    steps(first, 0, 3)
    saved = first.state_dict()
    first.close()
    second = exchange_of()
    if rank == 1:
        second.load_state_dict(saved)
    before = bits(second)
    text = refusal(lambda: second.reduce_(tensors(rank, 3)))
    same = bits(second) == before
    second.close()
    return text, same


def test_one_resumed_and_one_fresh_rank_are_refused(tmp_path):
    for text, same in run_ranks(resumed_and_fresh, 2, tmp_path, timeout=120):
        assert "rounds since the memories are new: 3 on rank 1, 0 on rank 0" in text
        assert same


def counting(monkeypatch=None):
    """The collectives that are made from now on, as a list that grows."""
    made = []
    for name in ("all_gather", "all_to_all"):
        plain = getattr(Collectives, name)

        def counted(self, numbers, *rest, plain=plain, name=name):
            made.append(name)
            return plain(self, numbers, *rest)

        setattr(Collectives, name, counted)
    return made


METHODS = {
    "EF21": (METHOD, "auto", 2),
    "EF21+": (EF21Plus(laconic.TopK(0.1)), "auto", 2),
    "varied": (laconic.DCGD(laconic.RandomSparsification(0.3)), "auto", 4),
    "dense": (METHOD, "dense", 4),
}


def changes_on_all(rank):
    made = counting()
    found = {}
    for name, (method, topology, _) in METHODS.items():
        exchange = Exchange(LAYOUT, method, topology=topology, buckets=BUCKETS, timeout_s=60)
        counts = []
        for step in range(12):
            if step == 4:
                exchange.reset()
            elif step == 6 and name != "dense":
                exchange.switch(replace(method, compressor=method.compressor))
            elif step == 8:
                load_own(exchange)
            before = len(made)
            steps(exchange, step, step + 1)
            counts.append(len(made) - before)
        found[name] = counts
        exchange.close()
    return found


def test_ordinary_steps_have_no_additional_round_and_changes_on_all_ranks_go_on(tmp_path):
    for found in run_ranks(changes_on_all, 2, tmp_path, timeout=120):
        for name, (_, _, ordinary) in METHODS.items():
            counts = found[name]
            for step in (2, 3, 7, 9, 10, 11):
                assert counts[step] == ordinary, (name, counts)
            # The step of a change: one collective of the agreed length, and a comparison for each bucket.
            assert counts[8] == ordinary + 1 + len(BUCKETS), (name, counts)


def alone(rank):
    """A rank that loads its own state again, with memories equal to what they were, goes on."""
    courses = []
    for loads in (False, True):
        exchange = exchange_of()
        steps(exchange, 0, 3)
        if loads and rank == 1:
            load_own(exchange)
        last = tensors(rank, 3)
        assert exchange.reduce_(last)
        courses.append((last, bits(exchange)))
        exchange.close()
    (plain, remembered), (loaded, others) = courses
    return all(torch.equal(plain[name], loaded[name]) for name in NAMES) and remembered == others


def test_a_rank_that_loads_what_it_had_goes_on_after_agreement(tmp_path):
    assert run_ranks(alone, 3, tmp_path, timeout=120) == [True] * 3


def unlike(rank):
    exchange = exchange_of()
    steps(exchange, 0, 3)
    before = bits(exchange)

    def step(rate):
        alike = Alike({"lr of group 0": rate, "weight_decay of group 0": 0.0})
        for number, names in enumerate(BUCKETS):
            source = torch.cat([tensors(rank, 3)[name].reshape(-1) for name in names])
            future = exchange.submit(names, source, last=number == 1, alike=alike)
        future.wait()

    text = refusal(lambda: step(0.001 if rank else 0.0005))
    same = bits(exchange) == before
    exchange.close()
    return text, same


def test_settings_that_must_be_alike_travel_with_the_step(tmp_path):
    for text, same in run_ranks(unlike, 3, tmp_path, timeout=120):
        assert "lr of group 0: 0.0005 on rank 0, 0.001 on ranks 1, 2" in text
        assert same


def test_a_single_process_agrees_with_itself():
    exchange = exchange_of()
    assert exchange.reduce_(tensors(0, 0))
    exchange.reset()
    switch(exchange)
    assert exchange.reduce_(tensors(0, 1))
    exchange.close()
