"""A step on a device, which a stand-in takes the place of: bits as on the CPU, launches counted."""

import os
import sys
from pathlib import Path

import pytest
import torch
from same import same

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "gpu"))
import stand_in
from ends import Ends

import laconic
from laconic import BlockQuantizer, BlockTopK, Cast, ScaledSign, TopK
from laconic.wire import read_frame

SIZES = {"weight": (20, 12), "bias": (30,), "wide": (500,), "norm": (7,)}
EXEMPT = ["bias", "norm"]
ON_GPU = os.environ.get("LACONIC_GPU_TESTS", "standin") != "standin"
ON_A_STAND_IN = pytest.mark.skipif(ON_GPU, reason="a GPU does not count launches")


@pytest.fixture(scope="module")
def device():
    return torch.device("cuda", 0) if ON_GPU else stand_in.install()


FEEDBACKS = {
    "EF21, Top-k": laconic.EF21(TopK(0.05)),
    "EF21, Top-k in bfloat16": laconic.EF21(TopK(0.05) >> Cast(torch.bfloat16)),
    "EF14, 1-bit": laconic.EF14(TopK(0.05) >> ScaledSign()),
    "EF14, blocks": laconic.EF14(BlockTopK(3, block=64)),
    "EF14, dense signs": laconic.EF14(ScaledSign()),
    "EF14, Top-k in 4 bits": laconic.EF14(TopK(0.05) >> BlockQuantizer(4, block=16)),
    "DCGD, bfloat16": laconic.DCGD(Cast(torch.bfloat16)),
}


def layout_of(sizes=SIZES, exempt=EXEMPT):
    return laconic.Layout.of(sizes, bfloat16=exempt)


def gradients(layout, step, ranks=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(layout.d, generator=generator).to(dtype) for _ in range(ranks)]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in FEEDBACKS), ("EF21, Top-k in bfloat16", torch.bfloat16)],
)
def test_bits_are_those_of_the_cpu(name, dtype, device):
    layout = layout_of()
    there, here = (Ends(layout, FEEDBACKS[name], where, dtype=dtype) for where in (device, "cpu"))
    before = laconic.kernels.kernel_counts()
    for step in range(3):
        sources = gradients(layout, step, dtype=dtype)
        if step == 1:
            sources[1][3] = torch.nan
        found, expected = there.stage(sources, 1), here.stage(sources, 1)
        assert found[2] == expected[2] == (step != 1)
        assert all(same(a, b) for a, b in zip(found[0], expected[0], strict=True))
        if step == 1:
            there.roll_back(1)
            here.roll_back(1)
        else:
            assert same(found[1].cpu(), expected[1])
            there.commit(1)
            here.commit(1)
        assert all(same(a, b) for a, b in zip(there.states(1), here.states(1), strict=True))
    used = {key for key, count in laconic.kernels.kernel_counts().items() if count > before.get(key, 0)}
    assert "gpu:receive" in used


@pytest.mark.parametrize("name", ["EF21, Top-k in bfloat16", "EF14, 1-bit"])
def test_frames_that_stay_on_the_device_are_those_of_main_memory(name, device):
    layout = layout_of()
    there, here = (Ends(layout, FEEDBACKS[name], where) for where in (device, "cpu"))
    for step in range(3):
        sources = gradients(layout, step)
        if step == 1:
            sources[1][3] = torch.nan
        rows, out, stands = there.stage_rows(sources, 0)
        frames, expected, defined = here.stage(sources, 0)
        assert stands == defined == (step != 1)
        for row, frame in zip(rows.cpu(), frames, strict=True):
            bytes_, length = row.contiguous().view(torch.uint8), read_frame(frame).length
            assert same(bytes_[:length], frame[:length])
            assert not bytes_[length:].any()
        if step == 1:
            there.roll_back(0)
            here.roll_back(0)
        else:
            assert same(out.cpu(), expected)
            there.commit(0)
            here.commit(0)
        assert all(same(a, b) for a, b in zip(there.states(0), here.states(0), strict=True))


@pytest.mark.parametrize("byte", [3, 9, 30, 40, 100])
def test_a_frame_that_was_changed_on_the_device_is_refused(byte, device):
    ends = Ends(layout_of(), FEEDBACKS["EF14, 1-bit"], device)

    def change(rows):
        rows[1, byte // 4] ^= 1 << byte % 4 * 8

    with pytest.raises(laconic.ExchangeError, match="the message of rank 1"):
        ends.stage_rows(gradients(layout_of(), 0), 0, change)


@ON_A_STAND_IN
def test_the_host_waits_for_no_frame_on_the_device(device):
    ends = Ends(layout_of(), FEEDBACKS["EF14, 1-bit"], device)
    for step in range(2):
        sources = [source.to(device) for source in gradients(layout_of(), step)]
        with stand_in.counted() as found:
            ends.stage_rows(sources, 0)
        ends.commit(0)
    assert found["copy to host"] == 2  # heads, and flags
    assert found["copy to device"] <= 2  # a head of each rank


def step_counts(layout, feedback, device, ranks):
    ends = Ends(layout, feedback, device, ranks)
    for step in range(3):
        sources = [source.to(device) for source in gradients(layout, step, ranks)]
        with stand_in.counted() as found:
            frame, message = ends.senders[0].stage(sources[0])
        sent, frames = found.copy(), [frame.clone()]
        for sender, source in zip(ends.senders[1:], sources[1:], strict=True):
            frames.append(sender.stage(source)[0].clone())
        out = torch.empty(layout.d, device=device)
        with stand_in.counted() as found:
            assert ends.receivers[0].stage(frames, out, 1.0, {0: message})
            ends.senders[0].commit()
            ends.receivers[0].receiver.commit()
        for sender in ends.senders[1:]:
            sender.commit()
    return sent + found


def launches(counts):
    return sum(count for name, count in counts.items() if name.startswith("launch "))


@ON_A_STAND_IN
@pytest.mark.parametrize(
    "name", ["EF21, Top-k", "EF21, Top-k in bfloat16", "EF14, 1-bit", "EF14, blocks", "DCGD, bfloat16"]
)
def test_launches_grow_with_groups_and_ranks_alone(name, device):
    few, many = layout_of(), {f"{key}{i}": size for i in range(3) for key, size in SIZES.items()}
    many = layout_of(many, [key for key in many if key.startswith(tuple(EXEMPT))])
    one = step_counts(few, FEEDBACKS[name], device, 2)
    same_groups = step_counts(many, FEEDBACKS[name], device, 2)
    assert launches(same_groups) <= launches(one) + 2  # a fold more at the most
    more_ranks = step_counts(few, FEEDBACKS[name], device, 4)
    assert launches(more_ranks) - launches(one) <= 2 * 2 * 2  # two more ranks, two groups
    assert launches(one) <= 60
    for counts in (one, same_groups, more_ranks):
        assert counts["wait"] <= 6  # two a group at the most, for the frame, and for what arrived
        assert counts["copy to host"] <= 2


def test_an_exchange_of_one_rank(device):
    layout = layout_of()
    results = []
    for where in (device, torch.device("cpu")):
        exchange = laconic.Exchange(layout, laconic.EF21(TopK(0.05) >> Cast(torch.bfloat16)))
        for step in range(3):
            (flat,) = gradients(layout, step, 1)
            tensors = {
                s.name: flat[s.offset : s.end].clone().view(s.shape).to(where) for s in layout.segments
            }
            assert exchange.reduce_(tensors)
        results.append([tensor.cpu() for tensor in tensors.values()])
        exchange.close()
    assert all(same(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("feedback", [laconic.EF14(TopK(0.05) >> ScaledSign()), laconic.EF21(TopK(0.05))])
def test_steps_of_the_optimizer(feedback, device):
    results = []
    for where in (device, torch.device("cpu")):
        generator = torch.Generator().manual_seed(0)
        parameters = [
            torch.nn.Parameter(torch.randn(s, generator=generator).to(where)) for s in SIZES.values()
        ]
        optimizer = laconic.optim.CompressedAdamW(parameters, lr=1e-2, feedback=feedback)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(where)
            with stand_in.counted() as found:
                optimizer.step()
        results.append([p.detach().cpu() for p in parameters])
        if where != torch.device("cpu"):
            assert launches(found) <= 80
        optimizer.close()
    assert all(same(a, b) for a, b in zip(*results, strict=True))
