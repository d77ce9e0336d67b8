"""What a step of the optimisers writes, and the memory that they hold."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

import laconic
from laconic.kernels import kernel_counts
from laconic.kernels.tables import SegmentedVector
from laconic.optim import CompressedAdamW

FEEDBACK = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())


class Replaced(CompressedAdamW):
    """Replaces the parameters' step, so it needs estimates that are written."""

    def apply_all(self, estimates):
        assert not any(isinstance(estimate, SegmentedVector) for estimate in estimates)
        super().apply_all(estimates)


def trained(kind, frozen=False, **settings):
    one, two = (nn.Parameter(torch.linspace(-1, 1, 4096).view(64, 64)) for _ in range(2))
    optimizer = kind([one, two], 0.01, FEEDBACK, betas=(0.0, 0.99), **settings)
    before = Counter(kernel_counts())
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        one.grad, two.grad = (torch.randn(64, 64, generator=generator) for _ in range(2))
        if frozen and step == 1:
            two.requires_grad_(False)
        optimizer.step()
    optimizer.close()
    return torch.cat([one.detach(), two.detach()]), Counter(kernel_counts()) - before


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("frozen", [False, True])
def test_sparse_estimates_are_subtracted_without_being_written(weight_decay, frozen):
    found, ran = trained(CompressedAdamW, frozen, weight_decay=weight_decay)
    assert not ran["reference:receive"]
    # Neither updates nor the parameters' step have a pass of their own.
    assert not ran["cpu:optimizer"]
    expected, passes = trained(Replaced, frozen, weight_decay=weight_decay)
    assert passes["cpu:optimizer"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("beta1", "state"), [(0.0, 4), (0.9, 8)])
@pytest.mark.parametrize(("residual", "memory"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_stats_say_how_many_bytes_a_parameter_takes(beta1, state, residual, memory):
    x = nn.Parameter(torch.ones(64, 64))
    feedback = replace(FEEDBACK, residual=residual)
    optimizer = CompressedAdamW([x], 0.01, feedback, betas=(beta1, 0.99))
    x.grad = torch.ones_like(x)
    optimizer.step()
    stats = optimizer.stats()
    assert stats.bytes_per_parameter["state"] == pytest.approx(state, abs=0.01)
    assert stats.bytes_per_parameter["memory"] == memory
    # A second buffer each for residual and moment, or room for the update; and the frame.
    assert memory + 4 < stats.bytes_per_parameter["scratch"] < memory + 4.5
    assert stats.scalars()["bytes_per_parameter_memory"] == memory
    optimizer.close()
