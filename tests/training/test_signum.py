"""CompressedSignum: equal to a plain loop; its state is the memory alone."""

import copy

import pytest
import torch
from torch import nn

import laconic
from laconic.optim import CompressedSignum


@pytest.mark.parametrize("values", [laconic.Identity(), laconic.Cast(torch.bfloat16), laconic.ScaledSign()])
def test_it_is_the_sign_of_what_a_fading_memory_sends(values):
    compressor = laconic.TopK(0.1) >> values
    x = nn.Parameter(torch.randn(32, 24, generator=torch.Generator().manual_seed(0)))
    y, e = x.detach().clone(), torch.zeros(32 * 24)
    optimizer = CompressedSignum([x], 0.03, laconic.EF14(compressor, decay=0.9), 0.1, clip=None)
    for step in range(10):
        x.grad = torch.randn(32, 24, generator=torch.Generator().manual_seed(step + 1))
        optimizer.step()
        e = e + x.grad.reshape(-1)
        sent = compressor.compress(e).dense()
        e = (e - sent) * 0.9
        y = y * (1 - 0.03 * 0.1) - sent.sign().view_as(y) * 0.03
        assert torch.equal(x.detach(), y)
    optimizer.close()


def test_its_state_is_the_memory():
    x = nn.Parameter(torch.ones(32, 32))
    optimizer = CompressedSignum([x], 0.1)
    x.grad = torch.randn(32, 32)
    optimizer.step()
    assert not optimizer.state[x]
    saved = optimizer.session.exchange.state_dict()["ranks"]["0"]["0"]
    tensors = []

    def collect(value):
        if isinstance(value, dict):
            for each in value.values():
                collect(each)
        elif isinstance(value, torch.Tensor):
            tensors.append(value)

    collect(saved)
    assert sum(t.nbytes for t in tensors) == 4 * x.numel()
    before = copy.deepcopy(x.data)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(before, x)
    optimizer.close()
