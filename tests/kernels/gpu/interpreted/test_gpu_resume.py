"""Checkpoints that were read to main memory go on with a device's gradients, bit for bit."""

import io
import os
import sys
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from same import same

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "gpu"))
import stand_in

import laconic
from laconic import Cast, ScaledSign, TopK

SIZES = {"weight": (20, 12), "bias": (30,), "wide": (500,)}
LAYOUT = laconic.Layout.of(SIZES, bfloat16=["bias"])
ON_GPU = os.environ.get("LACONIC_GPU_TESTS", "standin") != "standin"
FEEDBACKS = {
    "EF14": laconic.EF14(TopK(0.05) >> ScaledSign()),
    "EF14, bfloat16": laconic.EF14(TopK(0.05), residual=torch.bfloat16),
    "EF21": laconic.EF21(TopK(0.05) >> Cast(torch.bfloat16)),
    "EF21+": laconic.EF21Plus(TopK(0.05)),
    "EF21-SGDM": laconic.EF21SGDM(TopK(0.05)),
}


def install():
    return torch.device("cuda", 0) if ON_GPU else stand_in.install()


@pytest.fixture(scope="module")
def device():
    return install()


def gradient(step, rank=0):
    return torch.randn(LAYOUT.d, generator=torch.Generator().manual_seed(10 * step + rank))


def in_main_memory(value):
    if isinstance(value, dict):
        return {key: in_main_memory(each) for key, each in value.items()}
    return value.cpu() if isinstance(value, torch.Tensor) else value


def reread(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def tensors_of(value):
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in tensors_of(each)]
    return [value] if isinstance(value, torch.Tensor) else []


def stepped(exchange, steps, device, buckets=(tuple(SIZES),)):
    """What is estimated in these steps on this device, in main memory."""
    found = []
    for step in steps:
        flat, parts = gradient(step, exchange.rank), []
        for i, names in enumerate(buckets):
            own = [flat[s.offset : s.end] for s in LAYOUT.segments if s.name in names]
            parts.append(torch.cat(own).to(device))
            future = exchange.submit(names, parts[-1], last=i == len(buckets) - 1)
        laconic.comm.wait_for(future)
        found += [part.cpu() for part in parts]
    return found


@pytest.mark.parametrize("name", FEEDBACKS)
def test_an_exchange_goes_on_from_main_memory(name, device):
    first = laconic.Exchange(LAYOUT, FEEDBACKS[name], device=device)
    stepped(first, range(2), device)
    state = reread(in_main_memory(first.state_dict()))
    expected = stepped(first, range(2, 4), device)
    second = laconic.Exchange(LAYOUT, FEEDBACKS[name], device=device)
    second.load_state_dict(state)
    assert all(map(same, stepped(second, range(2, 4), device), expected))
    for exchange in (first, second):
        exchange.close()


@pytest.mark.parametrize("name", FEEDBACKS)
def test_sender_and_receiver_go_on_from_main_memory(name, device):
    feedback = FEEDBACKS[name]
    ends = feedback.sender(LAYOUT), feedback.receiver(LAYOUT, 1)
    for step in range(2):
        ends[1].receive([ends[0].send(gradient(step).to(device))])
    loaded = feedback.sender(LAYOUT), feedback.receiver(LAYOUT, 1)
    for end, saved in zip(loaded, ends, strict=True):
        end.load_state_dict(reread(in_main_memory(saved.state_dict())))
    for step in range(2, 4):
        expected, found = (b.receive([a.send(gradient(step).to(device))]) for a, b in (ends, loaded))
        assert found.device == device
        assert same(found.cpu(), expected.cpu())


def resumed_from_gathered(rank, name, folder):
    device = install()
    first = laconic.Exchange(LAYOUT, FEEDBACKS[name], device=device, timeout_s=60)
    stepped(first, range(2), device)
    gathered = first.state_dict(gather=True)
    if rank == 0:
        assert {tensor.device.type for tensor in tensors_of(gathered)} == {"cpu"}
        torch.save(gathered, folder / "gathered.pt")
    torch.distributed.barrier()
    expected = stepped(first, range(2, 4), device)
    second = laconic.Exchange(LAYOUT, FEEDBACKS[name], device=device, timeout_s=60)
    second.load_state_dict(torch.load(folder / "gathered.pt", map_location="cpu", weights_only=True))
    buckets = (("wide",), ("weight", "bias"))  # memories move with their segments
    found = stepped(second, range(2, 4), device, buckets)
    weight, bias, wide = (range(s.offset, s.end) for s in LAYOUT.segments)
    parts = [own[list(part)] for own in expected for part in (wide, [*weight, *bias])]
    return all(map(same, found, parts))


@pytest.mark.skipif(ON_GPU, reason="both ranks would need it")
@pytest.mark.parametrize("name", ["EF14", "EF21+"])
def test_every_rank_goes_on_from_what_rank_0_gathered(name, tmp_path):
    assert run_ranks(resumed_from_gathered, 2, tmp_path, name, tmp_path) == [True, True]
