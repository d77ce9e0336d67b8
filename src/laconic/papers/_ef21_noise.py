"""EF21's noise floor on a quadratic in the plane, for any number of nodes."""

import numpy as np
import torch
from torch import Tensor

from laconic.compressors import TopK
from laconic.feedback import EF14, EF21, EF21SGDM, Feedback

SIGMA2 = 1.0
"""Variance of the noise, ``E|xi|^2``."""
_NOISE = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-2.0, -1.0]], dtype=torch.float64) * (0.3 * SIGMA2) ** 0.5
"""Values of the noise, each with probability 1/3; its mean is 0, but not that of its Top-1."""


def methods(stepsize: float) -> dict[str, Feedback | None]:
    """The methods at a stepsize, which is SGDM's eta too; None is the ideal one, which knows the gradient."""
    top = TopK(1)
    return {
        "ideal EF21-SGD": None,
        "EF21-SGD": EF21(top),
        "EF21-SGDM": EF21SGDM(top, eta=stepsize),
        "EF14": EF14(top),
    }


def ideal_level(stepsize: float, nodes: int) -> float:
    """The level of the ideal method: ``E|grad f(x)|^2`` in the long run.

    It is ``x <- x - gamma mean (x + C(xi_i))``, C(xi) with the mean (0, s/3), s^2 = 3/10, and the variance
    9/10 - 1/30: so ``1/30 + gamma / (2 - gamma) * (26/30) / n``, times sigma^2. Fatkhullin, Tyurin and
    Richtárik (2023) show that it stays above 1/60.
    """
    return SIGMA2 * (1 / 30 + stepsize / (2 - stepsize) * 26 / 30 / nodes)


def level(
    feedback: Feedback | None, stepsize: float, nodes: int, rounds: int, runs: int, seed: int = 0
) -> float:
    """The mean of ``|grad f|^2`` over runs and their last halves, for ``|x|^2 / 2`` from (0, -1)."""
    draws = np.random.default_rng(seed)
    x = torch.tensor([0.0, -1.0], dtype=torch.float64).repeat(runs, 1)
    sender = receiver = None
    if feedback is not None:
        sender = feedback.sender(2, node=torch.arange(nodes), seed=torch.arange(runs)[:, None])
        receiver = feedback.receiver(2, nodes)
    total = 0.0
    for t in range(rounds):
        noise = _NOISE[torch.from_numpy(draws.integers(0, 3, (runs, nodes)))]
        if feedback is None or sender is None or receiver is None:
            x = x - stepsize * (x + _top1(noise).mean(dim=-2))
        elif feedback.estimates == "step":
            x = x - receiver.receive(sender.send(x[:, None] + noise, stepsize=stepsize))
        else:
            x = x - stepsize * receiver.receive(sender.send(x[:, None] + noise))
        if t >= rounds // 2:
            total += float((x**2).sum(dim=-1).mean())
    return total / (rounds - rounds // 2)


def _top1(x: Tensor) -> Tensor:
    return TopK(1).compress(x).dense()
