"""Checkpoints over real processes: gathered, by DCP's keys, of another world size, and after a kill."""

import copy
import logging
import os
import signal
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from comparing import same
from processes import run_ranks
from states import segments_of
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD

TOP = laconic.TopK(0.1)
METHODS = {"ef14": laconic.EF14(TOP), "ef21": laconic.EF21(TOP), "ef21+": laconic.EF21Plus(TOP)}


class Lines(logging.Handler):
    """The lines that were logged."""

    def __init__(self):
        super().__init__()
        self.lines = []
        logging.getLogger("laconic").addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 40))


def backward(model, step, rank, micro=0):
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(1000 * micro + 10 * step + rank))
    model(x).square().mean().backward()


def weights(model):
    return torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])


class Hook:
    """A model under DDP with the hook and plain SGD."""

    def __init__(self, feedback=METHODS["ef21"], seed=0, cap=25.0, settings=None):
        self.model = DistributedDataParallel(network(seed), bucket_cap_mb=cap)
        self.state = laconic.ddp.CommState(feedback, model=self.model, timeout_s=60, **(settings or {}))
        self.model.register_comm_hook(self.state, laconic.ddp.hook)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def steps(self, rank, steps):
        for step in steps:
            self.optimizer.zero_grad()
            backward(self.model, step, rank)
            self.optimizer.step()

    def close(self):
        self.state.close()


class Alone:
    """A model with a compressed optimiser."""

    def __init__(self, make=CompressedAdamW, seed=0, **settings):
        self.model = network(seed)
        settings = {"lr": 0.01, "feedback": METHODS["ef14"], "timeout_s": 60, **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.state = self.optimizer = make(self.model.named_parameters(), **settings)

    steps = Hook.steps
    close = Hook.close


def sgd(**settings):
    return Alone(CompressedSGD, **settings)


RUNS = {
    "hook": Hook,
    "adamw": Alone,
    "adamw with a mean": lambda **s: Alone(betas=(0.5, 0.999), **s),
    "sgd": sgd,
    "sgd with momentum": lambda **s: sgd(momentum=0.5, **s),
    "sgd, last norm, residual in bfloat16": lambda **s: sgd(
        clip=0.05, clip_by="last", feedback=laconic.EF14(TOP, residual=torch.bfloat16), **s
    ),
}


def _gathered(rank, folder):
    found = {}
    for name, make in RUNS.items():
        first = make()
        first.steps(rank, range(3))
        own, gathered = copy.deepcopy(first.state.state_dict()), first.state.state_dict(gather=True)
        first.state.consolidate_state_dict()
        found[name, "consolidated"] = same(first.state.state_dict(), gathered)
        if rank == 0:
            torch.save((gathered, first.model.state_dict()), folder / f"{name}.pt")
            found[name, "size"] = sum("rank2" in str(key) or key == "2" for key in keys_of(gathered)) > 0
        else:
            found[name, "own"] = same(own, gathered)
        dist.barrier()
        first.steps(rank, range(3, 6))
        second = make(seed=1)
        saved, model = torch.load(folder / f"{name}.pt", weights_only=True)
        second.model.load_state_dict(model)
        second.state.load_state_dict(saved)
        found[name, "loaded"] = same(second.state.state_dict(), own)
        second.steps(rank, range(3, 6))
        found[name, "own again"] = list(keys_of(first.state.state_dict())) == list(keys_of(own))
        found[name, "goes on"] = torch.equal(weights(first.model), weights(second.model))
        found[name, "memories"] = same(first.state.state_dict(), second.state.state_dict())
        first.close()
        second.close()
    return found


def keys_of(state):
    for key, value in state.items():
        yield key
        if isinstance(value, dict):
            yield from keys_of(value)


def test_a_gathered_state_has_every_ranks_memories(tmp_path):
    for found in run_ranks(_gathered, 3, tmp_path, tmp_path, timeout=200):
        assert all(found.values()), [key for key, good in found.items() if not good]


class Wrapped:
    """As ``Stateful``."""

    def __init__(self, state):
        self.state_dict, self.load_state_dict = state.state_dict, state.load_state_dict


def _dcp(rank, folder):
    found = {}
    warnings.simplefilter("ignore")
    for name, make in RUNS.items():
        first = make()
        first.steps(rank, range(3))
        parts = {"model": first.model, "comm": first.state}
        state = {key: part.state_dict() for key, part in parts.items()}
        dcp.save(state, checkpoint_id=folder / f"{name}-dict")
        dcp.save({"comm": Wrapped(first.state)}, checkpoint_id=folder / f"{name}-stateful")
        saved = copy.deepcopy(first.state.state_dict())
        if name != "hook":
            model, optimizer = get_state_dict(first.model, first.optimizer)
            dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=folder / f"{name}-fqn")
            found[name, "get_state_dict makes no step"] = same(first.state.state_dict(), saved)
        first.steps(rank, range(3, 6))
        for way in ("dict", "stateful") + (("fqn",) if name != "hook" else ()):
            second = make(seed=1)
            state = {"model": second.model.state_dict(), "comm": second.state.state_dict()}
            dcp.load(state, checkpoint_id=folder / f"{name}-dict")
            second.model.load_state_dict(state["model"])
            if way == "dict":
                second.state.load_state_dict(state["comm"])
            elif way == "stateful":
                dcp.load({"comm": Wrapped(second.state)}, checkpoint_id=folder / f"{name}-stateful")
            else:
                model, optimizer = get_state_dict(second.model, second.optimizer)
                dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=folder / f"{name}-fqn")
                set_state_dict(
                    second.model, second.optimizer, model_state_dict=model, optim_state_dict=optimizer
                )
            found[name, way, "loaded"] = same(second.state.state_dict(), saved)
            second.steps(rank, range(3, 6))
            found[name, way, "goes on"] = torch.equal(weights(first.model), weights(second.model))
            second.close()
        first.close()
    return found


def test_dcp_keeps_every_ranks_memories_and_fills_those_of_a_new_object(tmp_path):
    for found in run_ranks(_dcp, 2, tmp_path, tmp_path, timeout=250):
        assert all(found.values()), [key for key, good in found.items() if not good]


def _saved_by_two(rank, folder):
    for name, make in {"hook": Hook, "adamw": Alone}.items():
        run = make()
        run.steps(rank, range(4))
        gathered = run.state.state_dict(gather=True)
        torch.save(run.state.state_dict(), folder / f"{name}-{rank}.pt")
        if rank == 0:
            torch.save((gathered, run.model.state_dict()), folder / f"{name}.pt")
        run.close()


def _resynced(rank, folder, kept):
    found, lines = {}, Lines()
    for name, make in {"hook": Hook, "adamw": Alone}.items():
        gathered, model = torch.load(folder / f"{name}.pt", weights_only=True)
        saved = torch.load(folder / f"{name}-0.pt", weights_only=True) if kept else gathered
        run, fresh = make(seed=1), make(seed=1)
        if not kept or rank > 0:
            with pytest.raises(ValueError, match='on_mismatch="resync"'):
                run.state.load_state_dict(saved)
        if name == "adamw":  # its memories alone start anew
            fresh.state.load_state_dict(saved, on_mismatch="resync")
            fresh.state.session.exchange.reset()
        lines.lines.clear()
        run.state.load_state_dict(saved, on_mismatch="resync")
        found[name, "one line on rank 0"] = len(lines.lines) == (rank == 0)
        if name == "hook":
            found["iteration"] = run.state.iteration == 4
            memories = [segments_of(each.state.state_dict()["exchange"]) for each in (run, fresh)]
            found[name, "fresh"] = same(*memories)
        else:
            found["count"] = float(run.optimizer.state[next(run.model.parameters())]["step"]) == 4.0
            found["second moment"] = all(state["exp_avg_sq"].any() for state in run.optimizer.state.values())
            found[name, "fresh"] = same(run.state.state_dict(), fresh.state.state_dict())
        for each in (run, fresh):
            each.model.load_state_dict(model)
            each.steps(rank, range(4, 7))
        found[name, "goes on as a new one"] = torch.equal(weights(run.model), weights(fresh.model))
        found[name, "replicas"] = weights(run.model)
        run.close()
        fresh.close()
    return found


@pytest.mark.parametrize(("ranks", "kept"), [(3, False), (2, True)], ids=["three ranks", "one rank's state"])
def test_all_ranks_start_anew_where_the_state_of_one_does_not_fit(ranks, kept, tmp_path):
    run_ranks(_saved_by_two, 2, tmp_path, tmp_path)
    results = run_ranks(_resynced, ranks, tmp_path, tmp_path, kept)
    for found in results:
        for name in ("hook", "adamw"):
            replica = found.pop((name, "replicas"))
            assert torch.equal(replica, results[0].get((name, "replicas"), replica))
        assert all(found.values()), [key for key, good in found.items() if not good]


def _other_iterations(rank):
    run = Hook()
    state = run.state.state_dict()
    with pytest.raises(ValueError, match=r"of different iterations \[0, 1\]"):
        run.state.load_state_dict({**state, "iteration": rank}, on_mismatch="resync")
    refused = {
        **state,
        "exchange": {**state["exchange"], "layout": 0 if rank else state["exchange"]["layout"]},
    }
    with pytest.raises(ValueError, match="has layout 0" if rank else "that rank 1 loads was refused there"):
        run.state.load_state_dict(refused, on_mismatch="resync")
    run.steps(rank, range(1))
    run.close()


def test_ranks_that_resync_from_unlike_checkpoints_are_refused(tmp_path):
    run_ranks(_other_iterations, 2, tmp_path)


def _killed(rank, folder, where):
    run = Hook(cap=0.001)
    victim = rank == 1
    last = next(iter(run.model.parameters()))
    if victim and where == "backward":
        last.register_hook(
            lambda g: os.kill(os.getpid(), signal.SIGKILL) if run.state.iteration == 5 else None
        )
    for step in range(8):
        if step == 4:
            torch.save((run.state.state_dict(), run.model.state_dict()), folder / f"{where}-{rank}.pt")
        if victim and where == "between steps" and step == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            run.steps(rank, [step])
        except laconic.ExchangeError:
            os._exit(7)


def _resumed(rank, folder):
    straight = Hook()
    straight.steps(rank, range(8))
    found = []
    for where in PLACES:
        run = Hook(seed=1)
        saved, model = torch.load(folder / f"{where}-{rank}.pt", weights_only=True)
        run.model.load_state_dict(model)
        run.state.load_state_dict(saved)
        run.steps(rank, range(4, 8))
        found.append(torch.equal(weights(run.model), weights(straight.model)))
        found.append(same(run.state.state_dict(), straight.state.state_dict()))
        run.close()
    straight.close()
    return found


PLACES = ("between steps", "backward")


def test_a_rank_that_is_killed_resumes_bit_for_bit_from_the_last_checkpoint(tmp_path):
    """With other buckets than those in which it was saved."""
    for where in PLACES:
        with pytest.raises(AssertionError, match=r"rank 0 ended with exit code 7"):
            run_ranks(_killed, 2, tmp_path, tmp_path, where)
    for found in run_ranks(_resumed, 2, tmp_path, tmp_path):
        assert all(found), found


def _cut(rank):
    """Saved between two backward passes of a step, with the gradients of the first."""
    straight, cut = Hook(), Hook()
    for run in (straight, cut):
        run.steps(rank, range(2))
        run.optimizer.zero_grad()
        with run.model.no_sync():
            backward(run.model, 2, rank, micro=1)
    saved = copy.deepcopy((cut.state.state_dict(), cut.model.state_dict()))
    gradients = [p.grad.clone() for p in cut.model.parameters()]
    cut.close()
    resumed = Hook(seed=1, cap=0.001)
    resumed.model.load_state_dict(saved[1])
    resumed.state.load_state_dict(saved[0])
    for parameter, gradient in zip(resumed.model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    for run in (straight, resumed):
        laconic.kernels.set_threads(1 if run is straight else 2)
        backward(run.model, 2, rank)
        run.optimizer.step()
        run.steps(rank, range(3, 5))
        run.close()
    laconic.kernels.set_threads(None)
    return torch.equal(weights(straight.model), weights(resumed.model))


def test_a_cut_inside_accumulation_with_other_buckets_and_threads(tmp_path):
    assert all(run_ranks(_cut, 2, tmp_path))


DENSE = {
    "adamw": (lambda p: torch.optim.AdamW(p, lr=1e-3), CompressedAdamW, {"step", "exp_avg_sq"}),
    "adamw with a mean": (
        lambda p: torch.optim.AdamW(p, lr=1e-3),
        lambda p, lr: CompressedAdamW(p, lr, betas=(0.5, 0.9)),
        {"step", "exp_avg", "exp_avg_sq"},
    ),
    "momentum": (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p, lr: CompressedSGD(p, lr, momentum=0.5),
        {"momentum_buffer"},
    ),
}


@pytest.mark.filterwarnings("ignore:.*together with")
@pytest.mark.parametrize("name", DENSE)
def test_the_state_of_a_dense_optimiser_is_adopted_with_a_line(name, caplog):
    dense, compressed, moments = DENSE[name]
    model = network()
    trained = dense(model.parameters())
    for step in range(3):
        trained.zero_grad()
        backward(model, step, 0)
        trained.step()
    optimizer = compressed(model.named_parameters(), lr=0.02)
    backward(model, 3, 0)
    optimizer.step()
    settings = copy.deepcopy(optimizer.state_dict()["param_groups"])
    with caplog.at_level(logging.INFO, "laconic"):
        optimizer.load_state_dict(trained.state_dict())
    assert len(caplog.records) == 1
    assert "adopted the" in caplog.text
    assert optimizer.state_dict()["param_groups"] == settings
    for number, own in optimizer.state_dict()["state"].items():
        saved = trained.state_dict()["state"][number]
        assert own["rank0"].keys() == moments | {"memory"}
        assert all(torch.equal(own["rank0"][key], saved[key]) for key in moments)
        ends = own["rank0"]["memory"].values()
        assert not any(v.any() for end in ends for v in end.values() if v is not None)
    optimizer.step()
    optimizer.close()


def test_the_state_of_an_optimiser_without_the_moments_is_refused():
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    plain = CompressedSGD(model.parameters(), 0.01)
    dense = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    backward(model, 0, 0)
    dense.step()
    with pytest.raises(ValueError, match=r"has no 'step'.* without the optimiser's state"):
        optimizer.load_state_dict(dense.state_dict())
    with pytest.raises(ValueError, match="remembers nothing that a dense one does"):
        plain.load_state_dict(dense.state_dict())
    with pytest.raises(ValueError, match="has 1 parameters, this one has 4"):
        optimizer.load_state_dict(torch.optim.AdamW([torch.zeros(3, requires_grad=True)]).state_dict())
    with pytest.raises(ValueError, match="needs 'state' and 'param_groups'"):
        optimizer.load_state_dict({})
    optimizer.close()
    plain.close()


def test_an_iteration_without_memories_is_refused():
    state = laconic.ddp.CommState(METHODS["ef21"], model=network())
    saved = state.state_dict()
    for ranks in ({}, {"0": {}}):
        with pytest.raises(ValueError, match=r"no memory|has rank none"):
            state.load_state_dict(
                {**saved, "iteration": 10, "exchange": {**saved["exchange"], "ranks": ranks}}
            )
    with pytest.raises(ValueError, match="a dense run's checkpoint has none"):
        state.load_state_dict({"iteration": 10})
    with pytest.raises(ValueError, match="on_mismatch must be"):
        state.load_state_dict(saved, on_mismatch="ignore")
    assert state.iteration == 0
    state.close()


def test_an_optimisers_state_before_version_3_loads():
    model = network()
    optimizer = CompressedAdamW(model.named_parameters(), 0.01)
    for step in range(2):
        optimizer.zero_grad()
        backward(model, step, 0)
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    exchange = optimizer.session.exchange.state_dict()
    old = {
        "state": {
            n: {k: v for k, v in s["rank0"].items() if k != "memory"} for n, s in saved["state"].items()
        },
        "param_groups": [{k: v for k, v in g.items() if k != "exchange"} for g in saved["param_groups"]],
        "exchange": {
            **{k: v for k, v in exchange.items() if k != "ranks"},
            "version": 2,
            "rank": 0,
            "segments": segments_of(exchange),
        },
    }
    other = CompressedAdamW(network(1).named_parameters(), 0.01)
    other.load_state_dict(old)
    loaded = other.state_dict()
    for state in (loaded, saved):  # which those versions did not count
        for group in state["param_groups"]:
            del group["exchange"]["iteration"]
    assert same(loaded, saved)
    optimizer.close()
    other.close()
