"""Collectives on a device: staging that copies stands in for a GPU's."""

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from processes import run_ranks

from laconic.comm import ExchangeError
from laconic.comm._stats import Counter
from laconic.comm.transport.collectives import Collectives
from laconic.comm.transport.staging import NoStaging, staging_for


class Copying:
    """Its collectives see copies alone, made and taken to the host inside its context."""

    backend = "gloo"

    def __init__(self):
        self.inside = False
        self.on_device = []
        self.to_host_calls = 0

    @contextmanager
    def context(self):
        self.inside = True
        yield
        self.inside = False

    def to_device(self, host):
        assert self.inside
        self.on_device.append(host.clone())
        return self.on_device[-1]

    def to_host(self, tensor):
        assert self.inside
        self.to_host_calls += 1
        host = tensor.clone()
        tensor.zero_()  # whoever looks at it on the device from now on is wrong
        return host


def collect(collectives, rank):
    numbers = torch.arange(10.0) * (rank + 1) + 0.1
    frame = torch.arange(7, dtype=torch.uint8) + rank
    return [
        *collectives.all_gather(frame, "frames"),
        *collectives.all_gather_varied(frame[: rank + 1], "varied frames"),
        collectives.mean(numbers, "a mean"),
    ]


def both_ways(rank):
    staging = Copying()
    plain = collect(Collectives(None, 60.0, Counter()), rank)
    carried = collect(Collectives(None, 60.0, Counter(), staging), rank)
    assert len(staging.on_device) == staging.to_host_calls == 6  # the first are the records of processes
    return plain, carried


def test_collectives_elsewhere_equal_those_in_main_memory(tmp_path):
    for plain, carried in run_ranks(both_ways, 3, tmp_path):
        assert len(plain) == len(carried)
        assert all(map(torch.equal, plain, carried))


class Late(Copying):
    late = False

    def to_host(self, tensor):
        if self.late:
            raise RuntimeError("timed out")
        return super().to_host(tensor)


def wait_in_vain(rank):
    staging = Late()
    collectives = Collectives(None, 60.0, Counter(), staging)
    staging.late = True
    with pytest.raises(ExchangeError, match=r"waited for the frames of round 3.*all_gather.*timed out"):
        collectives.all_gather(torch.zeros(3), "the frames of round 3")
    dist.barrier()
    return isinstance(staging_for(None, 60.0), NoStaging)


def test_who_waits_too_long_says_for_what(tmp_path):
    assert run_ranks(wait_in_vain, 2, tmp_path) == [True, True]
