"""Memories in logical order: weights of another memory format make the same ones, and checkpoints move."""

import copy

import pytest
import torch
from ddp_runs import memories, same, start, weights
from processes import run_ranks
from states import segments_of
from torch import nn

import laconic
from laconic.ddp import CommState

FEEDBACKS = {
    "ef14": laconic.EF14(laconic.TopK(0.05)),
    "ef21": laconic.EF21(laconic.TopK(0.05) >> laconic.ScaledSign()),
    "ef21+": laconic.EF21Plus(laconic.TopK(0.05)),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(0.05), eta=0.3),
}
FORMATS = (torch.contiguous_format, torch.channels_last)
STEPS = 6


class Given(nn.Module):
    """Has the gradients that it is given: no kernel for one memory format rounds unlike another's."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(6, 16, 3), nn.Conv2d(16, 8, 3)
        self.head = nn.Linear(8, 80)

    def forward(self, place):
        generator = torch.Generator().manual_seed(place)
        each = [(p * torch.randn(p.shape, generator=generator)).sum() for p in self.parameters()]
        return torch.stack(each).sum()


def made(memory_format):
    model = Given().to(memory_format=memory_format)
    assert model.first.weight.is_contiguous(memory_format=memory_format)
    assert model.first.weight.is_contiguous() == (memory_format == torch.contiguous_format)
    return model


def steps(model, optimizer, rank, numbers):
    for step in numbers:
        optimizer.zero_grad()
        model(100 * step + rank).backward()
        optimizer.step()


def course(rank, memory_format, feedback, **settings):
    """Weights and memories after all steps, and the checkpoint of the middle."""
    model, state, _ = start(made(memory_format), feedback, cap=0.01, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps(model, optimizer, rank, range(STEPS // 2))
    saved = copy.deepcopy((state.state_dict(), model.module.state_dict()))
    steps(model, optimizer, rank, range(STEPS // 2, STEPS))
    found = weights(model), memories(state)
    state.close()
    return found, saved


def resumed(rank, memory_format, feedback, saved, **settings):
    model = made(memory_format)
    model.load_state_dict(saved[1])
    model, state, _ = start(model, feedback, cap=0.01, **settings)
    state.load_state_dict(saved[0])
    steps(model, torch.optim.SGD(model.parameters(), lr=0.1), rank, range(STEPS // 2, STEPS))
    found = weights(model), memories(state)
    state.close()
    return found


def alike(one, other):
    return torch.equal(one[0], other[0]) and same(one[1], other[1])


def _formats(rank):
    found = {}
    for name, feedback in FEEDBACKS.items():
        for settings in ({}, {"clip": 1.0}):
            plain, last = (course(rank, form, feedback, **settings) for form in FORMATS)
            key = f"{name} {settings}"
            found[key] = alike(plain[0], last[0]) and same(plain[1][0], last[1][0])
            found[f"{key}: to channels_last"] = alike(
                resumed(rank, FORMATS[1], feedback, plain[1], **settings), plain[0]
            )
            found[f"{key}: to contiguous"] = alike(
                resumed(rank, FORMATS[0], feedback, last[1], **settings), plain[0]
            )
    return found


def test_memory_formats_do_not_matter_and_checkpoints_move_between_them(tmp_path):
    for results in run_ranks(_formats, 2, tmp_path, timeout=150):
        assert len(results) == 3 * 2 * len(FEEDBACKS)
        assert all(results.values()), [key for key, held in results.items() if not held]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_fresh_state_has_every_memory_in_the_parameters_dtype(dtype):
    model = Given().to(dtype)
    state = CommState(laconic.EF21(laconic.TopK(0.05)), model=model)
    segments = segments_of(state.state_dict()["exchange"])
    state.close()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert segments.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        for end in ("sender", "receiver"):
            memory = segments[name][end]["memory"]
            assert memory.shape == (parameter.numel(),)
            assert memory.dtype == wide
            assert not memory.any()
