"""States whose memories are of another dtype than what is sent: refused, or started anew on all ranks."""

import pytest
import torch
from comparing import same
from processes import run_ranks
from states import segments_of

import laconic

LAYOUT = laconic.Layout.of({"a": (20, 20), "b": (50,)}, bfloat16=["b"])
TOP = laconic.TopK(0.1)
METHODS = [laconic.EF14(TOP), laconic.EF14(TOP, residual=torch.bfloat16), laconic.EF21(TOP)]
METHODS += [laconic.EF21Plus(TOP), laconic.EF21SGDM(TOP)]
F32, F64 = torch.float32, torch.float64
REASON = 'memories of .a. are of {}, but this model\'s gradients accumulate in {}: .*on_mismatch="resync"'


def tensors(dtype, step, rank=0):
    generator = torch.Generator().manual_seed(10 * step + rank)
    return {s.name: torch.randn(s.shape, generator=generator).to(dtype) for s in LAYOUT.segments}


def made(feedback, dtype=None, **settings):
    dtypes = None if dtype is None else dict.fromkeys(("a", "b"), dtype)
    return laconic.Exchange(LAYOUT, feedback, dtypes=dtypes, timeout_s=60, **settings)


def stepped(exchange, dtype, steps):
    found = []
    for step in steps:
        own = tensors(dtype, step, exchange.rank)
        exchange.reduce_(own)
        found += own.values()
    return found


def state_of(feedback, dtype, steps=2):
    exchange = made(feedback, dtype)
    stepped(exchange, dtype, range(steps))
    state = exchange.state_dict()
    exchange.close()
    return state


def words(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(("saved", "own"), [(F32, F64), (F64, F32)])
@pytest.mark.parametrize("feedback", METHODS, ids=repr)
def test_another_dtype_is_refused_at_load_and_nothing_is_lost(feedback, saved, own):
    state, exchange = state_of(feedback, saved), made(feedback, own)
    stepped(exchange, own, range(2))
    with pytest.raises(ValueError, match=REASON.format(words(saved), words(own))):
        exchange.load_state_dict(state)
    undisturbed = made(feedback, own)
    stepped(undisturbed, own, range(2))
    results = [stepped(each, own, range(2, 4)) for each in (exchange, undisturbed)]
    assert all(map(same, *results))


@pytest.mark.parametrize(("saved", "own"), [(F32, F64), (F64, F32)])
@pytest.mark.parametrize("feedback", METHODS, ids=repr)
def test_where_dtypes_are_not_known_the_first_step_refuses_and_nothing_is_lost(feedback, saved, own):
    state, exchange = state_of(feedback, saved), made(feedback)
    exchange.load_state_dict(state)
    with pytest.raises(ValueError, match=REASON.format(words(saved), words(own))):
        exchange.reduce_(tensors(own, 2))
    kept, expected = segments_of(exchange.state_dict()), segments_of(state)
    for name in ("a", "b"):
        for end, memories in expected[name].items():
            assert all(same(kept[name][end][key], value) for key, value in memories.items()), (name, end)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("feedback", METHODS, ids=repr)
def test_resync_starts_memories_of_another_dtype_anew(feedback, known, caplog):
    exchange, new = (made(feedback, F64 if known else None) for _ in range(2))
    exchange.load_state_dict(state_of(feedback, F32), on_mismatch="resync")
    results = [stepped(each, F64, range(2, 5)) for each in (exchange, new)]
    assert all(map(same, *results))
    assert "start anew" in caplog.text
    assert "are of float32" in caplog.text


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("feedback", METHODS, ids=repr)
def test_memories_of_16_bit_gradients_go_on_in_float32(feedback, narrow):
    state = state_of(feedback, narrow)
    known, unknown = made(feedback, F32), made(feedback)
    for exchange in (known, unknown):
        exchange.load_state_dict(state)
    results = [stepped(each, F32, range(2, 4)) for each in (known, unknown)]
    assert all(map(same, *results))
    assert segments_of(known.state_dict())["a"]["sender"]["round"] == 4


def test_what_has_made_no_step_fits_any_dtype():
    exchange = made(METHODS[0])
    state = exchange.state_dict()  # float32, as no dtype is known
    for own in (made(METHODS[0], F64), made(METHODS[0])):
        own.load_state_dict(state)
        stepped(own, F64, range(2))


def one_rank_of_another_dtype(rank, known, on_mismatch):
    feedback = METHODS[2]
    states = {}
    for dtype in (F32, F64):
        exchange = made(feedback, dtype)
        stepped(exchange, dtype, range(2))
        states[dtype] = exchange.state_dict()
    saved = F32 if rank == 1 or not known else F64
    exchange, new = (made(feedback, F64 if known else None) for _ in range(2))
    try:
        exchange.load_state_dict(states[saved], on_mismatch)
        found = stepped(exchange, F64, range(2, 5))
    except ValueError as error:
        return type(error).__name__, str(error)
    return all(map(same, found, stepped(new, F64, range(2, 5))))


@pytest.mark.parametrize("known", [True, False])
def test_all_ranks_start_anew_where_the_state_of_one_is_of_another_dtype(known, tmp_path):
    assert run_ranks(one_rank_of_another_dtype, 2, tmp_path, known, "resync") == [True, True]


def test_all_ranks_refuse_at_the_first_step_where_dtypes_are_not_known(tmp_path):
    for kind, text in run_ranks(one_rank_of_another_dtype, 2, tmp_path, False, "error"):
        assert kind == "ValueError"
        assert "are of float32, but this model's gradients accumulate in float64" in text


def one_refuses(rank):
    exchange = made(METHODS[2])
    stepped(exchange, F32, range(2))
    state = exchange.state_dict()
    other = made(METHODS[2])
    stepped(other, F64, range(2))
    exchange.load_state_dict(other.state_dict() if rank else state)
    with pytest.raises(laconic.ExchangeError) as error:
        stepped(exchange, F32, [2])
    return str(error.value)


def test_no_rank_waits_where_one_refuses_at_the_first_step(tmp_path):
    for text in run_ranks(one_refuses, 2, tmp_path):
        assert "the ranks differ in refusal" in text
        assert "are of float64, but this model's gradients accumulate in float32" in text
