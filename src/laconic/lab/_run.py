"""``run``: a method on a problem, at all stepsize multiples and seeds in one batch."""

import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from laconic.feedback import Feedback
from laconic.lab._checkpoint import Checkpoint
from laconic.lab._problem import Problem
from laconic.lab._recorder import Recorder, check_rounds
from laconic.lab._result import Result
from laconic.lab._runner import OnRound, Runner, RunSpec, run_batched, run_sequentially
from laconic.lab._simulation import UpdateRule, plain_step
from laconic.theory import ef21_pl_stepsize, ef21_stepsize


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
    step: UpdateRule | None = None,
    *,
    stepsize: float | None = None,
    exact: bool = False,
    on_round: OnRound | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
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
        x0: the start, (d,), or one for each seed, (seeds, d); by default standard normal, from NumPy's
            ``default_rng(0)``.
        seeds: seeds of the compressors' draws.
        step: the update of the iterate, from (x, stepsize * estimate); by default x minus that.
        stepsize: the base stepsize; by default :func:`base_stepsize`.
        exact: run after run and node by node on one thread, instead of in one batch.
        on_round: called after each round's gradients, for progress.
        checkpoint: a file for the state, written every five seconds and at the end. If it exists, the run
            resumes from it, or is only read where it had ended; the result has the same bits as without the
            interruption. It belongs to these settings and this problem alone; of ``step``, only
            the name is known.

    Returns:
        Gradient norms, bits and last iterate of every run.

    Raises:
        ValueError: for settings that make no sense, or that the method refuses.
        CheckpointError: a ValueError, for a checkpoint that is damaged or belongs to another run.

    Example:
        >>> import laconic
        >>> from laconic.lab import Quadratic, run
        >>> result = run(Quadratic.example1(), laconic.EF21(laconic.TopK(1)), multiples=(1, 4), rounds=2000)
        >>> result.ends
        array(['tolerance', 'tolerance'], dtype='<U9')
    """
    multiples, seeds = tuple(float(m) for m in multiples), tuple(_integer("seed", s) for s in seeds)
    rounds = _integer("rounds", rounds)
    if not multiples or not all(np.isfinite(m) and m > 0 for m in multiples):
        raise ValueError(f"multiples must be positive numbers, got {multiples}")
    if not seeds or not all(-(2**63) <= seed < 2**63 for seed in seeds):
        raise ValueError(f"run() needs at least one seed, and seeds of 64 bits, got {seeds}")
    if rounds < 1:
        raise ValueError(f"rounds must be an int of at least 1, got {rounds}")
    check_rounds(rounds, len(multiples) * len(seeds))
    if not stop >= 0:
        raise ValueError(f"the tolerance must be at least 0, got {stop}")
    if stepsize is not None and not (np.isfinite(stepsize) and stepsize > 0):
        raise ValueError(f"the stepsize must be positive and finite, got {stepsize}")
    start = _start(problem, x0, len(seeds))
    base = base_stepsize(problem, feedback) if stepsize is None else stepsize
    move = plain_step if step is None else step
    file = None
    if checkpoint is not None:
        settings = {
            "method": repr(feedback),
            "multiples": multiples,
            "rounds": rounds,
            "stop": stop,
            "seeds": seeds,
            "stepsize": base,
            "step": getattr(move, "__qualname__", type(move).__qualname__),
            "exact": exact,
            "start": _digest(start),
            "problem": _digest(problem.gradients(start)),
        }
        file = Checkpoint(Path(checkpoint), settings)
    stepsizes = tuple(base * m for m in multiples)
    spec = RunSpec(problem, feedback, stepsizes, seeds, stop, move, on_round, file)
    starts = start.expand(len(seeds), -1).repeat_interleave(len(multiples), dim=0)
    recorder = Recorder(rounds, starts)
    _run_or_resume(spec, recorder, run_sequentially if exact else run_batched)
    shape = (len(seeds), len(multiples)) if len(seeds) > 1 else (len(multiples),)
    return Result(
        method=feedback.name,
        multiples=multiples,
        seeds=seeds,
        base_stepsize=base,
        grad_norm2=recorder.norms.reshape(*shape, -1),
        ends=recorder.ends.reshape(shape),
        x=recorder.x.reshape(*shape, -1),
        sent=recorder.bits(shape),
    )


def _run_or_resume(spec: RunSpec, recorder: Recorder, runner: Runner) -> None:
    """Run from the beginning or from the checkpoint, or only read a checkpoint of complete runs."""
    state = None if spec.checkpoint is None else spec.checkpoint.load()
    if state is not None:
        recorder.load_state_dict(state.pop("record"))
    if state is None or state:
        runner(spec, recorder, state)
        spec.save(recorder)


def _integer(name: str, value: object) -> int:
    """An int, also of NumPy's or PyTorch's integers."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise ValueError(f"{name} must be an int, got {value!r}")


def _digest(values: Tensor) -> str:
    return hashlib.sha256(np.ascontiguousarray(values.numpy()).tobytes()).hexdigest()


def _start(problem: Problem, x0: Tensor | None, seeds: int) -> Tensor:
    if x0 is None:
        return torch.from_numpy(np.random.default_rng(0).standard_normal(problem.d))
    x0 = torch.as_tensor(x0)
    if x0.shape not in ((problem.d,), (seeds, problem.d)):
        raise ValueError(
            f"x0 must have the shape ({problem.d},), or ({seeds}, {problem.d}) for a start of each seed; got"
            f" {tuple(x0.shape)}"
        )
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("x0 holds NaN or infinity; start at a finite point")
    return x0.to(torch.float64)
