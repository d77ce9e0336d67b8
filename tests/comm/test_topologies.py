"""Topologies as objects: the dense one by its name, and a joint one that averages twice a round."""

from dataclasses import dataclass, replace

import pytest
import torch
from processes import run_ranks
from states import segments_of
from test_exchange import GROUPINGS, LAYOUT, by_name, flat_of, gradient, memories, same, walk

import laconic
from laconic.comm import Exchange
from laconic.comm.topologies import AllGather, choose_topology, unscaled, write_scaled
from laconic.formats.sizes import FRAME_BYTES

NODES, ROUNDS, K = 2, 8, 4
METHOD = laconic.EF21(laconic.TopK(0.2))


def shared_top_k(x, residual, mean):
    """Joint Top-k: all ranks keep the K coordinates whose mean magnitude is largest; no positions travel."""
    target = x + residual
    support = mean(target.abs()).sort(descending=True, stable=True).indices[:K]
    approximation, left = torch.zeros_like(target), target.clone()
    approximation[support] = mean(target[support])
    left[support] = 0.0
    return approximation, left


@dataclass(frozen=True)
class SharedSupport:
    """Joint Top-k of the segments that are compressed; the others are all-gathered through the feedback."""

    name = "shared-support"

    def make_bucket(self, context):
        return JointBucket(context)


class JointBucket:
    def __init__(self, context):
        self.context = context
        rest = [s.name for s in context.layout.segments if s.rule != "compress"]
        self.joint = [s for s in context.layout.segments if s.rule == "compress"]
        self.rest = None
        if rest:
            self.rest = AllGather().make_bucket(replace(context, layout=context.layout.select(rest)))
        self.residuals = {s.name: torch.zeros(s.numel) for s in self.joint}
        self.pending = {}

    def stage(self, source, out, scale):
        source = unscaled(source, scale)
        source = source if isinstance(source, torch.Tensor) else torch.cat([t.reshape(-1) for t in source])
        estimate = torch.zeros(self.context.layout.d)
        finite = True
        if self.rest is not None:
            others = [s for s in self.context.layout.segments if s not in self.joint]
            views = [estimate[s.offset : s.end] for s in others]
            finite = self.rest.stage([source[s.offset : s.end] for s in others], views, 1.0)
        for s in self.joint:
            estimate[s.offset : s.end], self.pending[s.name] = shared_top_k(
                source[s.offset : s.end],
                self.residuals[s.name],
                lambda numbers, name=s.name: self.context.collectives.mean(numbers, f"a mean of {name!r}"),
            )
        return finite and bool(torch.isfinite(estimate).all()) and write_scaled(estimate, out, scale)

    def commit(self):
        self.residuals |= self.pending
        if self.rest is not None:
            self.rest.commit()

    def roll_back(self):
        self.pending = {}
        if self.rest is not None:
            self.rest.roll_back()

    def state_by_segment(self):
        states = {name: {"joint": {"residual": t.clone()}} for name, t in self.residuals.items()}
        return states | (self.rest.state_by_segment() if self.rest is not None else {})

    def load_by_segment(self, states):
        self.residuals = {name: states[name]["joint"]["residual"].clone() for name in self.residuals}
        if self.rest is not None:
            self.rest.load_by_segment(states)


def node_mean(tensors):
    total = torch.zeros_like(tensors[0])
    for tensor in tensors:
        total += tensor * (1.0 / len(tensors))
    return total


def simulated():
    """The joint topology's estimates and residuals, written down for all nodes in one process."""
    rest = LAYOUT.select([s.name for s in LAYOUT.segments if s.rule != "compress"])
    senders = [METHOD.sender(rest, node=node, seed=3) for node in range(NODES)]
    receiver = METHOD.receiver(rest, NODES)
    residuals = {s.name: [torch.zeros(s.numel)] * NODES for s in LAYOUT.segments}
    x, course = torch.zeros(LAYOUT.d), []
    for round_ in range(ROUNDS):
        gradients = [gradient(x, node, round_) for node in range(NODES)]
        estimate = torch.zeros(LAYOUT.d)
        for s in LAYOUT.segments:
            own = [g[s.offset : s.end] for g in gradients]
            if s.rule != "compress":
                messages = [sender.send(g) for sender, g in zip(senders, own, strict=True)]
                estimate[s.offset : s.end] = receiver.receive(messages)
                continue
            targets = [g + e for g, e in zip(own, residuals[s.name], strict=True)]
            order = node_mean([t.abs() for t in targets]).sort(descending=True, stable=True).indices
            residuals[s.name] = [t.clone().index_fill_(0, order[:K], 0.0) for t in targets]
            estimate[s.offset : s.end][order[:K]] = node_mean([t[order[:K]] for t in targets])
        course.append(estimate)
        x = x - 0.1 * estimate
    return torch.stack(course), residuals


def joint_runs(rank):
    found = []
    for buckets in GROUPINGS:
        exchange = Exchange(LAYOUT, METHOD, topology=SharedSupport(), seed=3, buckets=buckets)
        found.append((walk(exchange, rank, ROUNDS)[0], memories(exchange)))
        exchange.close()
    return found


def test_a_joint_topology_equals_its_simulation_in_any_buckets(tmp_path):
    course, residuals = simulated()
    for rank, results in enumerate(run_ranks(joint_runs, NODES, tmp_path)):
        for estimates, memory in results:
            assert torch.equal(estimates, course)
            for s in LAYOUT.segments:
                if s.rule == "compress":
                    assert torch.equal(memory[f"{s.name} joint residual"], residuals[s.name][rank])


def joint_faults(rank, folder):
    """A void step, and a resume in other buckets, against a run without either."""
    plain = Exchange(LAYOUT, METHOD, topology=SharedSupport(), seed=3)
    course, _ = walk(plain, rank, ROUNDS)
    exchange = Exchange(LAYOUT, METHOD, topology=SharedSupport(), seed=3, buckets=GROUPINGS[1])
    _, x = walk(exchange, rank, 3)
    before = memories(exchange)
    for segment in "abcd":
        tensors = by_name(torch.ones(LAYOUT.d))
        if rank == 1:
            tensors[segment].view(-1)[0] = torch.inf
        assert not exchange.reduce_(tensors)
        assert all(bool(t.isnan().all()) for t in tensors.values())
        assert same(before, memories(exchange))
    torch.save(exchange.state_dict(), folder / f"{rank}.pt")
    exchange.close()
    resumed = Exchange(LAYOUT, METHOD, topology=SharedSupport(), seed=3, buckets=GROUPINGS[3])
    resumed.load_state_dict(torch.load(folder / f"{rank}.pt", weights_only=True))
    rest, _ = walk(resumed, rank, ROUNDS - 3, start=3, x=x)
    scaled = by_name(torch.full((LAYOUT.d,), 8.0))
    flat = flat_of(scaled)
    resumed.submit(list("abcd"), flat, last=True, scale=4.0).wait()
    plain_flat = flat_of(by_name(torch.full((LAYOUT.d,), 2.0)))
    plain.submit(list("abcd"), plain_flat, last=True).wait()
    plain.close()
    resumed.close()
    return torch.equal(rest, course[3:]) and torch.equal(flat, plain_flat * 4.0)


def test_a_joint_topology_is_staged_and_resumed_bit_for_bit(tmp_path):
    assert run_ranks(joint_faults, NODES, tmp_path, tmp_path) == [True] * NODES


def dense_runs(rank):
    found = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        by_topology = Exchange(LAYOUT, METHOD, topology="dense")
        by_bucket = Exchange(LAYOUT, METHOD)
        g = gradient(torch.zeros(LAYOUT.d), rank, 0).to(dtype)
        tensors, flat = by_name(g), g.clone()
        assert by_topology.reduce_(tensors)
        by_bucket.submit(list("abcd"), flat, last=True, dense=True).wait()
        assert segments_of(by_topology.state_dict()) == {s: {} for s in "abcd"}
        by_topology.load_state_dict(by_topology.state_dict())
        tensors["a"][0, 0] = torch.inf if rank == 0 else 0.0
        kept = flat_of(tensors).clone()
        assert not by_topology.reduce_(tensors)
        found[name] = kept[1:], flat[1:], by_topology.stats()
        by_topology.close()
        by_bucket.close()
    return found


def test_the_dense_topology_is_the_mean_and_remembers_nothing(tmp_path):
    results = run_ranks(dense_runs, 3, tmp_path)
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        gradients = [gradient(torch.zeros(LAYOUT.d), rank, 0).to(dtype) for rank in range(3)]
        for result in results:
            by_topology, by_bucket, stats = result[name]
            assert torch.equal(by_topology, node_mean(gradients)[1:])
            assert torch.equal(by_bucket, by_topology)
            assert (stats.steps, stats.skipped) == (1, 1)
            # All-to-all of shares, then all-gather of their means; 8 bytes each beside them.
            share = LAYOUT.d // 3 * dtype.itemsize
            assert stats.bytes_sent == stats.bytes_received == (2 * 2 + 1) * 2 * (share + 8)


def test_a_state_belongs_to_its_topology():
    dense, gathering = Exchange(LAYOUT, METHOD, topology="dense"), Exchange(LAYOUT, METHOD)
    with pytest.raises(ValueError, match="has topology 'all-gather', this one has 'dense'"):
        dense.load_state_dict(gathering.state_dict())
    state = gathering.state_dict()
    del state["topology"]  # as older states, which are of the all-gather
    gathering.load_state_dict(state)
    dense.close()
    gathering.close()


def test_a_topology_of_an_unknown_name_is_refused():
    with pytest.raises(
        ValueError, match=r"one of \('auto', 'all-gather', 'dense'\) or an object, got 'ring'"
    ):
        Exchange(LAYOUT, METHOD, topology="ring")


LARGE = laconic.Layout.of({"a": (300, 300), "b": (300,)}, exact=["b"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("keep", [0.001, 0.01, 0.2])
def test_auto_is_dense_from_the_number_of_ranks_on_where_messages_are_more_bytes(keep, dtype, caplog):
    feedback = laconic.EF14(laconic.TopK(keep) >> laconic.Cast(torch.bfloat16))
    dtypes = dict.fromkeys("ab", dtype)
    message = feedback.format(LARGE, dtype, 1).max_nbytes - FRAME_BYTES
    vector = LARGE.d * (8 if dtype == torch.float64 else 4)
    last = int(2 * vector / message)  # (n - 1) messages are at most 2 (n - 1) / n vectors
    assert last > 2
    assert choose_topology("auto", LARGE, feedback, 1, dtypes).name == "all-gather"
    assert choose_topology("auto", LARGE, feedback, last, dtypes).name == "all-gather"
    assert not caplog.records
    assert choose_topology("auto", LARGE, feedback, last + 1, dtypes).name == "dense"
    assert f"with {last + 1} ranks" in caplog.text
    assert choose_topology("all-gather", LARGE, feedback, last + 1, dtypes).name == "all-gather"
    assert choose_topology(SharedSupport(), LARGE, feedback, last + 1, dtypes) == SharedSupport()
    drawn = laconic.DCGD(laconic.RandomSparsification(keep))
    assert choose_topology("auto", LARGE, drawn, 10_000, dtypes).name == "all-gather"


def whole_vectors(rank):
    found = []
    for topology in ("auto", "all-gather"):
        exchange = Exchange(LAYOUT, laconic.DCGD(laconic.Identity()), topology=topology)
        tensors = by_name(gradient(torch.zeros(LAYOUT.d), rank, 0))
        assert exchange.reduce_(tensors)
        state = exchange.state_dict()
        found.append((state["topology"], flat_of(tensors), exchange.stats().bytes_sent))
        exchange.close()
    return found


def test_auto_averages_what_is_not_compressed_by_shares_to_the_same_bits(tmp_path):
    for auto, gathered in run_ranks(whole_vectors, 4, tmp_path):
        assert (auto[0], gathered[0]) == ("dense", "all-gather")
        assert torch.equal(auto[1], gathered[1])
        assert auto[2] < gathered[2]
