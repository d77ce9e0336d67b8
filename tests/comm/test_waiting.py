"""Statistics of waiting: how long this rank waited in collectives, and for which rank."""

import math
import time

import pytest
import torch
from processes import run_ranks
from test_exchange import LAYOUT, by_name, gradient

import laconic
from laconic.comm import Exchange
from laconic.comm._stats import Counter
from laconic.comm.transport import _arrivals

RANKS, LATE, SLEEP = 3, 1, 2.0
EXCHANGES = {
    "fixed sizes": (laconic.EF21(laconic.TopK(0.1)), "auto"),
    "varied sizes": (laconic.DCGD(laconic.RandomSparsification(0.3)), "auto"),
    "dense": (laconic.EF21(laconic.TopK(0.1)), "dense"),
}


def one_sleeps(rank):
    found = {}
    for name, (method, topology) in EXCHANGES.items():
        exchange = Exchange(LAYOUT, method, topology=topology, buckets=[["a", "b"], ["c", "d"]])
        for step in range(3):
            before = exchange.stats()
            if step == 2 and rank == LATE:
                time.sleep(SLEEP)
            assert exchange.reduce_(by_name(gradient(torch.zeros(LAYOUT.d), rank, step)))
        found[name] = before.waited_for, exchange.stats()
        exchange.close()
    return found


def test_a_rank_that_sleeps_is_named_and_waited_for(tmp_path):
    for rank, found in enumerate(run_ranks(one_sleeps, RANKS, tmp_path)):
        for before, stats in found.values():
            waited = [b - a for a, b in zip(before, stats.waited_for, strict=True)]
            assert waited[rank] == 0.0
            if rank == LATE:
                assert sum(waited) < SLEEP / 2
            else:
                assert waited[LATE] > SLEEP / 2
                assert stats.latest_rank == LATE
            assert stats.waited == sum(stats.waited_for)
            assert stats.waited <= stats.seconds["communicate"]
            scalars = stats.scalars()
            assert scalars["waited"] == stats.waited
            assert {"latest_rank", "seconds_communicate"} < set(scalars)


@pytest.mark.parametrize(
    ("worked", "left", "expected"),
    [
        ([400, 900, 700], 1400, [0, 500, 0]),  # 1 came last, 500 later
        ([400, 900, 700], 700, [0, 300, 0]),  # no longer than the collective took
        ([400, 100, 300], 1400, [0, 0, 0]),  # this rank came last
    ],
)
def test_waiting_follows_from_how_long_each_rank_worked(worked, left, expected, monkeypatch):
    clock = iter([0, 400_000, 1000 * left])
    monkeypatch.setattr(_arrivals.time, "perf_counter_ns", lambda: next(clock))
    counter = Counter()
    arrivals = _arrivals.Arrivals(0, 3, counter)
    assert arrivals.enter(7).view(torch.int32).tolist() == [400, 7]
    arrivals.leave(worked)
    assert counter.waited_for == pytest.approx([1e-6 * us for us in expected])


def test_a_single_process_waits_for_nobody():
    exchange = Exchange(LAYOUT, laconic.EF21(laconic.TopK(0.1)))
    exchange.reduce_(by_name(torch.ones(LAYOUT.d)))
    stats = exchange.stats()
    exchange.close()
    assert stats.waited_for == (0.0,)
    assert stats.waited == 0.0
    assert stats.latest_rank is None
    assert math.isnan(stats.scalars()["latest_rank"])


def late_to_construction(rank):
    if rank == LATE:
        time.sleep(0.5)
    exchange = Exchange(LAYOUT, laconic.EF21(laconic.TopK(0.1)))
    stats = exchange.stats()
    exchange.close()
    return stats.waited, stats.bytes_sent


def test_waits_and_bytes_before_the_first_step_are_not_counted(tmp_path):
    assert run_ranks(late_to_construction, RANKS, tmp_path) == [(0.0, 0)] * RANKS
