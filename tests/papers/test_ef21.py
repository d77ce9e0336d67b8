"""The experiments of EF21 without data, each verdict evaluated at a small size; and what they are made of."""

import numpy as np
import pytest
import torch

import laconic
from laconic.papers import EXPERIMENTS, DataMissingError, Settings
from laconic.papers import _ef21_counterexample as counterexample
from laconic.papers import _ef21_markov as markov
from laconic.papers import _ef21_noise as noise
from laconic.papers import _ef21_rates as rates
from laconic.papers._figures import thinned
from laconic.papers._fits import factor, floor, half_lives, power
from laconic.papers._follow import follow
from laconic.papers._slope import Slope
from laconic.papers._tight_rate import worst_step

QUICK = Settings(quick=True)
OF_EF21 = [each for each in EXPERIMENTS.values() if each.name.startswith("ef21-")]
RUNS = {
    "markov": lambda: markov.report(QUICK, 700),
    "rates": lambda: rates.report(QUICK, rounds=1500, pl_rounds=1000, states=40000),
    "counterexample": lambda: counterexample.report(QUICK, stepsizes=(0.03, 0.01), runs=4, relaxations=20.0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "counterexample")) for name in RUNS]
)
def test_every_verdict_agrees(name, tmp_path):
    report = RUNS[name]()
    assert len(report.verdicts) >= 3
    for verdict in report.verdicts:
        assert verdict.outcome == "agrees", verdict
    assert {len(row) for row in report.rows} == {len(report.columns)}
    report.figure.savefig(tmp_path / "figure.png", dpi=40)


def test_the_experiments_are_listed_and_say_what_they_are():
    assert len(OF_EF21) == 7
    assert all(name == each.name for name, each in EXPERIMENTS.items())
    for each in OF_EF21:
        assert each.paper.startswith("Richtárik")
        assert each.shows.endswith(".")


@pytest.mark.parametrize("experiment", [each for each in OF_EF21 if each.needs], ids=lambda each: each.name)
def test_without_data_an_experiment_says_what_is_missing(experiment, tmp_path):
    for data in (None, tmp_path):
        with pytest.raises(DataMissingError, match=experiment.needs[0]):
            experiment.run(Settings(quick=True, data=data))


# What the experiments are made of


def test_the_slope_has_the_gradients_and_the_smoothness_that_it_says():
    centres = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 4)))
    problem = Slope(centres, q=0.5)
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    for point in x:
        for i in range(3):

            def f(p, i=i):
                return (1 + ((p - centres[i]) ** 2).sum()) ** (-0.25)

            expected = torch.autograd.functional.jacobian(f, point)
            torch.testing.assert_close(problem.node_gradient(i, point), expected)
            curvature = torch.autograd.functional.hessian(f, point)
            assert torch.linalg.eigvalsh(curvature).abs().max() <= problem.L
    torch.testing.assert_close(problem.gradient(x), problem.gradients(x).mean(dim=-2))
    at = torch.autograd.functional.hessian(lambda p: (1 + (p**2).sum()) ** (-0.25), torch.zeros(4).double())
    torch.testing.assert_close(torch.linalg.eigvalsh(at), torch.full((4,), -0.5, dtype=torch.float64))


def test_a_followed_run_is_the_lab_s_run():
    problem = laconic.lab.Quadratic.random(nodes=3, d=6, seed=4)
    x0 = torch.linspace(-1, 1, 6, dtype=torch.float64)
    run = laconic.lab.run(problem, laconic.EF21(laconic.TopK(1)), rounds=30, stop=0.0, x0=x0, stepsize=0.05)
    followed = follow(problem, laconic.EF21(laconic.TopK(1)), 0.05, 30, x0)
    np.testing.assert_allclose(followed.norm2, run.grad_norm2[0], rtol=1e-9)
    assert followed.G[0] == 0
    assert (followed.G[1:] > 0).all()


def test_fits_find_what_was_put_in():
    T = np.arange(1.0, 2001.0)
    assert power(7 * T**-0.8) == pytest.approx(-0.8)
    assert factor(3 * 0.99**T) == pytest.approx(0.99)
    first, last = half_lives(2.0 ** (-T / 50))
    assert (first, last) == (pytest.approx(50), pytest.approx(50))
    assert half_lives(np.ones(400))[1] == np.inf


def test_small_helpers():
    assert floor(np.array([9.0, 9.0, 9.0, 1.0, np.nan])) == 1.0
    even = thinned(5000, 100)
    assert (even[0], even[-1], len(even)) == (0, 4999, 100)
    assert set(np.diff(even)) == {50, 51}
    assert thinned(7).tolist() == thinned(7, log=True).tolist() == list(range(7))
    at = thinned(5000, 100, log=True)
    assert (at[0], at[-1]) == (0, 4999)
    assert len(at) <= 101
    assert (np.diff(at) > 0).all()


def test_the_half_mask_is_linear_and_contracts_as_it_declares():
    mask = counterexample.HalfMask()
    x, y = torch.randn(2, 50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def sent(z):
        return mask.compress(z).dense()

    torch.testing.assert_close(sent(2 * x + y), 2 * sent(x) + sent(y))
    bound = (1 - 1 / mask.constants(7).delta) * (x**2).sum(dim=-1)
    assert (((sent(x) - x) ** 2).sum(dim=-1) <= bound).all()
    # Attained where everything is sent at half its size.
    tight = torch.tensor([0.0, 1.0, 0.0, -2.0], dtype=torch.float64)
    assert float(((sent(tight) - tight) ** 2).sum() / (tight**2).sum()) == pytest.approx(1 / 4)


def test_the_ideal_level_by_enumeration():
    """The three values of the noise, their Top-1 written out: mean and variance as in the formula."""
    values = noise._NOISE.numpy()
    assert values.mean(axis=0) == pytest.approx(0)
    assert (values**2).sum(axis=1).mean() == pytest.approx(noise.SIGMA2)
    kept = np.array([[values[0, 0], 0], [0, values[1, 1]], [values[2, 0], 0]])
    bias = (kept.mean(axis=0) ** 2).sum()
    spread = (kept**2).sum(axis=1).mean() - bias
    for stepsize, nodes in ((0.1, 1), (0.01, 10)):
        exact = bias + stepsize / (2 - stepsize) * spread / nodes
        assert noise.ideal_level(stepsize, nodes) == pytest.approx(exact)


def test_worst_steps_are_ratios_of_real_steps():
    """No step exceeds the tight factor at its stepsize, and some do at another."""
    stepsize, bound = laconic.theory.tight_rate(10.0, 1.0, 0.5)
    assert max(worst_step(10.0, stepsize, 5000).values()) <= bound * (1 + 1e-9)
    assert max(worst_step(10.0, 2 * stepsize, 5000).values()) > bound
