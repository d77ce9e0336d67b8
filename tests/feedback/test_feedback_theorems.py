"""What the papers prove of the methods, and the counterexamples to doing without them."""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from courses import memory_of
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import CONTRACTIVE_COMPRESSORS

import laconic
from laconic import theory
from laconic.lab import Quadratic
from laconic.messages import Message, Part

TOP = laconic.TopK(1)


def steps(method, problem, x, stepsize, rounds):
    """x^0, x^1, ... of a method with the stepsize where it belongs, and the sender after each round."""
    sender = method.sender(problem.d, node=torch.arange(problem.nodes))
    receiver = method.receiver(problem.d, problem.nodes)
    for t in range(rounds):
        yield x, sender
        eta = stepsize(t) if callable(stepsize) else stepsize
        gradients = problem.gradients(x)
        if method.estimates == "step":
            x = x - receiver.receive(sender.send(gradients, stepsize=eta))
        else:
            x = x - eta * receiver.receive(sender.send(gradients))
    yield x, sender


def iterates(*args):
    return torch.stack([x for x, _ in steps(*args)])


def some_quadratic(nodes=4, d=10):
    problem = Quadratic.random(nodes, d, mu=0.1, L=1.0, seed=3)
    return problem, torch.linspace(-1, 2, d, dtype=torch.float64)


def far(a, b):
    """The largest difference of two runs, relative to their size."""
    return float((a - b).abs().amax() / b.abs().amax())


# Methods that are the same


@dataclass(frozen=True)
class Mask(laconic.Compressor):
    """Always the same coordinates: deterministic, homogeneous and additive."""

    kept: tuple[int, ...]

    def encode(self, x, draw):
        positions = torch.tensor(self.kept).expand(*x.shape[:-1], -1)
        part = Part(d=x.shape[-1], values=x.gather(-1, positions), dtype=x.dtype, positions=positions)
        return Message((part,))

    def constants(self, d):
        # Not true outside the mask; but the theorem asks for linearity only, and the methods want a delta.
        return laconic.Constants(delta=d / len(self.kept))


@dataclass(frozen=True)
class Weights(laconic.Compressor):
    """Each coordinate times its weight in (0, 1]: linear, and contractive."""

    weights: tuple[float, ...]

    def encode(self, x, draw):
        weights = torch.tensor(self.weights, dtype=x.dtype)
        return Message((Part(d=x.shape[-1], values=x * weights, dtype=x.dtype),))

    def constants(self, d):
        return laconic.Constants(delta=1 / (1 - (1 - min(self.weights)) ** 2))


LINEAR = [Mask((0, 3, 4, 8)), Weights((1.0, 0.3, 0.7, 0.2, 0.9) * 2)]


@pytest.mark.parametrize("compressor", LINEAR, ids=lambda c: type(c).__name__)
def test_ef14_is_ef21_for_a_linear_compressor(compressor):
    problem, x0 = some_quadratic()
    ef14 = iterates(laconic.EF14(compressor), problem, x0, 0.4, 200)
    ef21 = iterates(laconic.EF21(compressor, init="compressed"), problem, x0, 0.4, 200)
    assert far(ef14, ef21) < 1e-13
    # And they did something.
    assert far(ef21[0], ef21[-1]) > 0.1


def test_ef14_is_not_ef21_for_top_k():
    problem, x0 = some_quadratic()
    ef14 = iterates(laconic.EF14(TOP), problem, x0, 0.1, 50)
    assert far(ef14, iterates(laconic.EF21(TOP, init="compressed"), problem, x0, 0.1, 50)) > 1e-3


@pytest.mark.parametrize(
    "make", [laconic.DCGD, laconic.EF14, laconic.EF21, laconic.EF21Plus], ids=lambda make: make.__name__
)
def test_without_compression_every_method_is_gradient_descent(make):
    problem, x0 = some_quadratic()
    x, plain = x0, [x0]
    for _ in range(200):
        x = x - 0.5 * problem.gradient(x)
        plain.append(x)
    assert far(iterates(make(laconic.Identity()), problem, x0, 0.5, 200), torch.stack(plain)) < 1e-13


# Algorithm 1


@pytest.mark.parametrize(
    "compressor", [TOP, laconic.TopK(3) >> laconic.NaturalCompression(), laconic.ScaledSign()], ids=repr
)
def test_the_virtual_iterate_of_algorithm_1_takes_plain_steps(compressor):
    problem, x0 = some_quadratic()

    def stepsize(t):
        return 0.2 / (1 + t / 10)

    virtual, gradients = [], []
    for x, sender in steps(laconic.EF14(compressor), problem, x0, stepsize, 100):
        e = memory_of(sender.state_dict())
        virtual.append(x if e is None else x - e.mean(0))
        gradients.append(problem.gradient(x))
    for t, (before, after) in enumerate(pairwise(virtual)):
        assert (after - (before - stepsize(t) * gradients[t])).abs().amax() < 1e-14


def test_without_a_stepsize_ef14_remembers_gradients():
    problem, x0 = some_quadratic()
    inside, outside = (laconic.EF14(TOP).sender(problem.d) for _ in range(2))
    for t in range(20):
        g = problem.gradient(x0 * math.cos(t))
        one, two = inside.send(g, stepsize=0.25), outside.send(g)
        # A quarter is exact, and Top-k does not mind it.
        assert torch.equal(one.dense(), 0.25 * two.dense())
        assert torch.equal(inside.state_dict()["residual"], 0.25 * outside.state_dict()["residual"])


def test_the_memory_of_algorithm_1_holds_old_stepsizes():
    sender = laconic.EF14(TOP).sender(2)
    sender.send(torch.tensor([3.0, 2.0]), stepsize=0.5)
    assert torch.equal(sender.state_dict()["residual"], torch.tensor([0.0, 1.0]))
    message = sender.send(torch.tensor([3.0, 2.0]), stepsize=0.25)
    assert torch.equal(message.dense(), torch.tensor([0.0, 1.5]))


# Why feedback is needed: the counterexamples of "On Biased Compression"


@pytest.mark.parametrize("eta", [1e-4, 0.01, 0.1, 1.0])
def test_example_1_drives_top_1_away(eta):
    x = iterates(laconic.DCGD(TOP), Quadratic.example1(), torch.full((3,), -2.0).double(), eta, 50)
    for before, after in pairwise(x):
        assert torch.allclose(after, (1 + 11 * eta / 6) * before, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("d", "d1"), [(3, 1), (5, 1), (5, 2), (7, 3)])
def test_example_2_drives_top_k_away_by_the_corrected_factor(d, d1):
    eta, d2 = 0.01, d - d1
    b = d2 + d2 / d1
    x = iterates(laconic.DCGD(laconic.TopK(d1)), Quadratic.example2(d, d1), torch.ones(d).double(), eta, 30)
    growth = x[1:] / x[:-1] - 1
    right, printed = eta * (2 * b - 1) * d1 / d, eta * (2 * b - 1) * d1 / (d2 + 1)
    assert torch.allclose(growth, torch.full_like(growth, right), rtol=1e-11, atol=0)
    # The paper's denominator is d2 + 1, which is d for d1 = 1 only.
    assert (abs(printed / right - 1) > 0.1) == (d1 > 1)


def test_example_3_holds_top_1_where_it_starts():
    problem = Quadratic.example3()
    start = torch.zeros(2, dtype=torch.float64)
    assert iterates(laconic.DCGD(TOP), problem, start, 0.1, 100).count_nonzero() == 0
    x = iterates(laconic.EF21(TOP), problem, start, 0.1, 1000)
    assert torch.allclose(x[-1], problem.minimizer(), atol=1e-12)


both_ef21 = pytest.mark.parametrize("make", [laconic.EF21, laconic.EF21Plus], ids=lambda make: make.__name__)


@both_ef21
def test_ef21_converges_on_example_1_within_the_bound_of_theorem_2(make):
    method, problem, mu = make(TOP), Quadratic.example1(), 7 / 6
    gamma = theory.stepsize(method, d=3, L=problem.L, L_tilde=problem.L_tilde, mu=mu)
    start = torch.ones(3, dtype=torch.float64)
    bound, last = None, None
    for x, sender in steps(method, problem, start, gamma, 9000):
        if last is not None:
            # The memories follow the gradients at the iterate before: Psi is of that round.
            h = memory_of(sender.state_dict())
            error = float(((h - problem.gradients(last)) ** 2).sum(-1).mean())
            psi = theory.ef21_pl_lyapunov(1 / 3, gamma, float(problem.loss(last)), error)
            bound = psi if bound is None else bound * theory.ef21_pl_factor(gamma, mu)
            assert psi <= bound * (1 + 1e-9)
        if float((problem.gradient(x) ** 2).sum()) < 1e-20:
            break
        last = x
    else:
        pytest.fail("no convergence")
    assert diverges(TOP, problem, gamma)


@both_ef21
@pytest.mark.parametrize(("d", "d1"), [(3, 1), (5, 2)])
def test_ef21_converges_on_example_2(d, d1, make):
    # At eight times its stepsize, as in the papers' experiments; 2000 rounds are too few at one.
    method, problem = make(laconic.TopK(d1)), Quadratic.example2(d, d1)
    gamma = 8 * theory.stepsize(method, d=d, L=problem.L, L_tilde=problem.L_tilde)
    x = iterates(method, problem, torch.ones(d, dtype=torch.float64), gamma, 1300)
    assert float((problem.gradient(x[-1]) ** 2).sum()) < 1e-20
    assert diverges(method.compressor, problem, gamma)


def diverges(compressor, problem, stepsize):
    x = iterates(laconic.DCGD(compressor), problem, torch.ones(problem.d, dtype=torch.float64), stepsize, 100)
    return bool((x[-1] > 1.1).all())


def test_ef14_converges_on_example_1():
    # All nodes have the same minimiser, so that Theorem 21 gives a linear rate (C = D = 0).
    x = iterates(laconic.EF14(TOP), Quadratic.example1(), torch.ones(3, dtype=torch.float64), 0.01, 3000)
    assert x[-1].abs().amax() < 1e-12


def test_two_nodes_by_hand():
    # f_i(x) = |x - a_i|^2 / 2, a = (4, 0) and (0, 3).
    problem = Quadratic(torch.eye(2).expand(2, 2, 2), torch.tensor([[4.0, 0.0], [0.0, 3.0]]))
    x = iterates(laconic.EF21(TOP, init="compressed"), problem, torch.zeros(2, dtype=torch.float64), 0.1, 3)
    assert torch.allclose(
        x, torch.tensor([[0, 0], [0.2, 0.15], [0.38, 0.30], [0.56, 0.42]]).double(), atol=1e-15
    )


# Noise


def noise_floor(method, nodes, stepsizes, rounds=1000, seeds=6):
    """The mean of |grad f|^2 over the second half of a run on |x|^2 / 2 with skew noise, for each stepsize.

    The noise is the counterexample of "Momentum Provably Improves Error Feedback!": three equally likely
    vectors of mean 0, of which Top-1 keeps something with another mean. Its variance is 1.
    """
    generator = torch.Generator().manual_seed(0)
    atoms = math.sqrt(0.3) * torch.tensor([[2.0, 0.0], [0.0, 1.0], [-2.0, -1.0]], dtype=torch.float64)
    drawn = torch.randint(3, (rounds, seeds, nodes), generator=generator)
    gamma = torch.tensor(stepsizes, dtype=torch.float64)[:, None, None]
    x = torch.tensor([0.0, -1.0], dtype=torch.float64).expand(len(stepsizes), seeds, 2)
    sender, receiver = method.sender(2, node=torch.arange(nodes)), method.receiver(2, nodes)
    total = torch.zeros(len(stepsizes), dtype=torch.float64)
    inside = method.estimates == "step"
    for t in range(rounds):
        gradients = x.unsqueeze(-2) + atoms[drawn[t]]
        message = sender.send(gradients, stepsize=gamma.unsqueeze(-1) if inside else None)
        estimate = receiver.receive(message)
        x = x - (estimate if inside else gamma * estimate)
        if t >= rounds // 2:
            total += (x**2).sum(-1).mean(-1)
    return (total / (rounds - rounds // 2)).tolist()


def test_momentum_lowers_the_noise_floor_of_ef21():
    large, small = 0.1, 0.02
    # With many nodes only the bias is left, and EF21's neither falls with the stepsize nor with the nodes.
    plain = noise_floor(laconic.EF21(TOP), 256, (large, small))
    assert plain[1] > 0.7 * plain[0]
    assert plain[1] > 1e-3
    eta = {eta: noise_floor(laconic.EF21SGDM(TOP, eta=eta), 256, (large, small)) for eta in (0.3, 0.1, 0.03)}
    # It falls with eta ...
    assert eta[0.03][1] < 0.4 * eta[0.1][1] < 0.4 * 0.4 * eta[0.3][1]
    assert eta[0.03][1] < 0.1 * plain[1]
    # ... with the stepsize, and with the nodes.
    assert eta[0.03][1] < 0.5 * eta[0.03][0]
    few = noise_floor(laconic.EF21SGDM(TOP, eta=0.03), 4, (large, small))
    assert eta[0.03][0] < few[0] / 16
    # EF14's falls with all of them by itself.
    ef14 = noise_floor(laconic.EF14(TOP), 256, (large, small))
    assert ef14[1] < 0.5 * ef14[0] < 0.5 * noise_floor(laconic.EF14(TOP), 4, (large, small))[0] / 16


# For any gradients

NORMAL = [p for p in CONTRACTIVE_COMPRESSORS if "Cast" not in p.id]
vectors = st.lists(st.lists(st.floats(-100, 100), min_size=10, max_size=10), min_size=2, max_size=5)
"""Gradients (rounds, 10)."""


@pytest.mark.parametrize("compressor", [p for p in NORMAL if not p.values[0].random])
@settings(max_examples=15)
@given(vectors)
def test_an_error_contracts_while_the_gradient_stays(compressor, gradients):
    alpha = compressor.constants(10).contraction
    for make in (laconic.EF21, laconic.EF21Plus):
        sender = make(compressor).sender(10)
        for row in gradients:
            g = torch.tensor(row, dtype=torch.float64)
            for _ in range(2):
                before = memory_of(sender.state_dict())
                sender.send(g)
                after = memory_of(sender.state_dict())
                if before is not None:
                    was, now = (float(((h - g) ** 2).sum()) for h in (before, after))
                    assert now <= (1 - alpha) * was * (1 + 1e-13) + 1e-22


@pytest.mark.parametrize("compressor", NORMAL)
@settings(max_examples=10)
@given(vectors)
def test_nothing_is_lost_by_ef14(compressor, gradients):
    sender = laconic.EF14(compressor).sender(10, seed=3)
    g = torch.tensor(gradients, dtype=torch.float64)
    sent = sum(sender.send(row).dense() for row in g)
    left = sender.state_dict()["residual"]
    # Errors of rounding are relative to the largest number on the way, which a poor compressor lets grow.
    largest = max(1.0, float(left.abs().amax()), float(sent.abs().amax()))
    assert (sent + left - g.sum(0)).abs().amax() <= 1e-13 * largest
