"""Runs: batched against node by node, stopping, bits, and the papers' findings on real data."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import laconic
from laconic.lab import (
    LogisticRegression,
    Quadratic,
    Result,
    SequentialSimulation,
    Simulation,
    _recorder,
    base_stepsize,
    compare,
    run,
)
from laconic.theory import ef21_pl_stepsize, ef21_stepsize

METHODS = {
    "gd": laconic.DCGD(laconic.Identity()),
    "dcgd": laconic.DCGD(laconic.TopK(2)),
    "dcgd random": laconic.DCGD(laconic.RandK(2)),
    "ef14": laconic.EF14(laconic.TopK(2)),
    "ef14 random": laconic.EF14(laconic.RandK(3).contractive()),
    "ef21": laconic.EF21(laconic.TopK(1)),
    "ef21 compressed": laconic.EF21(laconic.TopK(1), init="compressed"),
    "ef21 natural": laconic.EF21(laconic.TopK(2) >> laconic.NaturalCompression()),
    "ef21+": laconic.EF21Plus(laconic.TopK(1)),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(1), eta=0.3),
}


@pytest.fixture(scope="module")
def problem() -> LogisticRegression:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((60, 8)) * (rng.random((60, 8)) < 0.6)
    return LogisticRegression.from_arrays(features, rng.integers(0, 2, 60), nodes=5)


@pytest.mark.parametrize("name", METHODS)
def test_batched_equals_node_by_node(problem, name):
    arguments = {"multiples": (1, 8), "rounds": 40, "stop": 0.0, "seeds": (0, 5)}
    batched = run(problem, METHODS[name], **arguments)
    exact = run(problem, METHODS[name], **arguments, exact=True)
    np.testing.assert_allclose(batched.x, exact.x, rtol=1e-12)
    np.testing.assert_allclose(batched.grad_norm2, exact.grad_norm2, rtol=1e-11, atol=1e-22)
    for kind in ("wire", "values", "entropy"):
        np.testing.assert_array_equal(batched.bits(kind), exact.bits(kind))


@pytest.mark.parametrize("name", METHODS)
def test_one_round_from_the_same_state(problem, name):
    """From the middle of a run, not only from the start: the sequential form takes over the batch's state."""
    feedback = METHODS[name]
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(problem.d))
    batch = Simulation(
        problem, feedback, x[None], torch.tensor([0.4], dtype=torch.float64), torch.tensor([2])
    )
    for _ in range(7):
        batch.advance(problem.gradients(batch.x))
    single = SequentialSimulation(problem, feedback, batch.x[0].clone(), 0.4, 2)
    state = batch.sender.state_dict()
    for i, sender in enumerate(single.senders):
        sender.load_state_dict({k: v[0, i] if isinstance(v, torch.Tensor) else v for k, v in state.items()})
    state = batch.receiver.state_dict()
    single.receiver.load_state_dict({k: v[0] if isinstance(v, torch.Tensor) else v for k, v in state.items()})
    batch.advance(problem.gradients(batch.x))
    single.advance(single.gradients())
    torch.testing.assert_close(batch.x[0], single.x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_run_does_not_depend_on_its_companions(problem, name):
    together = run(problem, METHODS[name], multiples=(1, 4, 16), rounds=60, stop=1e-3, seeds=(0, 1))
    alone = run(problem, METHODS[name], multiples=(4,), rounds=60, stop=1e-3, seeds=(1,))
    np.testing.assert_array_equal(together.grad_norm2[1, 1], alone.grad_norm2[0])
    np.testing.assert_array_equal(together.x[1, 1], alone.x[0])


@pytest.mark.parametrize("exact", [False, True])
def test_long_runs_do_not_depend_on_companions_and_threads(exact):
    rng = np.random.default_rng(0)
    rows = scipy.sparse.random_array((40, 40_000), density=0.01, rng=rng, format="csr")
    long = LogisticRegression.from_arrays(rows, rng.integers(0, 2, 40), nodes=20)
    arguments = {"rounds": 5, "stop": 0.0, "stepsize": 1.0, "exact": exact}
    before, alone = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            alone.append(run(long, METHODS["ef21"], multiples=(4,), **arguments))
        together = run(long, METHODS["ef21"], multiples=(1, 4, 16), **arguments)
    finally:
        torch.set_num_threads(before)
    for other in alone:
        np.testing.assert_array_equal(together.grad_norm2[1], other.grad_norm2[0])
        np.testing.assert_array_equal(together.x[1], other.x[0])


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_batched_starts_are_separate_runs(problem, name, exact):
    starts = torch.from_numpy(np.random.default_rng(2).standard_normal((3, problem.d)))
    arguments = {"multiples": (1, 8), "rounds": 30, "stop": 1e-3, "exact": exact}
    together = run(problem, METHODS[name], **arguments, seeds=(4, 4, 1), x0=starts)
    for i, (seed, start) in enumerate(zip(together.seeds, starts, strict=True)):
        alone = run(problem, METHODS[name], **arguments, seeds=(seed,), x0=start)
        np.testing.assert_array_equal(together.grad_norm2[i], alone.grad_norm2)
        np.testing.assert_array_equal(together.x[i], alone.x)
        np.testing.assert_array_equal(together.ends[i], alone.ends)
        for key, bits in together.sent.items():
            np.testing.assert_array_equal(bits[i], alone.sent[key])
    assert not np.array_equal(together.x[0], together.x[1])


def test_matches_a_plain_loop():
    """EF21's pseudocode in NumPy, written out, gives the same course."""
    problem = Quadratic.random(nodes=3, d=6, seed=4)
    x0 = torch.linspace(-1, 1, 6, dtype=torch.float64)
    result = run(problem, laconic.EF21(laconic.TopK(1)), multiples=(2,), rounds=50, stop=0.0, x0=x0)
    stepsize = 2 * ef21_pl_stepsize(1 / 6, problem.L, problem.L_tilde, problem.mu)
    x = x0.numpy()
    h = problem.gradients(x0).numpy().copy()
    for t in range(50):
        gradients = problem.gradients(torch.from_numpy(x)).numpy()
        assert result.grad_norm2[0, t] == pytest.approx((gradients.mean(axis=0) ** 2).sum(), rel=1e-12)
        if t > 0:
            for i in range(3):
                difference = gradients[i] - h[i]
                j = np.abs(difference).argmax()
                h[i, j] += difference[j]
        x = x - stepsize * h.mean(axis=0)
    np.testing.assert_allclose(result.x[0], x, rtol=1e-12)


def test_stopping_and_ends():
    problem = Quadratic.example1()
    result = run(
        problem, laconic.EF21(laconic.TopK(1)), multiples=(1, 4, 1e6), rounds=300, stop=1e-4, seeds=(0,)
    )
    assert list(result.ends) == ["rounds", "tolerance", "diverged"]
    for i, end in enumerate(result.ends):
        norms, n = result.grad_norm2[i], result.rounds[i]
        assert not np.isnan(norms[: n + 1]).any()
        assert np.isnan(norms[n + 1 :]).all()
        assert (norms[:n] > 1e-4).all()
        assert (norms[n] <= 1e-4) == (end == "tolerance")
    assert result.final[2] == np.inf
    assert result.best() == 1
    # The iterate that is returned is the one whose norm is the last.
    norm2 = float((problem.gradient(torch.from_numpy(result.x[1])) ** 2).sum())
    assert norm2 == pytest.approx(result.final[1], rel=1e-12)


def test_best_prefers_the_tolerance_then_fewest_rounds_then_the_lowest_end():
    problem = Quadratic.example1()
    arguments = {"rounds": 200, "stop": 1e-4}
    assert run(problem, laconic.DCGD(laconic.Identity()), multiples=(0.5, 1, 1.2), **arguments).best() == 2
    assert run(problem, laconic.DCGD(laconic.TopK(1)), multiples=(2, 1), **arguments).best() == 1


def made_up(norms, ends, seeds=(0,)) -> Result:
    norms = np.array(norms, dtype=float)
    return Result(
        "m", (1.0, 2.0, 4.0), seeds, 1.0, norms, np.array(ends), np.zeros((*norms.shape[:-1], 2)), {}
    )


NAN = float("nan")
COURSES = [
    # Reached the tolerance: fewer rounds win, whatever the last norm.
    ([[3, 2, 1, NAN], [3, 2, 1.5, NAN], [3, 0.9, NAN, NAN]], ["tolerance", "tolerance", "tolerance"], 2),
    # One that reached it beats a lower end that did not.
    ([[3, 0.1, 0.01, 0.001], [3, 2, 1, 1], [3, 2, 1, NAN]], ["rounds", "rounds", "tolerance"], 2),
    # None did: the lowest end, however many rounds; a diverged run is never better than one that stalled.
    ([[3, 2, 1, 0.5], [3, 2, 1, 0.4], [3, NAN, NAN, NAN]], ["rounds", "rounds", "diverged"], 1),
]


@pytest.mark.parametrize(("norms", "ends", "best"), COURSES)
def test_best(norms, ends, best):
    assert made_up(norms, ends).best() == best
    # Of several seeds the first decides.
    other = COURSES[0]
    assert made_up([norms, other[0]], [ends, other[1]], seeds=(0, 1)).best() == best


def test_exact_walks_on_one_thread(problem):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    try:
        run(
            problem,
            METHODS["gd"],
            rounds=2,
            exact=True,
            on_round=lambda *_: seen.append(torch.get_num_threads()),
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}


def test_bits_are_those_of_the_messages(problem):
    d, rounds = problem.d, 6
    dense = laconic.Identity().compress(torch.zeros(d, dtype=torch.float64))
    sparse = laconic.TopK(2).compress(torch.ones(d, dtype=torch.float64))
    result = run(problem, laconic.EF21(laconic.TopK(2)), rounds=rounds, stop=0.0)
    steps = np.arange(rounds)
    for kind in ("wire", "entropy"):
        first, later = int(dense.bits(kind)), int(sparse.bits(kind))
        np.testing.assert_array_equal(result.bits(kind)[0], [0, *(first + later * steps)])
        np.testing.assert_array_equal(result.bits(kind, "down")[0], first * np.arange(rounds + 1))
    # The papers do not count the first, dense round.
    np.testing.assert_array_equal(result.bits("values")[0], [0, *(64 * steps)])
    plus = run(problem, laconic.EF21Plus(laconic.TopK(2)), rounds=rounds, stop=0.0)
    extra = plus.bits("entropy")[0] - result.bits("entropy")[0]
    np.testing.assert_array_equal(extra, np.arange(rounds + 1))
    with pytest.raises(ValueError, match="no bits of kind 'byte'"):
        result.bits("byte")


def test_base_stepsize(problem):
    assert base_stepsize(problem, METHODS["gd"]) == pytest.approx(1 / problem.L)
    same = ef21_stepsize(2 / 8, problem.L, problem.L_tilde)
    for feedback in (METHODS["dcgd"], METHODS["dcgd random"], METHODS["ef14"]):
        assert base_stepsize(problem, feedback) == pytest.approx(same)
    quadratic = Quadratic.random(nodes=3, d=8, seed=1)
    pl = ef21_pl_stepsize(2 / 8, quadratic.L, quadratic.L_tilde, quadratic.mu)
    assert base_stepsize(quadratic, METHODS["ef14"]) == pytest.approx(pl)
    assert run(problem, METHODS["ef21"], rounds=1, stepsize=0.25).base_stepsize == 0.25


def test_step_and_progress(problem):
    seen = []
    run(
        problem,
        METHODS["ef21"],
        multiples=(1, 2),
        rounds=3,
        stop=0.0,
        step=lambda x, direction: (x - direction).clamp(-0.5, 0.5),
        on_round=lambda t, norms: seen.append((t, norms.shape)),
    )
    assert seen == [(t, (2,)) for t in range(4)]
    clipped = run(problem, METHODS["gd"], rounds=3, stop=0.0, step=lambda x, g: (x - g).clamp(-0.5, 0.5))
    assert np.abs(clipped.x).max() <= 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiples": ()}, "multiples must be positive"),
        ({"multiples": (1, -1)}, "multiples must be positive"),
        ({"seeds": ()}, "at least one seed"),
        ({"rounds": 0}, "rounds must be an int of at least 1"),
        ({"rounds": 1.5}, "rounds must be an int, got 1.5"),
        ({"rounds": True}, "rounds must be an int, got True"),
        ({"seeds": (0.5,)}, "seed must be an int, got 0.5"),
        ({"seeds": (2**70,)}, "seeds of 64 bits"),
        ({"stop": float("nan")}, "tolerance must be at least 0"),
        ({"stepsize": -1.0}, "stepsize must be positive"),
        ({"x0": torch.full((8,), torch.nan)}, "start at a finite point"),
        ({"x0": torch.zeros(3)}, r"x0 must have the shape \(8,\)"),
        ({"x0": torch.zeros(3, 8), "seeds": (0, 1)}, r"or \(2, 8\) for a start of each seed; got \(3, 8\)"),
    ],
)
def test_settings_that_make_no_sense(problem, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(problem, METHODS["ef21"], **arguments)


def test_integers_of_numpy_and_pytorch_are_integers(problem):
    plain = run(problem, METHODS["dcgd random"], rounds=3, seeds=(5,))
    other = run(problem, METHODS["dcgd random"], rounds=np.int64(3), seeds=torch.tensor([5]))
    np.testing.assert_array_equal(plain.x, other.x)
    assert compare(problem, ["gd"], laconic.TopK(1), rounds=np.int32(3), seed=np.int64(0)).results


DATA = os.environ.get("LACONIC_DATA")
needs_data = pytest.mark.skipif(
    DATA is None,
    reason="LACONIC_DATA is not set; it names a folder with libsvm/phishing.txt and libsvm/a9a.txt",
)


def real(name: str) -> LogisticRegression:
    assert DATA is not None
    return LogisticRegression.from_libsvm(Path(DATA) / "libsvm" / f"{name}.txt", nodes=20, regularizer=0.1)


@needs_data
@pytest.mark.parametrize(("name", "rounds"), [("phishing", 600), ("a9a", 4000)])
def test_ef21_converges_at_sixteen_times_its_stepsize(name, rounds):
    """EF21 paper, Figure 1; init is the gradient, as in the authors' code."""
    result = run(real(name), laconic.EF21(laconic.TopK(1)), multiples=(16,), rounds=rounds, stop=1e-7)
    assert list(result.ends) == ["tolerance"]


@needs_data
@pytest.mark.parametrize("name", ["phishing", "a9a"])
def test_ef14_stalls_at_floors_that_rise_with_the_stepsize(name):
    result = run(real(name), laconic.EF14(laconic.TopK(1)), multiples=(16, 64, 256), rounds=4000, stop=1e-7)
    assert list(result.ends) == ["rounds"] * 3
    # A floor: the best of the last quarter is no lower than a third of the best of the quarter before.
    quarters = result.grad_norm2[:, 1:].reshape(3, 4, 1000).min(axis=-1)
    assert (quarters[:, 3] > quarters[:, 2] / 3).all()
    floors = np.median(result.grad_norm2[:, -1000:], axis=-1)
    assert 3 * floors[0] < floors[1]
    assert 3 * floors[1] < floors[2]


@needs_data
def test_ef21_plus_converges_on_phishing_at_256_times():
    result = run(
        real("phishing"), laconic.EF21Plus(laconic.TopK(1)), multiples=(256,), rounds=1000, stop=1e-7
    )
    assert list(result.ends) == ["tolerance"]


@needs_data
def test_poster_bits_on_phishing():
    """Figure 2: EF21, k = 1, 16 times: 12.8 kbit a node, read off to 10 %; x0 is unseeded there."""
    result = run(real("phishing"), laconic.EF21(laconic.TopK(1)), multiples=(16,), rounds=600, stop=1e-7)
    assert result.bits("values")[0, result.rounds[0]] == pytest.approx(12_800, rel=0.25)


def test_rounds_that_the_memory_cannot_hold(monkeypatch):
    monkeypatch.setattr(_recorder, "_memory", lambda: 8 * 2 * 10 * 101)
    problem, method = Quadratic.example1(), laconic.EF21(laconic.TopK(1))
    result = run(problem, method, multiples=(1, 4), rounds=100, stop=0.0)
    held = result.grad_norm2.nbytes + sum(bits.nbytes for bits in result.sent.values())
    assert held == 8 * 2 * 7 * 101  # and three arrays of the recorder
    with pytest.raises(ValueError, match=r"rounds must be at most 100: .*; pass rounds=100 or fewer"):
        run(problem, method, multiples=(1, 4), rounds=101)
    with pytest.raises(ValueError, match=r"rounds must be at most 58:"):
        compare(problem, ["gd", "ef21"], laconic.TopK(1), multiples=(1, 4), rounds=59)
