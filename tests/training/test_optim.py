"""The compressed optimisers on one node: equal to a plain loop, ordinary optimisers in every other way."""

import copy
import dataclasses
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from comparing import same
from states import segments_of
from torch import nn

import laconic
from laconic.layout import Layout
from laconic.optim import CompressedAdamW, CompressedSGD
from laconic.optim._buckets import ParameterBucket
from laconic.optim._momentum import kept_share
from laconic.session import vectors_and_small

TOP = laconic.TopK(0.1)


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24)).to(dtype)


def batch(step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 24, generator=generator).to(dtype)


def loss_of(model, x):
    return (model(x) - x.roll(1, -1)).square().mean()


def train(model, optimizer, steps, start=0):
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(model, batch(step, next(model.parameters()).dtype)).backward()
        optimizer.step()


def canonical_norm(gradients):
    """The norm of all gradients together, summed as documented."""
    return math.sqrt(sum(float(laconic.kernels.squared_norm(g.reshape(-1))) for g in gradients))


def square_root(x):
    """Correctly rounded, as PyTorch's of float32 is not."""
    return torch.from_numpy(np.sqrt(x.numpy()))


def reference(
    model, steps, feedback, *, lr, beta2=0.999, beta1=0.0, eps=1e-8, clip=0.5, decay=0.01, exact=False
):
    """CompressedAdamW as one would write it down, with the feedback's own sender and receiver."""
    parameters = dict(model.named_parameters())
    exempt = [name for name, p in parameters.items() if p.dim() <= 1 or p.numel() < 512]
    layout = Layout.of(parameters, exact=exempt if exact else (), bfloat16=() if exact else exempt)
    sender, receiver = feedback.sender(layout), feedback.receiver(layout, 1)
    inside = feedback.estimates == "step"
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for step in range(steps):
        model.zero_grad()
        loss_of(model, batch(step)).backward()
        gradients = {name: p.grad for name, p in parameters.items()}
        if clip is not None:
            factor = min(1.0, clip / canonical_norm(gradients.values()))
            gradients = {name: g * factor for name, g in gradients.items()}
        updates = []
        for name, g in gradients.items():
            first[name] = first[name] * beta1 + g * (1 - beta1)
            second[name] = second[name] * beta2 + g * g * (1 - beta2)
            m = first[name] / (1 - beta1 ** (step + 1)) if beta1 > 0 else g
            u = m / (square_root(second[name] / (1 - beta2 ** (step + 1))) + eps)
            updates.append((u * lr if inside else u).reshape(-1))
        estimate = receiver.receive([sender.send(torch.cat(updates))])
        if not inside:
            estimate = estimate * lr
        with torch.no_grad():
            for segment, p in zip(layout.segments, parameters.values(), strict=True):
                p.copy_(p * (1 - lr * decay) - estimate[segment.offset : segment.end].view_as(p))


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize(
    ("feedback", "betas", "clip", "decay"),
    [
        (laconic.EF14(TOP), (0.0, 0.999), 0.5, 0.01),
        (laconic.EF14(TOP >> laconic.ScaledSign()), (0.0, 0.99), None, 0.0),
        (laconic.EF14(TOP >> laconic.ScaledSign(), residual=torch.bfloat16), (0.0, 0.99), 0.5, 0.01),
        (laconic.EF14(TOP >> laconic.Cast(torch.bfloat16)), (0.5, 0.999), 0.1, 0.1),
        (laconic.EF21(TOP), (0.0, 0.999), 0.5, 0.01),
        (laconic.DCGD(laconic.Identity()), (0.9, 0.999), None, 0.01),
    ],
)
def test_adamw_equals_the_plain_loop_bit_for_bit(feedback, betas, clip, decay):
    model, twin = network(), network()
    exact = clip is None
    settings = {"lr": 0.01, "clip": clip, "exact": exact}
    optimizer = CompressedAdamW(
        model.parameters(), feedback=feedback, betas=betas, weight_decay=decay, **settings
    )
    train(model, optimizer, 12)
    reference(twin, 12, feedback, beta1=betas[0], beta2=betas[1], decay=decay, **settings)
    assert torch.equal(weights(model), weights(twin))
    optimizer.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: CompressedAdamW(p, 0.01),
        lambda p: CompressedAdamW(p, 0.01, laconic.EF21(TOP), betas=(0.5, 0.9), clip=None),
        lambda p: CompressedSGD(p, 0.1, laconic.EF14(TOP), momentum=0.9, weight_decay=0.1),
        lambda p: CompressedSGD(p, 0.1, laconic.EF21(TOP)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_whole_buckets_and_single_parameters_take_the_same_step(make, dtype, monkeypatch):
    def one_by_one(*arguments, of=ParameterBucket.of):
        return dataclasses.replace(of(*arguments), compiled=False)

    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(ParameterBucket, "of", one_by_one)
        model = network(dtype=dtype)
        optimizer = make(model.parameters())
        before = laconic.kernels.kernel_counts().get("cpu:optimizer", 0)
        train(model, optimizer, 4)
        assert (laconic.kernels.kernel_counts().get("cpu:optimizer", 0) > before) == compiled
        found.append((weights(model).clone(), copy.deepcopy(optimizer.state_dict()["state"])))
        optimizer.close()
    assert same(found[0], found[1])


def test_uncompressed_adamw_is_torch_adamw():
    model, twin = network(), network()
    identity = laconic.DCGD(laconic.Identity())
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    mine = CompressedAdamW(model.parameters(), feedback=identity, clip=None, exact=True, **settings)
    theirs = torch.optim.AdamW(twin.parameters(), **settings)
    train(model, mine, 20)
    train(twin, theirs, 20)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-4, atol=1e-6)
    mine.close()


@pytest.mark.parametrize("make", [laconic.DCGD, laconic.EF14, laconic.EF21])
def test_weight_decay_is_that_of_torch_adamw(make):
    """The decay alone bit for bit; with gradients to rounding, for torch divides in another order."""
    for zeros in (True, False):
        model, twin = network(), network()

        def groups(of):
            return [
                {"params": list(of[0].parameters()), "weight_decay": 0.3},
                {"params": list(of[2].parameters()), "weight_decay": 0.0, "lr": 0.05},
            ]

        settings = {"lr": 0.02, "betas": (0.0, 0.99), "weight_decay": 0.1}
        mine = CompressedAdamW(
            groups(model), feedback=make(laconic.Identity()), clip=None, exact=True, **settings
        )
        theirs = torch.optim.AdamW(groups(twin), **settings)
        for step in range(20):
            for net, optimizer in ((model, mine), (twin, theirs)):
                for group in optimizer.param_groups:
                    group["lr"] *= 0.9
                optimizer.zero_grad()
                if zeros:
                    for p in net.parameters():
                        p.grad = torch.zeros_like(p)
                else:
                    (net(batch(step)) - 1).square().mean().backward()
                optimizer.step()
        mine.close()
        if zeros:
            assert torch.equal(weights(model), weights(twin))
            assert not torch.equal(weights(model), weights(network()))
        else:
            torch.testing.assert_close(weights(model), weights(twin), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_uncompressed_sgd_is_torch_sgd(momentum):
    model, twin = network(), network()
    mine = CompressedSGD(
        model.parameters(), 0.1, laconic.DCGD(laconic.Identity()), momentum=momentum, exact=True
    )
    theirs = torch.optim.SGD(twin.parameters(), 0.1, momentum=momentum)
    train(model, mine, 20)
    train(twin, theirs, 20)
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-4, atol=1e-6)
    mine.close()


def test_sgd_is_algorithm_1_with_the_stepsize_inside():
    x = nn.Parameter(torch.tensor([3.0, -2.0, 1.0, 0.5]))
    optimizer = CompressedSGD([x], 0.5, laconic.EF14(laconic.TopK(1)), exempt=lambda name, p: False)
    y, e = x.detach().clone(), torch.zeros(4)
    for step in range(10):
        optimizer.param_groups[0]["lr"] = lr = 0.5 / (step + 1)
        x.grad = x.detach() * torch.tensor([1.0, 2.0, 3.0, 4.0])
        optimizer.step()
        e = e + lr * (y * torch.tensor([1.0, 2.0, 3.0, 4.0]))
        sent = laconic.TopK(1).compress(e).dense()
        e, y = e - sent, y - sent
        assert torch.equal(x.detach(), y)
    optimizer.close()


def test_sgd_weight_decay_and_clip():
    x = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = CompressedSGD(
        [x], 0.5, laconic.DCGD(laconic.Identity()), weight_decay=0.5, clip=1.0, exact=True
    )
    x.grad = x.detach().clone()
    optimizer.step()
    torch.testing.assert_close(
        x.detach(), torch.tensor([[3.0, 4.0]]) * 0.75 - 0.5 * torch.tensor([[0.6, 0.8]])
    )
    optimizer.close()


def test_small_and_one_dimensional_parameters_travel_whole():
    model = network()
    feedback = laconic.DCGD(laconic.TopK(1))
    before = copy.deepcopy(model)
    optimizer = CompressedSGD(model.parameters(), 1.0, feedback)
    train(model, optimizer, 1)
    changed = [int((a != b).sum()) for a, b in zip(model.parameters(), before.parameters(), strict=True)]
    assert changed == [1, 32, 1, 24]
    optimizer.close()
    assert [vectors_and_small("", torch.zeros(s)) for s in ((2000,), (), (8, 8), (32, 16))] == [
        True,
        True,
        True,
        False,
    ]


def test_exempt_is_asked_by_name():
    model = network()
    asked = []
    optimizer = CompressedSGD(
        model.named_parameters(), 1.0, exempt=lambda name, p: asked.append(name) or name == "2.weight"
    )
    assert asked == ["0.weight", "0.bias", "2.weight", "2.bias"]
    before = model[2].weight.detach().clone()
    train(model, optimizer, 1)
    assert bool((model[2].weight != before).all())
    assert list(segments_of(optimizer.session.exchange.state_dict())) == asked
    optimizer.close()


def test_names_lose_what_wrappers_put_before_them():
    model = network()
    wrapped = [(f"_orig_mod.{name}", p) for name, p in model.named_parameters()]
    optimizer = CompressedSGD(wrapped, 1.0)
    train(model, optimizer, 1)
    assert "0.weight" in segments_of(optimizer.session.exchange.state_dict())
    optimizer.close()


@pytest.mark.parametrize("kind", ["adamw", "sgd", "sgd momentum", "ef21", "bfloat16"])
def test_resume_is_bit_exact(kind):
    def make(model):
        if kind == "adamw":
            return CompressedAdamW(model.parameters(), 0.01, laconic.EF14(TOP), betas=(0.5, 0.99))
        if kind == "ef21":
            return CompressedAdamW(model.parameters(), 0.01, laconic.EF21(TOP))
        if kind == "bfloat16":
            return CompressedAdamW(model.parameters(), 0.01, laconic.EF14(TOP, residual=torch.bfloat16))
        return CompressedSGD(model.parameters(), 0.1, laconic.EF14(TOP), 0.9 if "momentum" in kind else 0.0)

    model = network()
    optimizer = make(model)
    train(model, optimizer, 5)
    saved, parameters = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, 5, start=5)
    other = network(seed=1)
    resumed = make(other)
    other.load_state_dict(parameters)
    resumed.load_state_dict(saved)
    train(other, resumed, 5, start=5)
    assert torch.equal(weights(model), weights(other))
    optimizer.close()
    resumed.close()


def test_a_loaded_state_is_not_shared_with_the_callers_dict():
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    train(model, optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    train(model, optimizer, 2)
    assert same(saved, kept)
    optimizer.close()


@pytest.mark.parametrize("poison", [math.inf, math.nan])
@pytest.mark.parametrize(
    "make",
    [
        CompressedAdamW,
        CompressedSGD,
        partial(CompressedAdamW, feedback=laconic.EF14(TOP, residual=torch.bfloat16)),
    ],
)
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("warm", [0, 3])
def test_a_step_that_is_not_finite_is_void(poison, make, clip, warm):
    model = network()
    optimizer = make(model.parameters(), lr=0.01, clip=clip)
    train(model, optimizer, warm)
    before, state = weights(model).clone(), copy.deepcopy(optimizer.state_dict())
    optimizer.zero_grad()
    loss_of(model, batch(0)).backward()
    model[2].bias.grad[3] = poison
    optimizer.step()
    assert torch.equal(weights(model), before)
    after = optimizer.state_dict()
    assert same(after["state"], state["state"])
    assert optimizer.skipped == 1
    twin = network()
    other = make(twin.parameters(), lr=0.01, clip=clip)
    train(twin, other, warm)
    for model_, optimizer_ in ((model, optimizer), (twin, other)):
        train(model_, optimizer_, 3, start=5)
    assert torch.equal(weights(model), weights(twin))
    optimizer.close()
    other.close()


def test_a_square_that_overflows_makes_the_step_void():
    x = nn.Parameter(torch.ones(600, 1))
    optimizer = CompressedAdamW([x], 0.01, clip=None)
    x.grad = torch.full((600, 1), 1e30)
    optimizer.step()
    assert optimizer.skipped == 1
    assert torch.equal(x.detach(), torch.ones(600, 1))
    assert float(optimizer.state[x]["exp_avg_sq"].sum()) == 0.0
    optimizer.close()


def test_a_missing_gradient_counts_as_zeros():
    model, twin = network(), network()
    optimizers = [CompressedAdamW(m.parameters(), 0.01, laconic.EF14(TOP)) for m in (model, twin)]
    train(model, optimizers[0], 2)
    train(twin, optimizers[1], 2)
    for m, fill in ((model, None), (twin, 0.0)):
        m.zero_grad()
        loss_of(m, batch(9)).backward()
        m[0].weight.grad = None if fill is None else torch.zeros_like(m[0].weight)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.close()
    assert torch.equal(weights(model), weights(twin))


def test_frozen_parameters_stay_and_must_stay_frozen():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.detach().clone()
    optimizer = CompressedAdamW(model.parameters(), 0.01, weight_decay=0.5)
    train(model, optimizer, 2)
    assert torch.equal(model[0].weight, before)
    model[0].requires_grad_(True)
    with pytest.raises(RuntimeError, match="was frozen, or not yet part of the model"):
        train(model, optimizer, 1)
    optimizer.close()


def test_groups_have_their_own_settings():
    model, twin = network(), network()

    def groups(m):
        return [{"params": list(m[0].parameters()), "lr": 0.0}, {"params": list(m[2].parameters())}]

    optimizer = CompressedAdamW(groups(model), lr=0.01, weight_decay=0.5)
    train(model, optimizer, 3)
    assert torch.equal(model[0].weight, twin[0].weight)
    assert not torch.equal(model[2].weight, twin[2].weight)
    optimizer.close()


def test_groups_with_one_clip_share_the_norm():
    def moved(clips, group_clip):
        x, y = (nn.Parameter(torch.zeros(2, 1)) for _ in range(2))
        groups = [{"params": [x]}, {"params": [y], **group_clip}]
        optimizer = CompressedSGD(groups, 1.0, laconic.DCGD(laconic.Identity()), clip=clips, exact=True)
        x.grad, y.grad = torch.full((2, 1), 3.0), torch.full((2, 1), 4.0)
        optimizer.step()
        optimizer.close()
        return -x.detach()[0].item(), -y.detach()[0].item()

    together = math.sqrt(2 * 9 + 2 * 16)
    assert moved(1.0, {}) == pytest.approx((3 / together, 4 / together))
    assert moved(1.0, {"clip": 2.0}) == pytest.approx((1 / math.sqrt(2), math.sqrt(2)))
    assert moved(1.0, {"clip": None}) == pytest.approx((1 / math.sqrt(2), 4.0))


def test_schedulers_change_the_learning_rate():
    model, twin = network(), network()
    one = CompressedAdamW(model.parameters(), 0.01, laconic.EF14(TOP))
    two = CompressedAdamW(twin.parameters(), 0.01, laconic.EF14(TOP))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(one, T_max=8)
    for step in range(6):
        two.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / 8)) / 2
        assert one.param_groups[0]["lr"] == pytest.approx(two.param_groups[0]["lr"])
        one.param_groups[0]["lr"] = two.param_groups[0]["lr"]
        train(model, one, 1, start=step)
        train(twin, two, 1, start=step)
        scheduler.step()
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


def test_a_tensor_learning_rate():
    model, twin = network(), network()
    for m, lr in ((model, torch.tensor(0.25)), (twin, 0.25)):
        optimizer = CompressedSGD(m.parameters(), lr, laconic.EF14(TOP))
        train(m, optimizer, 2)
        optimizer.close()
    assert torch.equal(weights(model), weights(twin))


def test_the_closure_is_evaluated_with_gradients():
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    before = weights(model).clone()

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, batch(0))
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(loss_of(network(), batch(0)).item())
    assert not torch.equal(weights(model), before)
    optimizer.close()


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_changes_nothing_but_the_steps_that_overflow(unscale):
    model, twin = network(), network()
    one, two = (CompressedAdamW(m.parameters(), 0.01, laconic.EF14(TOP)) for m in (model, twin))
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(6):
        one.zero_grad()
        scaler.scale(loss_of(model, batch(step))).backward()
        if step == 3:
            model[0].bias.grad[0] = math.inf
        if unscale:
            scaler.unscale_(one)
        scaler.step(one)
        scaler.update()
        if step != 3:
            train(twin, two, 1, start=step)
    assert one.skipped == 1
    assert scaler.get_scale() == 2.0**10 * 2 / 2 * 2
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


def test_bfloat16_parameters_have_float32_moments_that_survive_a_checkpoint():
    model = network(dtype=torch.bfloat16)
    optimizer = CompressedAdamW(model.parameters(), 0.05, laconic.EF14(TOP))
    before = loss_of(model, batch(0, torch.bfloat16)).item()
    train(model, optimizer, 30)
    assert loss_of(model, batch(0, torch.bfloat16)).item() < before
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    assert {s["exp_avg_sq"].dtype for s in optimizer.state.values()} == {torch.float32}
    assert same(optimizer.state_dict(), saved)
    optimizer.close()


def test_float64_parameters_are_trained_in_float64():
    model = network(dtype=torch.float64)
    optimizer = CompressedAdamW(model.parameters(), 1e-9, laconic.DCGD(laconic.Identity()), weight_decay=0.0)
    before = weights(model).clone()
    train(model, optimizer, 1)
    # Adam's first step is lr in each coordinate; float32 sums would lose most of it.
    torch.testing.assert_close(
        (before - weights(model)).abs(), torch.full_like(before, 1e-9), rtol=1e-2, atol=0
    )
    optimizer.close()


def test_momentum_with_low_density_warns_once():
    sparse = laconic.EF14(laconic.TopK(0.01))
    with pytest.warns(UserWarning, match=r"beta_1 > 0 together with EF14.*set beta_1 to 0") as caught:
        optimizer = CompressedAdamW(network().parameters(), 0.01, sparse, betas=(0.9, 0.999))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    optimizer.close()
    model = network()
    with pytest.warns(UserWarning, match="set momentum to 0") as caught:
        optimizer = CompressedSGD(model.parameters(), 0.01, sparse, momentum=0.9)
    assert len(caught) == 1
    train(model, optimizer, 3)
    optimizer.close()


def test_momentum_without_feedback_or_with_high_density_does_not_warn():
    for feedback in (laconic.DCGD(laconic.TopK(0.01)), laconic.EF14(TOP), laconic.EF14(laconic.ScaledSign())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CompressedAdamW(network().parameters(), 0.01, feedback, betas=(0.9, 0.999)).close()


def test_density_counts_compressed_coordinates_only():
    layout = Layout.of({"a": (100,), "b": (300,), "c": (50,)}, exact=["c"])
    assert kept_share(laconic.TopK(10), layout) == 20 / 400
    assert kept_share(laconic.Identity(), layout) == 1.0
    assert kept_share(laconic.TopK(10), Layout.of({"c": (50,)}, exact=["c"])) == 1.0


MISTAKES = {
    "lr": ({"lr": -1.0}, ValueError, r"lr must lie in \[0, inf\), got -1"),
    "beta": ({"betas": (0.0, 1.0)}, ValueError, r"betas\[1\] must lie in \[0, 1\)"),
    "eps": ({"eps": 0.0}, ValueError, "eps must be positive"),
    "decay": ({"weight_decay": -0.1}, ValueError, "weight_decay must lie in"),
    "clip": ({"clip": 0.0}, ValueError, "clip must be positive"),
    "compressor": ({"feedback": laconic.EF14(laconic.RandK(3))}, ValueError, r"\.contractive\(\)"),
    "k": ({"feedback": laconic.EF14(laconic.TopK(5000))}, ValueError, "cannot keep k = 5000 of 768"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    settings, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        CompressedAdamW(network().parameters(), **{"lr": 0.01, **settings})


def test_parameters_that_cannot_be_trained_are_refused():
    with pytest.raises(TypeError, match="view_as_real"):
        CompressedAdamW([nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))], 0.01)
    with pytest.raises(ValueError, match="nothing to train"):
        CompressedSGD([nn.Parameter(torch.zeros(2), requires_grad=False)], 0.01)
    with pytest.raises(ValueError, match="momentum must lie in"):
        CompressedSGD(network().parameters(), 0.01, momentum=1.0)
    embedding = nn.Embedding(100, 8, sparse=True)
    optimizer = CompressedSGD(embedding.parameters(), 0.01)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(TypeError, match="sparse=False"):
        optimizer.step()
    optimizer.close()


def test_groups_are_refused_afterwards():
    optimizer = CompressedAdamW(network().parameters(), 0.01)
    with pytest.raises(RuntimeError, match="give all groups when the optimiser is made"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})
    optimizer.close()


def test_states_of_others_are_refused():
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    train(model, optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict())
    dense = torch.optim.AdamW(network().parameters()).state_dict()
    with pytest.raises(ValueError, match="the state was saved by another optimiser"):
        optimizer.load_state_dict(dense)
    other = CompressedAdamW(network().parameters(), 0.01, laconic.EF21(TOP))
    with pytest.raises(ValueError, match="method 'ef21'"):
        optimizer.load_state_dict(other.state_dict())
    assert same(optimizer.state_dict(), before)
    optimizer.close()
    other.close()


def test_stats_count_steps():
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.01)
    train(model, optimizer, 4)
    assert (optimizer.stats().steps, optimizer.stats().skipped) == (4, 0)
    optimizer.close()


@pytest.mark.parametrize("bucket_cap_mb", [25.0, 0.005])
@pytest.mark.parametrize("betas", [(0.0, 0.99), (0.9, 0.99)])
def test_a_parameter_that_was_frozen_for_long_begins_as_torch_adamws(betas, bucket_cap_mb):
    def parameters():
        torch.manual_seed(0)
        return [nn.Parameter(torch.randn(40, 40)) for _ in range(3)]

    def steps(numbers, frozen, found, optimizer):
        found[1].requires_grad_(not frozen)
        for number in numbers:
            for place, each in enumerate(found):
                generator = torch.Generator().manual_seed(100 * number + place)
                each.grad = torch.randn(40, 40, generator=generator) if each.requires_grad else None
            optimizer.step()

    one, two = parameters(), parameters()
    dense = torch.optim.AdamW(two, 0.01, betas, weight_decay=0.0)
    settings = {"weight_decay": 0.0, "clip": None, "exempt": lambda name, tensor: False}
    settings |= {"bucket_cap_mb": bucket_cap_mb}
    made = CompressedAdamW(one, 0.01, laconic.EF14(laconic.Identity()), betas, **settings)
    for numbers, frozen in ((range(100), True), (range(100, 103), False), (range(103, 106), True)):
        steps(numbers, frozen, one, made)
        steps(numbers, frozen, two, dense)
    # Counts that differ survive a checkpoint.
    twin = parameters()
    resumed = CompressedAdamW(twin, 0.01, laconic.EF14(laconic.Identity()), betas, **settings)
    resumed.load_state_dict(copy.deepcopy(made.state_dict()))
    for parameter, own in zip(twin, one, strict=True):
        parameter.data.copy_(own.data)
    for found, optimizer in ((one, made), (two, dense), (twin, resumed)):
        steps(range(106, 108), False, found, optimizer)
    for parameter, other, again in zip(one, two, twin, strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter, again)
    made.close()
    resumed.close()


def test_a_state_of_other_groups_is_refused_before_anything_changes():
    def make(cut):
        torch.manual_seed(0)
        found = [nn.Parameter(torch.randn(32, 32)) for _ in range(4)]
        groups = [{"params": found[:cut]}, {"params": found[cut:]}]
        return found, CompressedAdamW(groups, 0.01, laconic.EF14(laconic.TopK(0.1)))

    (one, saved), (_, other) = make(1), make(2)
    for _ in range(2):
        for parameter in one:
            parameter.grad = torch.randn_like(parameter)
        saved.step()
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"groups of \[1, 3\] parameters, this one of \[2, 2\]"):
        other.load_state_dict(saved.state_dict())
    assert same(other.state_dict(), before)
    saved.close()
    other.close()
