"""Checkpoints of the exchange: those of version 1 load, and a fresh state has every memory."""

from pathlib import Path

import pytest
import torch
from make_checkpoint_v1 import AFTER, BEFORE, METHODS, gradient, layout, walk
from states import segments_of

import laconic
from laconic.comm import Exchange

VERSION_1 = Path(__file__).with_name("checkpoint_v1.pt")


@pytest.fixture(scope="module")
def saved():
    return torch.load(VERSION_1, weights_only=True)


@pytest.mark.parametrize("buckets", [None, [["d"], ["c", "b"], ["a"]]], ids=["one bucket", "three"])
@pytest.mark.parametrize("name", METHODS)
def test_version_1_goes_on_bit_for_bit(name, buckets, saved):
    state = saved[name]["state"]
    assert state["version"] == 1
    exchange = Exchange(layout(), METHODS[name], seed=9, buckets=buckets)
    exchange.load_state_dict(state)
    found = walk(exchange, range(BEFORE, BEFORE + AFTER))
    exchange.close()
    assert torch.equal(found.view(torch.int32), saved[name]["after"].view(torch.int32))


def test_version_1_is_what_this_version_remembers_after_the_same_rounds(saved):
    for name, method in METHODS.items():
        exchange = Exchange(layout(), method, seed=9)
        walk(exchange, range(BEFORE))
        found, old = exchange.state_dict(), saved[name]["state"]
        exchange.close()
        new = {"version": 3, "topology": "all-gather"}
        kept = {key: old[key] for key in ("method", "layout", "size")}
        assert {key: value for key, value in found.items() if key != "ranks"} == {**kept, **new}
        assert segments_of(found).keys() == old["segments"].keys()
        for segment, ends in segments_of(found).items():
            for end, state in ends.items():
                other = old["segments"][segment][end]
                assert state.keys() == other.keys()
                for key, value in state.items():
                    assert torch.equal(
                        torch.tensor([]) if value is None else torch.as_tensor(value),
                        torch.tensor([]) if other[key] is None else torch.as_tensor(other[key]),
                    )


def test_version_1_before_its_first_round_had_no_memories(saved):
    state = saved["before the first round"]["state"]
    assert all(ends["sender"]["memory"] is None for ends in state["segments"].values())
    exchange = Exchange(layout(), METHODS["ef21"], seed=9)
    exchange.load_state_dict(state)
    found = walk(exchange, range(AFTER))
    exchange.close()
    assert torch.equal(found, saved["before the first round"]["after"])


def test_another_version_is_refused(saved):
    exchange = Exchange(layout(), METHODS["ef21"])
    for version in (0, 4, None):
        with pytest.raises(ValueError, match="has version"):
            exchange.load_state_dict({**saved["ef21"]["state"], "version": version})
    exchange.close()


MEMORIES = {
    "ef14": ({"residual"}, set()),
    "ef21": ({"memory"}, {"memory"}),
    "ef21-random": ({"memory"}, {"memory"}),
    "ef21+": ({"memory"}, {"memories"}),
    "ef21-sgdm": ({"memory", "estimate"}, {"memory"}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_a_fresh_state_has_all_memories_at_full_size(name, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    d, method = layout().d, METHODS[name]
    ends = method.sender(layout(), dtype=dtype), method.receiver(layout(), 2, dtype=dtype)
    for end, names in zip(ends, MEMORIES[name], strict=True):
        state = end.state_dict()
        tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        assert tensors.keys() == names
        for key, memory in tensors.items():
            assert memory.dtype == wide
            assert memory.shape == ((2, d) if key == "memories" else (d,))
            assert not memory.any()
    exchange = Exchange(layout(), method, dtypes=dict.fromkeys("abcd", dtype))
    fresh = segments_of(exchange.state_dict())
    walk(exchange, range(1)) if dtype == torch.float32 else exchange.reduce_(typed(dtype))
    later = segments_of(exchange.state_dict())
    exchange.close()
    assert fresh.keys() == later.keys() == set("abcd")
    for segment in layout().segments:
        for end, names in zip(("sender", "receiver"), MEMORIES[name], strict=True):
            state, other = fresh[segment.name][end], later[segment.name][end]
            assert state.keys() == other.keys()
            assert state["round"] == 0
            for key in names:
                assert state[key].shape == other[key].shape
                assert state[key].dtype == other[key].dtype == wide
                assert state[key].shape[-1] == segment.numel
                assert not state[key].any()


def typed(dtype):
    flat = gradient(0).to(dtype)
    return {s.name: flat[s.offset : s.end].view(s.shape).clone() for s in layout().segments}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fresh_state_loads_as_a_fresh_exchange(dtype):
    first, second = (Exchange(layout(), METHODS["ef21"], seed=9) for _ in range(2))
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        one, other = typed(dtype), typed(dtype)
        assert first.reduce_(one)
        assert second.reduce_(other)
        assert all(torch.equal(one[key], other[key]) for key in one)
    first.close()
    second.close()


def test_some_segments_before_their_first_step():
    """Those that no bucket has sent yet are zeros beside the others' memories."""
    exchange = Exchange(laconic.Layout.of({"a": (3,), "b": (4,)}), laconic.EF14(laconic.TopK(1)))
    exchange.submit(["a"], torch.ones(3), last=True).wait()
    state = segments_of(exchange.state_dict())
    exchange.close()
    assert state["a"]["sender"]["residual"].any()
    assert state["b"]["sender"]["residual"].tolist() == [0.0] * 4


def test_a_state_without_some_memories_is_refused():
    exchange = Exchange(layout(), METHODS["ef21"], seed=9)
    walk(exchange, range(BEFORE))
    state = exchange.state_dict()
    partly = {name: ends for name, ends in segments_of(state).items() if name != "b"}
    for broken in (partly, {}):
        with pytest.raises(ValueError, match=r"has no memory of .* saved in part"):
            exchange.load_state_dict({**state, "ranks": {"0": broken}})
    for broken in ({**state, "ranks": {}}, {k: v for k, v in state.items() if k != "ranks"}):
        with pytest.raises(ValueError, match="has rank none, this one has 0"):
            exchange.load_state_dict(broken)
    exchange.load_state_dict(state)
    exchange.close()
