"""Running a method on a problem: all stepsize multiples and seeds in one batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from laconic.compressors import Identity
from laconic.feedback import Feedback
from laconic.lab._problem import Problem
from laconic.lab._result import Array, Direction, Result
from laconic.lab._simulation import ACCOUNTINGS, NodeByNode, Simulation, Step, plain_step
from laconic.messages import Message
from laconic.sizes import Accounting
from laconic.theory import ef21_pl_stepsize, ef21_stepsize

Runs = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
OnRound = Callable[[int, Tensor], None]
"""Called with a round number t and ``|grad f(x^t)|^2`` of the runs still going."""


def base_stepsize(problem: Problem, feedback: Feedback) -> float:
    """The stepsize that multiples multiply: EF21's theoretical one, whatever the method.

    As in the experiments of "EF21" (2021), all methods share one scale, so that a multiple means the same
    for each: with the contraction of the method's compressor, or of its ``contractive()`` form, Theorem 1's
    ``1 / (L + L_tilde sqrt(beta / theta))``; where the problem knows its mu, Theorem 2's
    ``min(1 / (L + L_tilde sqrt(2 beta / theta)), theta / (2 mu))``. For the identity and without mu it is
    1 / L.
    """
    constants = feedback.compressor.constants(problem.d)
    alpha = constants.contraction
    if alpha is None:
        alpha = feedback.compressor.contractive().constants(problem.d).contraction
    if alpha is None:
        raise ValueError(f"{feedback.compressor!r} declares no contraction; pass stepsize= to run()")
    if problem.mu is not None:
        return ef21_pl_stepsize(alpha, problem.L, problem.L_tilde, problem.mu)
    return ef21_stepsize(alpha, problem.L, problem.L_tilde)


def run(
    problem: Problem,
    feedback: Feedback,
    multiples: Sequence[float] = (1.0,),
    rounds: int = 1000,
    stop: float = 1e-7,
    x0: Tensor | None = None,
    seeds: Sequence[int] = (0,),
    step: Step | None = None,
    *,
    stepsize: float | None = None,
    exact: bool = False,
    on_round: OnRound | None = None,
) -> Result:
    """Run a method at several stepsizes and seeds, in float64.

    In round t each node sends a message of its gradient at x^t, and ``x^{t+1} = x^t - stepsize * estimate``.
    A run stops when ``|grad f|^2 <= stop``, or when it is no longer finite.

    Args:
        problem: what to minimise.
        feedback: the method.
        multiples: multiples of the base stepsize.
        rounds: the largest number of rounds.
        stop: tolerance on ``|grad f|^2``.
        x0: the start, (d,); by default standard normal, from NumPy's ``default_rng(0)``.
        seeds: seeds of the compressors' draws.
        step: how the iterate moves, from (x, stepsize * estimate); by default x minus that.
        stepsize: the base stepsize; by default :func:`base_stepsize`.
        exact: walk node by node on one thread, run after run, instead of in one batch.
        on_round: called after each round's gradients, for progress.

    Returns:
        The course of every run.

    Raises:
        ValueError: for settings that make no sense, or that the method refuses.

    Example:
        >>> import laconic
        >>> from laconic.lab import Quadratic, run
        >>> result = run(Quadratic.example1(), laconic.EF21(laconic.TopK(1)), multiples=(1, 4), rounds=2000)
        >>> result.ends
        array(['tolerance', 'tolerance'], dtype='<U9')
    """
    multiples, seeds = tuple(float(m) for m in multiples), tuple(int(s) for s in seeds)
    if not multiples or not all(np.isfinite(m) and m > 0 for m in multiples):
        raise ValueError(f"multiples must be positive numbers, got {multiples}")
    if not seeds or not all(-(2**63) <= seed < 2**63 for seed in seeds):
        raise ValueError(f"run() needs at least one seed, and seeds of 64 bits, got {seeds}")
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be an int of at least 1, got {rounds}")
    if not stop >= 0:
        raise ValueError(f"the tolerance must be at least 0, got {stop}")
    if stepsize is not None and not (np.isfinite(stepsize) and stepsize > 0):
        raise ValueError(f"the stepsize must be positive and finite, got {stepsize}")
    start = _start(problem, x0)
    base = base_stepsize(problem, feedback) if stepsize is None else stepsize
    record = _Record(len(seeds) * len(multiples), rounds, start, _down_bits(problem, start))
    move = plain_step if step is None else step
    walk = _walk_nodes if exact else _walk_batch
    walk(problem, feedback, [base * m for m in multiples], seeds, stop, move, record, on_round)
    shape = (len(seeds), len(multiples)) if len(seeds) > 1 else (len(multiples),)
    return record.result(feedback.name, multiples, seeds, base, shape)


def _start(problem: Problem, x0: Tensor | None) -> Tensor:
    if x0 is None:
        return torch.from_numpy(np.random.default_rng(0).standard_normal(problem.d))
    x0 = torch.as_tensor(x0)
    if x0.shape != (problem.d,):
        raise ValueError(f"x0 must have the shape ({problem.d},), got {tuple(x0.shape)}")
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("x0 holds NaN or infinity; start at a finite point")
    return x0.to(torch.float64)


def _down_bits(problem: Problem, start: Tensor) -> dict[Accounting, float]:
    message = Identity().compress(torch.zeros(problem.d, dtype=start.dtype))
    return {kind: float(message.bits(kind)) for kind in ACCOUNTINGS}


class _Record:
    """Norms, bits and last iterates of all runs, filled as they go."""

    def __init__(self, runs: int, rounds: int, start: Tensor, down: dict[Accounting, float]) -> None:
        self.norms = np.full((runs, rounds + 1), np.nan)
        self.up = {kind: np.full((runs, rounds + 1), np.nan) for kind in ACCOUNTINGS}
        for bits in self.up.values():
            bits[:, 0] = 0.0
        self.down = down
        self.ends = np.full(runs, "rounds", dtype="<U9")
        self.x = np.tile(start.numpy(), (runs, 1))

    @property
    def rounds(self) -> int:
        return self.norms.shape[1] - 1

    def norm(self, runs: Runs, t: int, norm2: Array, stop: float) -> Flags:
        """Write the norms of round t down; which of the runs go on."""
        finite = np.isfinite(norm2)
        reached = finite & (norm2 <= stop)
        self.norms[runs, t] = norm2
        self.ends[runs[reached]] = "tolerance"
        self.ends[runs[~finite]] = "diverged"
        # A run that went to infinity has nothing to show there but that it went.
        self.norms[runs[~finite], t] = np.nan
        return finite & ~reached

    def sent(self, runs: Runs, t: int, message: Message | list[Message], dense: bool) -> None:
        """Write down the bits of the messages that lead from x^t to x^(t+1), mean over nodes."""
        for kind, total in self.up.items():
            if dense and kind == "values":
                bits = np.zeros(1)
            elif isinstance(message, Message):
                bits = message.bits(kind).to(torch.float64).mean(dim=-1).numpy()
            else:
                bits = np.mean([float(m.bits(kind)) for m in message], keepdims=True)
            total[runs, t + 1] = total[runs, t] + bits

    def result(
        self,
        name: str,
        multiples: tuple[float, ...],
        seeds: tuple[int, ...],
        base: float,
        shape: tuple[int, ...],
    ) -> Result:
        gone = np.isnan(self.norms)
        sent: dict[tuple[Accounting, Direction], Array] = {}
        for kind in ACCOUNTINGS:
            up = np.where(gone, np.nan, self.up[kind])
            down = np.where(gone, np.nan, self.down[kind] * np.arange(self.rounds + 1))
            sent[kind, "up"] = up.reshape(*shape, -1)
            sent[kind, "down"] = down.reshape(*shape, -1)
        return Result(
            method=name,
            multiples=multiples,
            seeds=seeds,
            base_stepsize=base,
            grad_norm2=self.norms.reshape(*shape, -1),
            ends=self.ends.reshape(shape),
            x=self.x.reshape(*shape, -1),
            sent=sent,
        )


def _walk_batch(
    problem: Problem,
    feedback: Feedback,
    stepsizes: list[float],
    seeds: tuple[int, ...],
    stop: float,
    step: Step,
    record: _Record,
    on_round: OnRound | None,
) -> None:
    runs = np.arange(len(seeds) * len(stepsizes))
    simulation = Simulation(
        problem,
        feedback,
        x=torch.from_numpy(record.x.copy()),
        stepsizes=torch.tensor(stepsizes, dtype=torch.float64).repeat(len(seeds)),
        seeds=torch.tensor(seeds).repeat_interleave(len(stepsizes)),
        step=step,
    )
    for t in range(record.rounds + 1):
        gradients = problem.gradients(simulation.x)
        norm2 = (gradients.mean(dim=-2) ** 2).sum(dim=-1)
        record.x[runs] = simulation.x.numpy()
        going = record.norm(runs, t, norm2.numpy(), stop)
        if not going.all():
            runs = runs[going]
            if runs.size == 0:
                break
            mask = torch.from_numpy(going)
            simulation.keep(mask)
            gradients, norm2 = gradients[mask], norm2[mask]
        if on_round is not None:
            on_round(t, norm2)
        if t < record.rounds:
            message = simulation.advance(gradients)
            record.sent(runs, t, message, feedback.plan(t).dense)


def _walk_nodes(
    problem: Problem,
    feedback: Feedback,
    stepsizes: list[float],
    seeds: tuple[int, ...],
    stop: float,
    step: Step,
    record: _Record,
    on_round: OnRound | None,
) -> None:
    pairs = [(seed, stepsize) for seed in seeds for stepsize in stepsizes]
    with _one_thread():
        for number, (seed, stepsize) in enumerate(pairs):
            runs = np.array([number])
            x = torch.from_numpy(record.x[number].copy())
            simulation = NodeByNode(problem, feedback, x, stepsize, seed, step)
            for t in range(record.rounds + 1):
                gradients = simulation.gradients()
                mean = torch.zeros_like(x)
                for gradient in gradients:
                    mean = mean + gradient
                norm2 = ((mean / problem.nodes) ** 2).sum(dim=-1, keepdim=True)
                record.x[number] = simulation.x.numpy()
                if not record.norm(runs, t, norm2.numpy(), stop).all():
                    break
                if on_round is not None:
                    on_round(t, norm2)
                if t < record.rounds:
                    messages = simulation.advance(gradients)
                    record.sent(runs, t, messages, feedback.plan(t).dense)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
