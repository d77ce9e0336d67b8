"""Collectives away from main memory: a carrier that copies stands in for a GPU's."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from processes import run_ranks

from laconic.comm import ExchangeError
from laconic.comm._carrier import InMemory, carrier_for
from laconic.comm._group import Group


class Copying:
    """Its collectives see copies alone, made and taken home while it works."""

    backend = "gloo"

    def __init__(self):
        self.inside = False
        self.away = []
        self.brought_home = 0

    @contextmanager
    def working(self):
        self.inside = True
        yield
        self.inside = False

    def there(self, host):
        assert self.inside
        self.away.append(host.clone())
        return self.away[-1]

    def home(self, tensor):
        assert self.inside
        self.brought_home += 1
        host = tensor.clone()
        tensor.zero_()  # whoever looks at it there from now on is wrong
        return host


def collect(group, rank):
    numbers = torch.arange(10.0) * (rank + 1) + 0.1
    total = numbers.clone()
    group.sum_(total, "a sum")
    frame = torch.arange(7, dtype=torch.uint8) + rank
    return [
        *group.all_gather(frame, "frames"),
        *group.all_gather_varied(frame[: rank + 1], "varied frames"),
        group.mean(numbers, "a mean"),
        total,
    ]


def both_ways(rank):
    carrier = Copying()
    plain = collect(Group(None, 60.0), rank)
    carried = collect(Group(None, 60.0, carrier), rank)
    assert len(carrier.away) == carrier.brought_home == 6
    return plain, carried


def test_collectives_elsewhere_equal_those_in_main_memory(tmp_path):
    for plain, carried in run_ranks(both_ways, 3, tmp_path):
        assert len(plain) == len(carried)
        assert all(map(torch.equal, plain, carried))


class Late(Copying):
    def home(self, tensor):
        raise RuntimeError("timed out")


def wait_in_vain(rank):
    with pytest.raises(ExchangeError, match=r"waited for the frames of round 3.*all_gather.*timed out"):
        Group(None, 60.0, Late()).all_gather(torch.zeros(3), "the frames of round 3")
    dist.barrier()
    return isinstance(carrier_for(None, 60.0), InMemory)


def test_who_waits_too_long_says_for_what(tmp_path):
    assert run_ranks(wait_in_vain, 2, tmp_path) == [True, True]
