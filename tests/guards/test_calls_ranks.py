"""The Python work of a step of the DDP hook and of the optimisers, on two real ranks."""

import pytest
import torch
from counting import counting
from processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic

PARAMETERS = (12, 150, 640)
RANKS, STEPS = 2, 3


class Given(nn.Module):
    """A model whose gradient is given: its loss is the sum of products of parameters and inputs."""

    def __init__(self, parameters):
        super().__init__()
        shapes = [(64,) if i % 3 == 2 else (40, 30) for i in range(parameters)]
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self, inputs):
        return sum((w * x).sum() for w, x in zip(self.weights, inputs, strict=True))

    def inputs(self, step, rank):
        generator = torch.Generator().manual_seed(100 * step + rank)
        return [torch.randn(w.shape, generator=generator) for w in self.weights]


def hook_counts(rank):
    """Calls and buckets of the last step, by the number of parameters."""
    found = {}
    for parameters in PARAMETERS:
        model = DistributedDataParallel(Given(parameters), bucket_cap_mb=100)
        with counting() as counter:
            state = laconic.ddp.CommState(laconic.EF14(laconic.TopK(0.01)), model=model)
            buckets = []

            def hook(state, bucket, buckets=buckets):
                buckets.append(bucket.index())
                return laconic.ddp.hook(state, bucket)

            model.register_comm_hook(state, hook)
            for step in range(STEPS):
                inputs = model.module.inputs(step, rank)
                buckets.clear()
                with counter.on():
                    model(inputs).backward()
            found[parameters] = (counter.calls.total(), counter.operations.total(), len(buckets))
            state.close()
    return found


def optimizer_counts(rank):
    """Calls and operations of the last step, with the defaults but for one-bit values."""
    found = {}
    for parameters in PARAMETERS:
        model = Given(parameters)
        with counting() as counter:
            feedback = laconic.EF14(laconic.TopK(0.01) >> laconic.ScaledSign())
            optimizer = laconic.optim.CompressedAdamW(model.named_parameters(), lr=1e-3, feedback=feedback)
            for step in range(STEPS):
                for weight, gradient in zip(model.weights, model.inputs(step, rank), strict=True):
                    weight.grad = gradient
                with counter.on():
                    optimizer.step()
            found[parameters] = (counter.calls.total(), counter.operations.total(), 1)
            optimizer.close()
    return found


@pytest.mark.parametrize("count", [hook_counts, optimizer_counts])
def test_a_step_makes_as_many_calls_for_many_parameters_as_for_few(count, tmp_path):
    for found in run_ranks(count, RANKS, tmp_path, timeout=150):
        for parameters, (calls, operations, buckets) in found.items():
            groups = 2 * buckets
            assert calls <= 400 + 340 * groups * RANKS, (parameters, found)
            assert operations <= 100 + 90 * groups * RANKS, (parameters, found)
        few, many = found[PARAMETERS[1]], found[PARAMETERS[2]]
        if few[2] == many[2]:
            assert abs(many[0] - few[0]) <= 40, found
