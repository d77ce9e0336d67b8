"""Replicas that would drift apart: noticed on every rank before anything is committed."""

import warnings

import pytest
import torch
from processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.comm import RanksDifferError
from laconic.comm._agreement import checksum
from laconic.comm.transport.collectives import Collectives

METHOD = laconic.EF14(laconic.TopK(0.1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3))


def adamw(model, **settings):
    return laconic.optim.CompressedAdamW(
        model.named_parameters(), 1e-2, METHOD, **{"timeout_s": 60, **settings}
    )


def sgd(model, **settings):
    return laconic.optim.CompressedSGD(
        model.named_parameters(), 1e-2, METHOD, **{"timeout_s": 60, **settings}
    )


def backward(model, rank, step):
    made = torch.Generator().manual_seed(1000 * rank + step)
    model(torch.randn(8, 40, generator=made)).square().mean().backward()


def train(model, optimizer, rank, first, last):
    for step in range(first, last):
        optimizer.zero_grad()
        backward(model, rank, step)
        optimizer.step()


def remembered(optimizer):
    """Checksums of parameters, moments and memories."""
    parameters = {str(i): p for i, p in enumerate(optimizer.session.parameters.by_name.values())}
    state = {f"{i} {key}": v for i, p in parameters.items() for key, v in optimizer.state[p].items()}
    memories = {
        name: {end: checksum(state) for end, state in ends.items()}
        for name, ends in optimizer.session.exchange._states.memories().items()
    }
    return checksum(parameters), checksum(state), memories


def set_in_groups(name, value):
    def event(model, optimizer):
        for group in optimizer.param_groups:
            group[name] = value

    return event


def freeze(model, optimizer):
    model[0].weight.requires_grad_(False)


def change_weight(model, optimizer):
    with torch.no_grad():
        model[0].weight[0, 0] += 1.0


EVENTS = {
    "rate": (adamw, set_in_groups("lr", 5e-3), "lr of group 0: 0.005 on rank 1, 0.01 on rank 0"),
    "tensor": (adamw, set_in_groups("lr", torch.tensor(0.5)), "lr of group 0: 0.5 on rank 1, 0.01 on rank 0"),
    "decay": (adamw, set_in_groups("weight_decay", 0.5), "weight_decay of group 0: 0.5 on rank 1"),
    "momentum": (sgd, set_in_groups("momentum", 0.5), "momentum of group 0: 0.5 on rank 1, 0.0 on rank 0"),
    "frozen": (adamw, freeze, "frozen parameters: ['0.weight'] on rank 1, [] on rank 0"),
}


def optimiser_events(rank):
    found = {}
    for overlap in (False, True):
        for name, (make, event, _) in EVENTS.items():
            model = network()
            optimizer = make(model, clip=None, overlap=overlap)
            train(model, optimizer, rank, 0, 3)
            if rank == 1:
                event(model, optimizer)
            before = remembered(optimizer)
            with pytest.raises(RanksDifferError) as caught:
                train(model, optimizer, rank, 3, 4)
            found[name, overlap] = str(caught.value), remembered(optimizer) == before
            optimizer.close()
    return found


def test_settings_that_differ_by_rank_are_named_and_nothing_is_committed(tmp_path):
    for found in run_ranks(optimiser_events, 2, tmp_path, timeout=240):
        assert len(found) == 10
        for (name, _), (text, same) in found.items():
            assert EVENTS[name][2] in text
            assert same, name


def loads_weights(rank):
    found = []
    model = network()
    optimizer = adamw(model)
    if rank == 1:
        change_weight(model, optimizer)
    for again in (False, True):
        if again:
            model = network()
            optimizer = adamw(model)
            train(model, optimizer, rank, 0, 2)
            optimizer.load_state_dict(optimizer.state_dict())
            if rank == 1:
                change_weight(model, optimizer)
        with pytest.raises(
            RanksDifferError, match=r"'0.weight' is the first parameter that differs, on rank 1"
        ):
            train(model, optimizer, rank, 2, 3)
        found.append(optimizer.stats().steps)
        optimizer.close()
    return found


def test_weights_loaded_on_one_rank_are_noticed_at_the_first_step(tmp_path):
    assert run_ranks(loads_weights, 2, tmp_path, timeout=120) == [[0, 2]] * 2


def loads_alone(rank):
    model = network()
    optimizer = adamw(model)
    train(model, optimizer, rank, 0, 2)
    if rank == 1:
        optimizer.load_state_dict(optimizer.state_dict())
    before = remembered(optimizer)
    with pytest.raises(RanksDifferError) as caught:
        train(model, optimizer, rank, 2, 3)
    return str(caught.value), remembered(optimizer) == before


def test_a_state_loaded_on_one_rank_alone_is_refused(tmp_path):
    for text, same in run_ranks(loads_alone, 2, tmp_path, timeout=120):
        assert "first step after construction or load_state_dict on rank 1" in text
        assert same


class Scaler:
    scale = 2.0

    def get_scale(self):
        return self.scale


def with_hook(rank):
    found = {}
    for name in ("rate", "scale", "weights"):
        model = network()
        ddp = DistributedDataParallel(model)
        inner = torch.optim.SGD(model.parameters(), 1e-2)
        scaler = Scaler()
        state = laconic.ddp.CommState(METHOD, model=ddp, optimizer=inner, grad_scaler=scaler, timeout_s=60)
        ddp.register_comm_hook(state, laconic.ddp.hook)
        if name != "weights":
            train(ddp, inner, rank, 0, 3)
        if rank == 1:
            scaler.scale = 4.0 if name == "scale" else 2.0
            if name == "rate":
                inner.param_groups[0]["lr"] = 0.5
            if name == "weights":
                change_weight(model, inner)
        with pytest.raises(RanksDifferError) as caught:
            train(ddp, inner, rank, 3, 4)
        found[name] = str(caught.value), state.stats().steps
        state.close()
    return found


def test_the_hook_compares_the_loss_scale_the_weights_and_the_settings_of_an_optimizer_it_is_given(tmp_path):
    for found in run_ranks(with_hook, 2, tmp_path, timeout=120):
        assert "lr of group 0: 0.5 on rank 1, 0.01 on rank 0" in found["rate"][0]
        assert "loss scale: 4.0 on rank 1, 2.0 on rank 0" in found["scale"][0]
        assert "'0.weight' is the first parameter that differs" in found["weights"][0]
        assert [steps for _, steps in found.values()] == [3, 3, 0]


def scheduled(rank):
    """The collectives of each step while all ranks change their learning rates together."""
    made = []
    plain = Collectives.all_gather

    def counted(self, numbers, what):
        made.append(what)
        return plain(self, numbers, what)

    Collectives.all_gather = counted
    model = network()
    optimizer = adamw(model)
    counts = []
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1)
        before = len(made)
        train(model, optimizer, rank, step, step + 1)
        counts.append(len(made) - before)
    optimizer.close()
    return counts


def test_rates_that_change_on_all_ranks_cost_no_round(tmp_path):
    for counts in run_ranks(scheduled, 2, tmp_path, timeout=120):
        # First parameters, gradients and what is sent are compared. EF14's messages are all of one length.
        assert counts[0] > 1
        assert counts[1:] == [1, 1, 1, 1]


@pytest.mark.parametrize(("make", "name"), [(adamw, "betas"), (sgd, "momentum")])
def test_a_scheduler_that_turns_momentum_on_is_warned_of_once(make, name):
    model = network()
    optimizer = make(model, density={1: 0.01})
    train(model, optimizer, 0, 0, 1)
    optimizer.param_groups[0][name] = (0.95, 0.999) if name == "betas" else 0.9
    with pytest.warns(UserWarning, match="momentum delays them once more"):
        train(model, optimizer, 0, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, 0, 2, 3)
    optimizer.close()


def test_one_cycle_is_warned_of_at_the_step_where_it_turns_momentum_on():
    model = network()
    optimizer = laconic.optim.CompressedAdamW(model.named_parameters(), 1e-2)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=10)
    with pytest.warns(UserWarning, match="beta_1 > 0"):
        train(model, optimizer, 0, 0, 1)
    optimizer.close()


def pauses_alone(rank):
    model = network()
    wrapped = DistributedDataParallel(model)
    state = laconic.ddp.CommState(METHOD, model=wrapped, timeout_s=60)
    wrapped.register_comm_hook(state, laconic.ddp.hook)
    backward(wrapped, rank, 0)
    before = checksum(state.state_dict()["exchange"]["ranks"][str(rank)])
    words = ""
    try:
        if rank == 1:
            with state.paused():
                backward(wrapped, rank, 1)
        else:
            backward(wrapped, rank, 1)
    except RanksDifferError as error:
        words = str(error)
    return words, before


def test_a_pass_that_is_paused_on_one_rank_alone_is_named_on_both(tmp_path):
    for words, _ in run_ranks(pauses_alone, 2, tmp_path):
        assert "dense bucket" in words
        assert "rank 1" in words
