"""Local steps: the outer update, void rounds, resume, equal replicas, and what the wire carries."""

import copy
import math

import pytest
import torch
from comparing import same
from processes import run_ranks
from torch import nn

import laconic
from laconic.lab import train
from laconic.optim import CompressedSGD, LocalSteps
from laconic.wire import packed_size

TOP = laconic.EF14(laconic.TopK(0.1), decay=0.75)


def network(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24)).to(dtype)


def batch(step, rank=0):
    return torch.randn(8, 24, generator=torch.Generator().manual_seed(100 * step + rank))


def gradients(model, step, rank=0):
    model.zero_grad()
    x = batch(step, rank).to(next(model.parameters()).dtype)
    (model(x) - x.roll(1, -1)).square().mean().backward()


def steps(model, optimizer, numbers, rank=0):
    for step in numbers:
        gradients(model, step, rank)
        optimizer.step()


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def on_grid(shape, step):
    """Multiples of 1/16 whose sums with such parameters are exact in float32."""
    return torch.randint(-64, 65, shape, generator=torch.Generator().manual_seed(step)) / 16.0


@pytest.mark.parametrize("feedback", [laconic.EF14(laconic.TopK(0.1)), laconic.EF21(laconic.TopK(0.1))])
def test_one_local_step_of_sgd_is_compressed_sgd_where_differences_are_exact(feedback):
    one, two = (nn.Parameter(on_grid((32, 24), 99)) for _ in range(2))
    local = LocalSteps(torch.optim.SGD([one], 0.25), 1, feedback)
    each = CompressedSGD([two], 0.25, feedback)
    for step in range(8):
        for x, optimizer in ((one, local), (two, each)):
            x.grad = on_grid(x.shape, step)
            optimizer.step()
        assert torch.equal(one, two)
    local.close()
    each.close()


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, True)])
def test_the_outer_step_is_sgd_on_the_mean_difference(momentum, nesterov):
    model, twin = network(), network()
    optimizer = LocalSteps(torch.optim.AdamW(model.parameters(), 0.01), 3, TOP, 0.5, momentum, nesterov)
    inner = torch.optim.AdamW(twin.parameters(), 0.01)
    shapes = {str(i): p for i, p in enumerate(twin.parameters())}
    layout = laconic.Layout.of(shapes, bfloat16=[n for n, p in shapes.items() if p.dim() <= 1])
    sender, receiver = TOP.sender(layout), TOP.receiver(layout, 1)
    common = weights(twin)
    velocity = torch.zeros_like(common)
    for outer in range(4):
        steps(model, optimizer, range(3 * outer, 3 * outer + 3))
        steps(twin, inner, range(3 * outer, 3 * outer + 3))
        mean = receiver.receive([sender.send(common - weights(twin))])
        velocity = velocity * momentum + mean
        direction = mean + velocity * momentum if nesterov else velocity
        common = common - direction * 0.5
        nn.utils.vector_to_parameters(common.clone(), twin.parameters())
        assert torch.equal(weights(model), common)
        assert optimizer.local == 0
    optimizer.close()


def test_diloco_with_one_node_is_the_inner_optimizer_and_an_outer_sgd():
    model, twin = network(), network()
    optimizer = LocalSteps.diloco(torch.optim.SGD(model.parameters(), 0.1), 2)
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov) == (0.7, 0.9, True)
    inner = torch.optim.SGD(twin.parameters(), 0.1)
    common = nn.Parameter(weights(twin))
    outer = torch.optim.SGD([common], 0.7, momentum=0.9, nesterov=True)
    for number in range(3):
        steps(model, optimizer, (2 * number, 2 * number + 1))
        steps(twin, inner, (2 * number, 2 * number + 1))
        common.grad = common.detach() - weights(twin)
        outer.step()
        nn.utils.vector_to_parameters(common.detach().clone(), twin.parameters())
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-6)
    optimizer.close()


@pytest.mark.parametrize("at", [2, 3, 4])
def test_resume_is_bit_exact_also_between_outer_steps(at):
    def make(model):
        inner = torch.optim.AdamW(model.named_parameters(), 0.01)
        density = {0: None, 1: 0.2, 3: 0.05}
        return LocalSteps(inner, 3, TOP, 0.5, 0.9, True, density=density)

    model = network()
    optimizer = make(model)
    steps(model, optimizer, range(at))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    steps(model, optimizer, range(at, 14))
    other = network(seed=1)
    resumed = make(other)
    kept = copy.deepcopy(saved[1])
    resumed.load_state_dict(saved[1])
    other.load_state_dict(saved[0])
    steps(other, resumed, range(at, 14))
    assert torch.equal(weights(model), weights(other))
    assert same(optimizer.state_dict(), resumed.state_dict())
    assert same(saved[1], kept)
    optimizer.close()
    resumed.close()


def remembered(optimizer):
    """What the outer step remembers: memories, common parameters and momentum, counts."""
    state = optimizer.state_dict()
    kept = [{k: own["rank0"][k] for k in OUTER} for own in state["state"].values()]
    return kept, [group["exchange"] for group in state["param_groups"]]


OUTER = ("memory", "common_parameter", "outer_momentum")


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_void_round_goes_back_to_the_common_parameters(poison):
    model = network()
    optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.1, momentum=0.5), 2, TOP, 1.0, 0.9)
    steps(model, optimizer, range(4))
    before, state = weights(model), copy.deepcopy(remembered(optimizer))
    steps(model, optimizer, [4])
    with torch.no_grad():
        model[0].weight[1, 1] = poison
    model.zero_grad()
    optimizer.step()
    assert optimizer.skipped == 1
    assert torch.equal(weights(model), before)
    assert same(remembered(optimizer), state)
    optimizer.close()


def _ranks(rank, folder):
    model = network(seed=rank)
    make = lambda m: LocalSteps.sparse_loco(torch.optim.AdamW(m.parameters(), 0.01), 2, timeout_s=60)  # noqa: E731
    optimizer = make(model)
    found = []
    for step in range(8):
        gradients(model, step, rank)
        if step == 5 and rank == 1:
            model[0].weight.grad.fill_(math.inf)
        if step == 2 and rank == 1:
            model[2].weight.grad = None
        optimizer.step()
        found.append(weights(model))
        if step == 2:
            torch.save((model.state_dict(), optimizer.state_dict()), folder / f"rank{rank}.pt")
    skipped = optimizer.skipped
    optimizer.close()
    model = network(seed=7)
    optimizer = make(model)
    saved = torch.load(folder / f"rank{rank}.pt", weights_only=True)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    steps(model, optimizer, [3], rank)
    optimizer.check_replicas()
    optimizer.close()
    return found, skipped, weights(model)


def test_replicas_are_equal_after_outer_steps_and_resume_on_every_rank(tmp_path):
    (one, skipped, resumed), (two, _, again) = run_ranks(_ranks, 2, tmp_path, tmp_path)
    equal = [torch.equal(a, b) for a, b in zip(one, two, strict=True)]
    assert equal == [False, True, False, True, False, True, False, True]
    # Rank 1 left out its step with infinite gradients alone; the round stood.
    assert not torch.equal(one[5], one[3])
    assert skipped == 0
    assert torch.equal(resumed, one[3])
    assert torch.equal(again, one[3])


def _gather(rank, folder):
    """Train, gather in the middle of local steps, and go on; then the same from rank 0's file."""
    make = lambda m: LocalSteps(  # noqa: E731
        torch.optim.AdamW(m.named_parameters(), 0.01), 2, TOP, 0.5, 0.9, check_replicas_every=1, timeout_s=60
    )
    model = network()
    optimizer = make(model)
    steps(model, optimizer, range(5), rank)
    state = optimizer.state_dict(gather=True)
    optimizer.consolidate_state_dict()
    assert same(optimizer.state_dict(), state)
    if rank == 0:
        torch.save(state, folder / "all.pt")
    own = copy.deepcopy(model.state_dict())
    steps(model, optimizer, range(5, 8), rank)
    straight = weights(model)
    other = network(seed=1)
    resumed = make(other)
    resumed.load_state_dict(torch.load(folder / "all.pt", weights_only=True))
    other.load_state_dict(own)
    steps(other, resumed, range(5, 8), rank)
    optimizer.close()
    resumed.close()
    return straight, weights(other)


def _resync(rank, folder):
    """A file of two ranks on three: memories anew, moments of some rank, common parameters kept."""
    model = network(seed=2)
    inner = torch.optim.AdamW(model.named_parameters(), 0.01)
    optimizer = LocalSteps(inner, 2, TOP, 0.5, 0.9, timeout_s=60)
    saved = torch.load(folder / "all.pt", weights_only=True)
    try:
        optimizer.load_state_dict(saved)
    except ValueError as error:
        refusal = str(error)
    optimizer.load_state_dict(saved, on_mismatch="resync")
    assert optimizer.local == 1
    common, momentum = (
        {number: next(iter(by_rank.values()))[key] for number, by_rank in saved["state"].items()}
        for key in OUTER[1:]
    )
    state = optimizer.state_dict()["state"]
    for number, by_rank in state.items():
        own = by_rank[f"rank{rank}"]
        assert same(own["common_parameter"], common[number])
        assert same(own["outer_momentum"], momentum[number])
        assert not own["memory"]["sender"]["residual"].any()
        assert own["exp_avg_sq"].any()
    steps(model, optimizer, [0], rank)
    optimizer.check_replicas()
    optimizer.close()
    return refusal


def test_states_are_gathered_and_resume_or_start_new_memories(tmp_path):
    for straight, resumed in run_ranks(_gather, 2, tmp_path, tmp_path):
        assert torch.equal(straight, resumed)
    for refusal in run_ranks(_resync, 3, tmp_path, tmp_path):
        assert "size 2" in refusal


def _drift(rank):
    model = network()
    optimizer = LocalSteps(
        torch.optim.SGD(model.parameters(), 0.1), 2, TOP, check_replicas_every=2, timeout_s=60
    )
    steps(model, optimizer, range(3), rank)
    if rank == 1:
        optimizer._common.parameters["0"] += 1
    try:
        steps(model, optimizer, [3], rank)
    except laconic.comm.RanksDifferError as error:
        return str(error)
    finally:
        optimizer.close()
    return None


def test_replicas_are_compared_after_outer_steps(tmp_path):
    for found in run_ranks(_drift, 2, tmp_path):
        assert "'0' is the first parameter that differs, on rank 1" in found


def test_bytes_that_are_held():
    model = nn.Linear(128, 128, bias=False)
    optimizer = LocalSteps(torch.optim.AdamW(model.parameters(), 0.01), 1, TOP, 0.5, 0.9)
    model(torch.ones(1, 128)).sum().backward()
    optimizer.step()
    held = optimizer.stats().bytes_per_parameter
    assert held["state"] == pytest.approx(8, abs=0.01)
    assert held["memory"] == 12
    assert 4 < held["scratch"] < 5
    optimizer.close()


def test_what_sparse_loco_sends_of_a_kept_number():
    x = nn.Parameter(torch.zeros(1024, 1024))
    optimizer = LocalSteps.sparse_loco(torch.optim.SGD([x], 1.0), 1)
    method, layout = optimizer.session.exchange.feedback, laconic.Layout.flat(x.numel())
    message = method.sender(layout).send(torch.randn(x.numel(), generator=torch.Generator().manual_seed(0)))
    expected = method.format(layout, torch.float32, 0)
    kept = x.numel() / 64
    # 2 bits of value and, where positions are uniform as here, 7.43 of entropy.
    assert 8 * packed_size(message, expect=expected.adapted()) / kept <= 9.7
    assert 8 * packed_size(message, expect=expected) / kept <= 10.1
    optimizer.close()


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_skips_an_inner_step_which_still_counts(unscale, fused):
    model, twin = network(), network()
    inner = [torch.optim.AdamW(m.parameters(), 0.01, fused=fused) for m in (model, twin)]
    one, two = (LocalSteps(each, 2, TOP) for each in inner)
    scaler = torch.amp.GradScaler(device="cpu", init_scale=2.0**10, growth_interval=100)
    for step in range(6):
        gradients(model, step)
        for p in model.parameters():
            p.grad *= scaler.scale(torch.ones(()))
        if step == 3:
            model[0].bias.grad[0] = math.inf
        if unscale:
            scaler.unscale_(one)
        scaler.step(one)
        scaler.update()
        gradients(twin, step)
        if step == 3:
            twin.zero_grad()  # an inner step without gradients does nothing
        two.step()
    assert scaler.get_scale() == 2.0**9
    assert one.stats().steps == 3
    assert torch.equal(weights(model), weights(twin))
    one.close()
    two.close()


def test_schedulers_count_inner_steps():
    model = network()
    optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.4), 2, TOP)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for step in range(3):
        steps(model, optimizer, [step])
        scheduler.step()
    assert optimizer.inner.param_groups[0]["lr"] == 0.05
    optimizer.close()


def test_a_scheduler_reaches_an_inner_optimiser_that_has_loaded_a_state():
    model = network()
    inner = torch.optim.AdamW(model.parameters(), 0.1)
    optimizer = LocalSteps(inner, 4, TOP)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    steps(model, optimizer, [0])
    inner.load_state_dict(inner.state_dict())
    scheduler.step()
    assert inner.param_groups[0]["lr"] == 0.05
    assert optimizer.param_groups is inner.param_groups
    assert optimizer.state is inner.state
    optimizer.close()
    del optimizer, scheduler
    inner.load_state_dict(inner.state_dict())


def test_what_it_cannot_do_is_refused():
    def make(inner=None, every=2, **settings):
        return LocalSteps(inner or torch.optim.SGD(network().parameters(), 0.1), every, TOP, **settings)

    with pytest.raises(TypeError, match=r"torch\.bfloat16.*autocast"):
        make(torch.optim.SGD(network(dtype=torch.bfloat16).parameters(), 0.1))
    sgd = CompressedSGD(network().parameters(), 0.1)
    with pytest.raises(TypeError, match="CompressedSGD exchanges every step itself"):
        make(sgd)
    sgd.close()
    for wrong, message in (
        ({"every": 0}, "every must be"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"momentum": 1.0}, "momentum must lie"),
        ({"nesterov": True}, "nesterov needs"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**wrong)
    optimizer = make()
    with pytest.raises(RuntimeError, match="all groups when"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="no 'local' steps"):
        optimizer.load_state_dict(torch.optim.SGD(network().parameters(), 0.1).state_dict())
    with pytest.raises(ValueError, match="train it on real ranks"):
        train(network(), optimizer, nodes=2, steps=1, data=lambda *_: None, loss=lambda *_: 0.0)
    with pytest.raises(RuntimeError, match="make a new one"):
        copy.deepcopy(optimizer).step()
    optimizer.local = 1
    with pytest.raises(RuntimeError, match="equal after outer steps"):
        optimizer.check_replicas()
    optimizer.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_gradients_that_are_not_finite_are_left_out(dtype):
    weight = torch.nn.Parameter(torch.zeros(40, 30, dtype=dtype))
    other = torch.nn.Parameter(torch.zeros(7, dtype=dtype))
    optimizer = laconic.optim.LocalSteps(torch.optim.SGD([weight, other], lr=1.0), every=100)
    # Squares of these do not fit into the gradient's own dtype; a transposed gradient is read as it lies.
    for value, steps in [(1e30, True), (math.inf, False), (-math.inf, False), (math.nan, False)]:
        with torch.no_grad():
            weight.zero_()
        weight.grad = torch.zeros(30, 40, dtype=dtype).t()
        weight.grad[3, 5] = value
        other.grad = torch.ones(7, dtype=dtype)
        optimizer.step()
        assert bool((weight != 0).any()) == steps
    optimizer.close()


def test_a_parameter_frozen_within_a_round_goes_back_to_the_common_one():
    model = network()
    optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.1), 4, TOP)
    steps(model, optimizer, range(4))
    common = copy.deepcopy(model[0].weight.detach())
    steps(model, optimizer, range(4, 6))
    assert not torch.equal(model[0].weight, common)
    model[0].requires_grad_(False)
    steps(model, optimizer, range(6, 12))
    assert torch.equal(model[0].weight, common)
    model[0].requires_grad_(True)
    steps(model, optimizer, range(12, 16))
    assert not torch.equal(model[0].weight, common)
    optimizer.close()


def _frozen_on_two_ranks(rank):
    model = network()
    optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.1), 4, TOP, timeout_s=30)
    steps(model, optimizer, range(2), rank)
    model[0].requires_grad_(False)
    steps(model, optimizer, range(2, 8), rank)
    optimizer.check_replicas()
    optimizer.close()
    return weights(model)


def test_replicas_are_equal_where_a_parameter_is_frozen_within_a_round(tmp_path):
    first, second = run_ranks(_frozen_on_two_ranks, 2, tmp_path)
    assert torch.equal(first, second)


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("how", ["unfrozen", "added"])
def test_parameters_that_nobody_agreed_on_are_refused(how, closure):
    model = network()
    if how == "unfrozen":
        model[2].requires_grad_(False)
        optimizer = LocalSteps(torch.optim.SGD(model.parameters(), 0.1), 2, TOP)
        model[2].requires_grad_(True)
    else:
        optimizer = LocalSteps(torch.optim.SGD(model[0].parameters(), 0.1), 2, TOP)
        optimizer.inner.add_param_group({"params": list(model[2].parameters())})

    def loss():
        gradients(model, 0)
        return 0.0

    if not closure:
        loss()
    with pytest.raises(RuntimeError, match="when the ranks agreed on the parameters"):
        optimizer.step(loss if closure else None)
    optimizer.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_parameter_with_a_gradient_is_no_obstacle(dtype):
    model, empty = network(dtype=dtype), nn.Parameter(torch.zeros(0, 3, dtype=dtype))
    optimizer = LocalSteps(torch.optim.SGD([*model.parameters(), empty], 0.1), 1, TOP)
    before = weights(model)
    gradients(model, 0)
    empty.grad = torch.zeros_like(empty)
    optimizer.step()
    assert optimizer.stats().steps == 1
    assert not torch.equal(weights(model), before)
    optimizer.close()


def test_a_sparse_gradient_is_named():
    table = nn.Embedding(100, 16, sparse=True)
    optimizer = LocalSteps(torch.optim.SGD(table.parameters(), 0.1), 1, TOP)
    table(torch.arange(5)).sum().backward()
    with pytest.raises(TypeError, match="sparse=False"):
        optimizer.step()
    optimizer.close()
