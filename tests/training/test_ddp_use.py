"""How CommState is used: passes that are paused, gradients that nobody uses, a hook that is never called."""

import contextlib
import warnings

import pytest
import torch
from ddp_runs import WIDTH, loss_of, memories, network, same, start, weights, wrapped
from processes import run_ranks
from states import segments_of
from torch import nn

import laconic

EF21 = laconic.EF21(laconic.TopK(0.05))


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def _paused(rank):
    """Steps with paused passes between them beside the same steps without; and what a paused pass makes."""
    found = {}
    for clip in (None, 0.1):
        runs = []
        for interrupted in (False, True):
            model, state, _ = start(network(), EF21, 0.05, clip=clip, density={0: 0.3, 2: EF21})
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(4):
                if interrupted:
                    with state.paused():
                        loss_of(model, 50 + step, rank).backward()
                    own = gradients(model)
                    model.zero_grad()
                optimizer.zero_grad()
                loss_of(model, step, rank).backward()
                optimizer.step()
            runs.append((weights(model), memories(state), state.iteration))
            state.close()
        found[clip] = same(runs[0][0], runs[1][0]) and same(runs[0][1], runs[1][1])
        assert runs[0][2] == runs[1][2] == 4
    return found, own


def test_a_paused_pass_averages_whole_gradients_and_leaves_no_trace(tmp_path):
    for found, own in run_ranks(_paused, 2, tmp_path):
        assert found == {None: True, 0.1: True}
        # The last paused pass had the weights of all ranks, and is the dense mean.
        assert all(bool((g != 0).all()) for g in own)


def _fast(rank):
    """Iterations where each step has ended before its last bucket's submission returns."""
    submit = laconic.Exchange.submit

    def submit_and_wait(exchange, *arguments, last, **settings):
        future = submit(exchange, *arguments, last=last, **settings)
        if last:
            future.wait()
        return future

    laconic.Exchange.submit = submit_and_wait
    found = []
    for clip in (None, 0.1):
        model, state, _ = start(network(), EF21, clip=clip)
        for step in range(4):
            model.zero_grad()
            with state.paused() if step % 2 else contextlib.nullcontext():
                loss_of(model, step, rank).backward()
            found.append(state.iteration)
        state.close()
    return found


def test_a_paused_pass_is_no_iteration_however_fast_the_exchange_is(tmp_path):
    assert run_ranks(_fast, 2, tmp_path) == [[1, 1, 2, 2, 1, 1, 2, 2]] * 2


def _dense_mean(rank):
    model, state, _ = start(network(), EF21)
    with state.paused():
        loss_of(model, 0, rank).backward()
    state.close()
    alone = []
    for other in range(2):
        plain = network()
        loss_of(plain, 0, other).backward()
        alone.append(gradients(plain))
    return all(torch.equal(g, a * 0.5 + b * 0.5) for g, a, b in zip(gradients(model), *alone, strict=True))


def test_a_paused_pass_is_the_mean_over_ranks(tmp_path):
    assert run_ranks(_dense_mean, 2, tmp_path) == [True, True]


def _unused(rank):
    """Warnings of a GAN's discriminator: with the generator's pass paused, in no_sync, and neither."""
    found = {}
    for kind in ("used", "paused", "no_sync", "closure", "void", "neither"):
        model = wrapped(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=kind == "void")
        settings = {"optimizer": optimizer, "timeout_s": 30, "grad_scaler": scaler}
        state = laconic.ddp.CommState(EF21, model=model, **settings)
        model.register_comm_hook(state, laconic.ddp.hook)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(3):
                optimizer.zero_grad()
                if kind == "closure":

                    def closure(model=model, step=step):
                        for part in range(3):
                            model.zero_grad()
                            loss_of(model, step, rank, part).backward()

                    optimizer.step(closure)
                    continue
                if kind == "void":
                    loss = loss_of(model, step, rank) * (torch.inf if step == 1 else 1.0)
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
                    continue
                loss_of(model, step, rank).backward()
                optimizer.step()
                if kind == "paused":
                    with state.paused():
                        loss_of(model, step, rank, 1).backward()
                elif kind == "no_sync":
                    with model.no_sync():
                        loss_of(model, step, rank, 1).backward()
                elif kind == "neither":
                    loss_of(model, step, rank, 1).backward()
        state.close()
        found[kind] = [str(w.message) for w in caught if "laconic" in str(w.message)]
    return found


def test_a_gradient_that_no_step_uses_is_warned_of_once(tmp_path):
    for found in run_ranks(_unused, 2, tmp_path):
        (message,) = found.pop("neither")
        assert "without optimizer.step() between them" in message
        assert "state.paused()" in message
        assert not any(found.values()), found


def test_the_optimizer_is_one_with_hooks():
    with pytest.raises(TypeError, match=r"must be a torch.optim.Optimizer, got str"):
        laconic.ddp.CommState(EF21, optimizer="adam")


def _never_called(rank):
    found = {}
    for kind in ("called", "before the first pass", "never", "no_sync"):
        model = wrapped(network())
        state = laconic.ddp.CommState(EF21, model=model, timeout_s=30)
        if kind == "called":
            model.register_comm_hook(state, laconic.ddp.hook)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if kind == "no_sync":
                with model.no_sync():
                    loss_of(model, 0, rank).backward()
            elif kind != "before the first pass":
                loss_of(model, 0, rank).backward()
                model.zero_grad()
            state.stats()
            state.state_dict()
            state.close()
        found[kind] = [str(w.message) for w in caught if "hook" in str(w.message)]
    return found


def test_a_hook_that_is_never_called_is_told_of_once(tmp_path):
    for found in run_ranks(_never_called, 2, tmp_path):
        (message,) = found.pop("never")
        assert "Lightning's DDPStrategy registers hooks on CUDA only" in message
        assert not any(found.values()), found


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, both=True):
        return self.b(self.a(x)) if both else self.b(x)


def _left_out(rank):
    """Delayed and ignored parameters, one that is unfrozen later, one that is frozen later."""
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(rank))
    delayed = Parts()
    names = [("b.weight", delayed.b.weight), ("b.bias", delayed.b.bias)]
    options = {"delay_all_reduce_named_params": names, "param_to_hook_all_reduce": delayed.a.weight}
    model, state, _ = start(delayed, EF21, ddp=options)
    model(x).square().mean().backward()
    assert list(segments_of(state.state_dict()["exchange"])) == ["a.weight", "a.bias"]
    found = [delayed.b.weight.grad.clone(), delayed.a.weight.grad.clone()]
    state.close()

    skipping = wrapped(Parts(), find_unused_parameters=True, skip_all_reduce_unused_params=True)
    with pytest.raises(RuntimeError, match=r"freeze what is never used, requires_grad_\(False\)"):
        laconic.ddp.CommState(EF21, model=skipping)

    later = Parts()
    later.a.requires_grad_(False)
    model, state, _ = start(later, EF21)
    model(x).square().mean().backward()
    later.a.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"'a.weight' was frozen when the ranks agreed .* Unfreeze first"):
        model(x).square().mean().backward()
    # The next call says the same, not what DDP makes of it.
    with pytest.raises(RuntimeError, match=r"'a.weight' was frozen when the ranks agreed"):
        model(x)
    with torch.no_grad():
        model(x)
    state.close()

    frozen = Parts()
    model, state, _ = start(frozen, EF21, ddp={"find_unused_parameters": True})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(4):
        if step == 2:
            frozen.a.requires_grad_(False)
            before = frozen.a.weight.detach().clone()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert torch.equal(frozen.a.weight, before)
    state.close()
    return found


def test_parameters_that_ddp_averages_itself_unfrozen_and_frozen_later(tmp_path):
    first, second = run_ranks(_left_out, 2, tmp_path)
    assert all(map(torch.equal, first, second))
    assert all(bool(g.any()) for g in first)


def _averaged(rank):
    """What optimisers of a model inside DDP, or of ranks with the same batch, say at the first step."""
    found = {}
    for kind in ("alone", "views", "copies", "same batch", "zeros"):
        model = network()
        if kind in ("views", "copies"):
            model = wrapped(model, gradient_as_bucket_view=kind == "views")
        optimizer = laconic.optim.CompressedAdamW(model.parameters(), 0.01, timeout_s=30)
        loss = loss_of(model, 0, 0 if kind == "same batch" else rank)
        (loss * (0.0 if kind == "zeros" else 1.0)).backward()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                optimizer.step()
                optimizer.step()
                found[kind] = [str(w.message) for w in caught]
            except RuntimeError as error:
                found[kind] = str(error)
        optimizer.close()
    return found


def test_an_optimiser_notices_gradients_that_are_averaged_already(tmp_path):
    for found in run_ranks(_averaged, 2, tmp_path):
        assert found["alone"] == found["zeros"] == []
        assert "bit for bit the same on every rank" in found["views"]
        assert "Give the optimiser the model itself, not put into DDP" in found["views"]
        for kind in ("copies", "same batch"):
            (message,) = found[kind]
            assert "Are they averaged already?" in message
