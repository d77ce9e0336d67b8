"""Optimisers of models whose memory format changes, and checkpoints between formats and dtypes."""

import copy

import pytest
import torch
from torch import nn

import laconic
from laconic.optim import CompressedAdamW, CompressedSGD, CompressedSignum, LocalSteps
from laconic.optim._common import CommonParameters
from laconic.optim._groups import restore_state

TOP = laconic.EF14(laconic.TopK(0.2))
KINDS = {
    "adamw": lambda p: CompressedAdamW(p, 0.01),
    "adamw, top": lambda p: CompressedAdamW(p, 0.01, TOP, weight_decay=0.1),
    "adamw, beta_1": lambda p: CompressedAdamW(p, 0.01, TOP, betas=(0.5, 0.9)),
    "adamw, overlap": lambda p: CompressedAdamW(p, 0.01, TOP, clip=None, overlap=True),
    "sgd": lambda p: CompressedSGD(p, 0.1, TOP),
    "sgd, momentum": lambda p: CompressedSGD(p, 0.1, TOP, momentum=0.9),
    "signum": lambda p: CompressedSignum(p, 0.01, laconic.EF14(laconic.TopK(0.2), decay=0.9)),
    "local": lambda p: LocalSteps(torch.optim.AdamW(p, 0.01), 2, TOP),
}
FORMATS = (torch.contiguous_format, torch.channels_last)


def network(format_=torch.contiguous_format):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).to(memory_format=format_)


def steps(model, optimizer, numbers):
    for number in numbers:
        # By hand: convolutions of two formats are not equal to the bit.
        loss = sum(
            (p * torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * number + place))).sum()
            for place, p in enumerate(model.parameters())
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:.*error feedback that keeps")
@pytest.mark.parametrize("kind", KINDS)
def test_a_format_that_changes_after_construction_changes_no_value(kind):
    plain, turned = network(), network()
    optimizers = [KINDS[kind](model.parameters()) for model in (plain, turned)]
    for numbers, format_ in ((range(2), FORMATS[1]), (range(2, 4), FORMATS[0]), (range(4, 6), FORMATS[1])):
        turned.to(memory_format=format_)
        for model, optimizer in zip((plain, turned), optimizers, strict=True):
            steps(model, optimizer, numbers)
        assert same_weights(plain, turned)
    assert not same_weights(turned, network())
    for optimizer in optimizers:
        optimizer.close()


@pytest.mark.filterwarnings("ignore:.*error feedback that keeps")
@pytest.mark.parametrize("formats", [FORMATS, FORMATS[::-1]])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_move_between_formats(kind, formats):
    model, other = map(network, formats)
    optimizer, resumed = KINDS[kind](model.parameters()), KINDS[kind](other.parameters())
    steps(model, optimizer, range(2))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for each, own in ((model, optimizer), (other, resumed)):
        steps(each, own, range(2, 6))
        own.close()
    assert same_weights(model, other)


DENSE = {
    "adamw": (
        lambda p: torch.optim.AdamW(p, 0.01, (0.0, 0.9), weight_decay=0.0),
        lambda p: CompressedAdamW(p, 0.01, betas=(0.0, 0.9), clip=None, weight_decay=0.0),
    ),
    "adamw, beta_1": (
        lambda p: torch.optim.AdamW(p, 0.01, (0.5, 0.9), weight_decay=0.0),
        lambda p: CompressedAdamW(p, 0.01, betas=(0.5, 0.9), clip=None, weight_decay=0.0),
    ),
    "sgd": (
        lambda p: torch.optim.SGD(p, 0.01, 0.9),
        lambda p: CompressedSGD(p, 0.01, momentum=0.9),
    ),
}


@pytest.mark.filterwarnings("ignore:.*error feedback that keeps")
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("before", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", DENSE)
def test_dense_moments_of_another_dtype_are_adopted_in_this_ones(kind, before, to):
    dense, compressed = DENSE[kind]
    one, two = (nn.Parameter(torch.ones(16).to(dtype)) for dtype in (before, to))
    optimizer = dense([one])
    for _ in range(3):
        one.grad = torch.linspace(-1, 1, 16).to(before)
        optimizer.step()
    adopter = compressed([two])
    adopter.load_state_dict(optimizer.state_dict())
    wide = torch.float64 if to == torch.float64 else torch.float32
    for name, moment in adopter.state[two].items():
        if name != "step":
            assert moment.dtype == wide
            torch.testing.assert_close(moment, optimizer.state[one][name].to(wide))
    two.data.copy_(one.data)
    for parameter, own in ((one, optimizer), (two, adopter)):
        parameter.grad = torch.linspace(-1, 1, 16).to(parameter.dtype)
        own.step()
    torch.testing.assert_close(one.double(), two.double(), rtol=0, atol=0.02)
    adopter.close()


def test_states_from_main_memory_go_where_the_parameters_are():
    # The meta device stands for a GPU.
    common = CommonParameters({"x": torch.zeros(3, device="meta")}, momentum=True)
    loaded = common.taken_from({"x": {"common_parameter": torch.ones(3), "outer_momentum": torch.ones(3)}})
    assert {each.device.type for each in (*loaded.parameters.values(), *loaded._momenta.values())} == {"meta"}
    parameter = nn.Parameter(torch.zeros(3, device="meta"))
    inner = torch.optim.AdamW([parameter], 0.01, fused=True)
    state = {"step": torch.tensor(3.0), "exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    saved = {"state": {0: state}, "param_groups": inner.state_dict()["param_groups"]}
    inner.load_state_dict(saved)
    restore_state(inner, saved)
    assert {each.device.type for each in inner.state[parameter].values()} == {"meta"}
