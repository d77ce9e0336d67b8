"""The exchange over real processes: equal to the simulation, staged, independent of buckets."""

import gc
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from processes import run_ranks
from states import segments_of

import laconic
from laconic.comm import Exchange, ExchangeError

LAYOUT = laconic.Layout.of({"a": (4, 5), "b": (7,), "c": (30,), "d": (3,)}, exact=["d"])
NODES = 3

METHODS = {
    "dcgd": laconic.DCGD(laconic.RandK(2)),
    "dcgd-varied": laconic.DCGD(laconic.RandomSparsification(0.3)),
    "ef14": laconic.EF14(laconic.TopK(0.1)),
    "ef14-random": laconic.EF14(laconic.TopK(0.3) >> laconic.RandomDithering(8, 2)),
    "ef21": laconic.EF21(laconic.TopK(0.1)),
    "ef21-compressed": laconic.EF21(laconic.RandK(3).contractive(), init="compressed"),
    "ef21-bfloat16": laconic.EF21(laconic.TopK(0.1), init="bfloat16"),
    "ef21-zero": laconic.EF21(laconic.TopK(1), init="zero"),
    "ef21-bits": laconic.EF21(laconic.TopK(0.2) >> laconic.ScaledSign()),
    "ef21+": laconic.EF21Plus(laconic.TopK(0.1)),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(0.1) >> laconic.NaturalCompression(), eta=0.2),
}


def gradient(iterate: torch.Tensor, node: int, round_: int) -> torch.Tensor:
    """One function, on one thread, that both sides call: a quadratic with noise keyed by place."""
    noise = torch.randn(LAYOUT.d, generator=torch.Generator().manual_seed(1000 * node + round_))
    return (iterate - node) * (1 + torch.arange(LAYOUT.d) / LAYOUT.d) + 0.3 * noise


def by_name(flat: torch.Tensor) -> dict[str, torch.Tensor]:
    return {s.name: flat[s.offset : s.end].view(s.shape).clone() for s in LAYOUT.segments}


def flat_of(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[s.name].reshape(-1) for s in LAYOUT.segments])


def walk(exchange: Exchange, rank: int, rounds: int, start: int = 0, x=None):
    x = torch.zeros(LAYOUT.d) if x is None else x
    course = []
    for round_ in range(start, start + rounds):
        tensors = by_name(gradient(x, rank, round_))
        assert exchange.reduce_(tensors)
        estimate = flat_of(tensors)
        x = x - 0.1 * estimate
        course.append(estimate)
    return torch.stack(course), x


def memories(exchange: Exchange) -> dict[str, torch.Tensor]:
    found = {}
    for name, ends in segments_of(exchange.state_dict()).items():
        for end, state in ends.items():
            for key, value in state.items():
                if value is not None:
                    found[f"{name} {end} {key}"] = torch.as_tensor(value)
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def real(rank: int, rounds: int):
    found = {}
    for name, method in METHODS.items():
        exchange = Exchange(LAYOUT, method, seed=11)
        course, x = walk(exchange, rank, rounds)
        found[name] = course, x, memories(exchange), exchange.stats()
        exchange.close()
    return found


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return run_ranks(real, NODES, tmp_path_factory.mktemp("ranks"), 50)


@pytest.mark.parametrize("name", METHODS)
def test_simulated_equals_real_bit_for_bit(name, processes):
    method = METHODS[name]
    sender = method.sender(LAYOUT, node=torch.arange(NODES), seed=11)
    receiver = method.receiver(LAYOUT, NODES)
    x = torch.zeros(LAYOUT.d)
    for round_ in range(50):
        message = sender.send(torch.stack([gradient(x, node, round_) for node in range(NODES)]))
        estimate = receiver.receive(message)
        for results in processes:
            assert torch.equal(results[name][0][round_], estimate)
        x = x - 0.1 * estimate
    for node, results in enumerate(processes):
        assert torch.equal(results[name][1], x)
        for segment in LAYOUT.segments:
            for end, holder in (("sender", sender), ("receiver", receiver)):
                for key, value in holder.state_dict().items():
                    if isinstance(value, torch.Tensor):
                        mine = value[..., segment.offset : segment.end]
                        mine = mine[node] if end == "sender" else mine
                        assert torch.equal(results[name][2][f"{segment.name} {end} {key}"], mine)


def test_stats_count_what_was_sent(processes):
    stats = processes[0]["ef14"][3]
    expected = METHODS["ef14"].format(LAYOUT, torch.float32, 1)
    assert stats.steps == 50
    assert stats.skipped == 0
    assert stats.bytes_sent == 50 * (NODES - 1) * (expected.max_nbytes + 8)
    assert stats.bytes_received == stats.bytes_sent
    assert stats.bytes_bf16 == 50 * (2 * (NODES - 1) * 2 * LAYOUT.d // NODES)
    assert stats.ratio_to_bf16 == stats.bytes_sent / stats.bytes_bf16
    assert all(seconds > 0 for seconds in stats.seconds.values())


GROUPINGS = [
    None,
    [["a", "b"], ["c", "d"]],
    [["d"], ["c"], ["b"], ["a"]],
    [["c", "a"], ["d", "b"]],
]


def grouped(rank: int):
    found = []
    for buckets in GROUPINGS:
        each = {}
        for name, method in METHODS.items():
            exchange = Exchange(LAYOUT, method, seed=3, buckets=buckets)
            each[name] = walk(exchange, rank, 12)[0], memories(exchange)
            exchange.close()
        found.append(each)
    return found


def test_buckets_do_not_influence_values(tmp_path):
    for results in run_ranks(grouped, 2, tmp_path):
        for name in METHODS:
            for other in results[1:]:
                assert torch.equal(results[0][name][0], other[name][0]), name
                assert same(results[0][name][1], other[name][1]), name


def rebucketed(rank: int):
    """Other buckets from one step to the next, as DDP's after its first iteration."""
    found = {}
    for name, method in METHODS.items():
        plain, changing = Exchange(LAYOUT, method, seed=3), Exchange(LAYOUT, method, seed=3)
        x = torch.zeros(LAYOUT.d)
        for round_ in range(8):
            g = gradient(x, rank, round_)
            expected = by_name(g)
            plain.reduce_(expected)
            got = by_name(g)
            buckets = GROUPINGS[1 + round_ % 3]
            flats = [torch.cat([got[n].reshape(-1) for n in names]) for names in buckets]
            futures = [
                changing.submit(names, flat, last=i == len(buckets) - 1)
                for i, (names, flat) in enumerate(zip(buckets, flats, strict=True))
            ]
            for names, future in zip(buckets, futures, strict=True):
                estimate = future.wait()
                assert torch.equal(estimate, torch.cat([expected[n].reshape(-1) for n in names]))
            x = x - 0.1 * flat_of(expected)
        found[name] = same(memories(plain), memories(changing))
        plain.close()
        changing.close()
    return found


def test_buckets_may_change_between_steps(tmp_path):
    for results in run_ranks(rebucketed, 2, tmp_path):
        assert all(results.values()), results


def poisoned(rank: int):
    """Steps with inf in one segment of one rank, between others, at the start and in the middle."""
    problems = []
    for name, method in METHODS.items():
        for bad_rank, segment in ((0, "a"), (1, "c"), (2, "d")):
            buckets = [["d"], ["c", "b"], ["a"]]
            exchange = Exchange(LAYOUT, method, seed=5, buckets=buckets)
            clean = Exchange(LAYOUT, method, seed=5, buckets=buckets)
            x = torch.zeros(LAYOUT.d)
            for step, poison in enumerate((True, False, False, True, True, False, False)):
                g = gradient(x, rank, step)
                tensors = by_name(g)
                if poison:
                    before = memories(exchange)
                    if rank == bad_rank:
                        tensors[segment].view(-1)[0] = (torch.inf, -torch.inf, torch.nan)[bad_rank]
                    if exchange.reduce_(tensors):
                        problems.append((name, segment, step, "was committed"))
                    if not all(bool(t.isnan().all()) for t in tensors.values()):
                        problems.append((name, segment, step, "did not reach every tensor"))
                    if not same(before, memories(exchange)):
                        problems.append((name, segment, step, "changed a memory"))
                    continue
                expected = by_name(g)
                if not exchange.reduce_(tensors) or not clean.reduce_(expected):
                    problems.append((name, segment, step, "was not committed"))
                if not torch.equal(flat_of(tensors), flat_of(expected)):
                    problems.append((name, segment, step, "differs from a run without the bad steps"))
                x = x - 0.1 * flat_of(expected)
            if not same(memories(exchange), memories(clean)):
                problems.append((name, segment, "the memories differ at the end"))
            if exchange.stats().skipped != 3 or exchange.stats().steps != 4:
                problems.append((name, segment, "stats"))
            exchange.close()
            clean.close()
    return problems


def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path):
    assert run_ranks(poisoned, NODES, tmp_path, timeout=150) == [[]] * NODES


def resumed(rank: int, folder):
    found = {}
    for name, method in METHODS.items():
        through = Exchange(LAYOUT, method, seed=1)
        course, _ = walk(through, rank, 9)
        first = Exchange(LAYOUT, method, seed=1)
        _, x = walk(first, rank, 4)
        path = folder / f"{name}-{rank}.pt"
        torch.save(first.state_dict(), path)
        second = Exchange(LAYOUT, method, seed=1, buckets=[["b", "c"], ["a", "d"]])
        second.load_state_dict(torch.load(path, weights_only=True))
        rest, _ = walk(second, rank, 5, start=4, x=x)
        found[name] = torch.equal(course[4:], rest)
        for exchange in (through, first, second):
            exchange.close()
    return found


def test_resume_is_bit_exact(tmp_path):
    for results in run_ranks(resumed, 2, tmp_path, tmp_path):
        assert all(results.values()), results


def dies(rank: int):
    exchange = Exchange(LAYOUT, METHODS["ef21"], timeout_s=5)
    exchange.reduce_(by_name(torch.ones(LAYOUT.d)))
    if rank == 1:
        os._exit(0)
    waited = "rank 0 waited for a comparison of settings before the exchange of a bucket of 4 segments"
    with pytest.raises(ExchangeError, match=waited):
        exchange.reduce_(by_name(torch.ones(LAYOUT.d)))
    with pytest.raises(ExchangeError, match="has failed before"):
        exchange.reduce_(by_name(torch.ones(LAYOUT.d)))
    os._exit(0)


def test_a_rank_that_dies_is_named_by_what_was_waited_for(tmp_path):
    with pytest.raises(FileNotFoundError):  # neither rank lives to save a result
        run_ranks(dies, 2, tmp_path, timeout=30)


def hangs(rank: int):
    exchange = Exchange(LAYOUT, METHODS["ef14"], timeout_s=2)
    if rank == 1:
        time.sleep(6)
        return None
    with pytest.raises(
        ExchangeError, match=r"all_gather of \d+ bytes, and it failed \(timeout 2 s\)"
    ) as caught:
        exchange.reduce_(by_name(torch.ones(LAYOUT.d)))
    return str(caught.value)


def test_a_rank_that_hangs_runs_into_the_timeout(tmp_path):
    assert "Restart from the last checkpoint" in run_ranks(hangs, 2, tmp_path)[0]


def out_of_step(rank: int):
    exchange = Exchange(LAYOUT, METHODS["ef14"], timeout_s=10)
    if rank == 1:
        state = exchange.state_dict()
        other = METHODS["ef14"].sender(LAYOUT)
        other.send(torch.ones(LAYOUT.d))
        receiver = METHODS["ef14"].receiver(LAYOUT, 2)
        zero = {**receiver.state_dict(), "round": 1}
        for segment in LAYOUT.segments:
            cut = {
                k: v[..., segment.offset : segment.end] if isinstance(v, torch.Tensor) else v
                for k, v in other.state_dict().items()
            }
            cut.pop("layout")
            segments_of(state)[segment.name] = {
                "sender": cut,
                "receiver": {k: v for k, v in zero.items() if k != "layout"},
            }
        exchange.load_state_dict(state)
    with pytest.raises(ExchangeError, match=r"memories are new: 1 on rank 1, 0 on rank 0"):
        exchange.reduce_(by_name(torch.ones(LAYOUT.d)))


def test_a_rank_one_step_off_is_an_error_that_names_both(tmp_path):
    run_ranks(out_of_step, 2, tmp_path)


FORGETFUL = """
import torch, laconic
layout = laconic.Layout.of({"a": (200, 300)})
exchange = laconic.Exchange(layout, laconic.EF21(laconic.TopK(0.01)))
exchange.reduce_({"a": torch.randn(200, 300)})
"""


def test_a_script_that_forgets_to_close_ends_well():
    # A daemon thread that has called PyTorch aborted every second such process at its end.
    runs = [
        subprocess.Popen([sys.executable, "-c", FORGETFUL], stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors


def exchange_threads():
    return sum(thread.name == "laconic-exchange" for thread in threading.enumerate())


def test_an_exchange_that_is_dropped_ends_its_thread():
    gc.collect()
    before = exchange_threads()
    exchange = Exchange(laconic.Layout.of({"a": (20, 30)}), laconic.EF21(laconic.TopK(0.1)))
    exchange.reduce_({"a": torch.ones(20, 30)})
    assert exchange_threads() == before + 1
    del exchange
    gc.collect()
    assert exchange_threads() == before


def test_a_single_process_needs_no_distributed():
    exchange = Exchange(LAYOUT, METHODS["ef21"], seed=2)
    sender, receiver = METHODS["ef21"].sender(LAYOUT, seed=2), METHODS["ef21"].receiver(LAYOUT, 1)
    for round_ in range(3):
        g = gradient(torch.zeros(LAYOUT.d), 0, round_)
        tensors = by_name(g)
        assert exchange.reduce_(tensors)
        assert torch.equal(flat_of(tensors), receiver.receive([sender.send(g)]))
    assert exchange.stats().bytes_sent == 0
    exchange.close()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_and_scales(dtype):
    method = laconic.EF14(laconic.TopK(2))
    exchange = Exchange(laconic.Layout.flat(6), method)
    sender, receiver = method.sender(6), method.receiver(6, 1)
    g = torch.tensor([1.0, -3.0, 2.0, 0.5, 0.25, 7.0], dtype=dtype)
    for _ in range(3):
        buffer = g * 8
        assert exchange.submit(["x"], buffer, last=True, scale=8.0).wait() is buffer
        assert torch.equal(buffer, (receiver.receive([sender.send(g)]) * 8).to(dtype))
    exchange.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.reduce_({"a": torch.zeros(4, 5)}), r"missing or unknown: \['b', 'c', 'd'\]"),
        (lambda e: e.reduce_({**by_name(torch.zeros(LAYOUT.d)), "b": torch.zeros(8)}), "'b' has shape"),
        (lambda e: e.load_state_dict({**e.state_dict(), "size": 4}), "has size 4, this one has 1"),
        (lambda e: e.load_state_dict({**e.state_dict(), "method": "ef14"}), "method 'ef14'"),
        (lambda e: e.submit(["a"], torch.zeros(3), last=True).wait(), "has 20 elements, got 3"),
        (lambda e: e.submit(["z"], torch.zeros(3), last=True).wait(), "no segment is named 'z'"),
    ],
)
def test_misuse(call, message):
    exchange = Exchange(LAYOUT, METHODS["ef21"])
    with pytest.raises((ValueError, RuntimeError), match=message):
        call(exchange)
    exchange.close()


def test_buckets_are_checked():
    for buckets in ([["a"]], [["a", "b", "c", "d", "e"]], [["a", "b"], ["b", "c", "d"]]):
        with pytest.raises(ValueError, match="every segment once"):
            Exchange(LAYOUT, METHODS["ef21"], buckets=buckets)


def test_tensors_of_several_dtypes_are_refused():
    layout = laconic.Layout.of({"a": (300,), "b": (200,)})
    exchange = laconic.Exchange(layout, laconic.EF14(laconic.TopK(0.1)))
    with pytest.raises(ValueError, match="must have one dtype and device"):
        exchange.reduce_({"a": torch.ones(300), "b": torch.ones(200, dtype=torch.bfloat16)})
    exchange.close()


def test_memories_outlast_a_bucket_that_is_refused():
    layout = laconic.Layout.of({"a": (20,), "b": (30,)})
    exchange = laconic.Exchange(layout, laconic.EF14(laconic.TopK(2)))
    for names, length in ((["a"], 20), (["b"], 30), (["b"], 30)):
        exchange.submit(names, torch.arange(float(length)), last=True).wait()
    before = exchange.state_dict()["ranks"]["0"]
    with pytest.raises(ValueError, match="'a' and others are at different rounds"):
        exchange.submit(["a", "b"], torch.ones(50), last=True).wait()
    after = exchange.state_dict()["ranks"]["0"]
    for name in ("a", "b"):
        residual = before[name]["sender"]["residual"]
        assert residual.any()
        assert torch.equal(residual, after[name]["sender"]["residual"])
    exchange.close()
