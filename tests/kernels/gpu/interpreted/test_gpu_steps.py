"""A step on a device, which a stand-in takes the place of: bits as on the CPU, launches counted."""

import os
import sys
import zlib
from pathlib import Path

import pytest
import torch
from same import same

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks" / "gpu"))
import part4_processes
import stand_in
from ends import Ends

import laconic
from laconic import BlockQuantizer, BlockTopK, Cast, ScaledSign, TopK
from laconic.comm._stats import Counter
from laconic.comm.topologies import AllGather, BucketContext
from laconic.wire import read_frame, row_kernels

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
    "EF14, residual in bfloat16": laconic.EF14(
        TopK(0.05) >> ScaledSign(), decay=0.9, residual=torch.bfloat16
    ),
    "EF14, blocks": laconic.EF14(BlockTopK(3, block=64)),
    "EF14, dense signs": laconic.EF14(ScaledSign()),
    "EF14, Top-k in 4 bits": laconic.EF14(TopK(0.05) >> BlockQuantizer(4, block=16)),
    "DCGD, bfloat16": laconic.DCGD(Cast(torch.bfloat16)),
}


ASKS = {"EF14, Top-k in 4 bits"}
"""Methods with segments that are compressed one by one: the host waits for each one's finite flag."""


def layout_of(sizes=SIZES, exempt=EXEMPT, rule="bfloat16"):
    return laconic.Layout.of(sizes, **{rule: exempt})


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
    for step in range(4):
        sources = gradients(layout, step, dtype=dtype)
        if void := step in (1, 2):
            sources[1][3] = torch.nan
        with stand_in.counted() as counts:
            found = there.stage(sources, 1)
        expected = here.stage(sources, 1)
        if step == 2 and not ON_GPU and name not in ASKS:
            assert counts["wait"] == counts["copy to host"] == 3  # each sender's frame, and what arrived
        assert found[2] == expected[2] != void
        assert all(same(a, b) for a, b in zip(found[0], expected[0], strict=True))
        if void:
            there.roll_back(1)
            here.roll_back(1)
        else:
            assert same(found[1].cpu(), expected[1])
            there.commit(1)
            here.commit(1)
        assert all(same(a, b) for a, b in zip(there.states(1), here.states(1), strict=True))
    used = {key for key, count in laconic.kernels.kernel_counts().items() if count > before.get(key, 0)}
    assert "gpu:receive" in used


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("EF21, Top-k in bfloat16", "bfloat16"),
        ("EF14, 1-bit", "bfloat16"),
        ("EF14, 1-bit", "exact"),
        ("EF14, dense signs", "bfloat16"),
    ],
)
def test_frames_that_stay_on_the_device_are_those_of_main_memory(name, rule, device):
    layout = layout_of(rule=rule)
    there, here = (Ends(layout, FEEDBACKS[name], where) for where in (device, "cpu"))
    for step in range(5):
        sources = gradients(layout, step)
        if step == 1:
            sources[1][3] = torch.nan
        elif step == 2:
            sources[0][:] = torch.nan
            sources[0][::3], sources[0][1::3] = torch.inf, -torch.inf
        with stand_in.counted() as counts:
            rows, out, stands = there.stage_rows(sources, 0)
        frames, expected, defined = here.stage(sources, 0)
        assert stands == defined == (step not in (1, 2))
        for row, frame in zip(rows.cpu(), frames, strict=True):
            bytes_, length = row.contiguous().view(torch.uint8), read_frame(frame).length
            assert same(bytes_[:length], frame[:length])
            assert not bytes_[length:].any()
        with stand_in.counted() as rest:
            (there.commit if stands else there.roll_back)(0)
        (here.commit if stands else here.roll_back)(0)
        if stands:
            assert same(out.cpu(), expected)
        assert all(same(a, b) for a, b in zip(there.states(0), here.states(0), strict=True))
        if step in (2, 4) and not ON_GPU:  # others are the first of their kind, for which tables are made
            assert counts["wait"] == counts["copy to host"] == 1
            assert not rest["wait"]
            assert launches(counts + rest) <= 90  # of two senders and a receiver


def test_a_bucket_over_rows_waits_once(device):
    layout, feedback = layout_of(), FEEDBACKS["EF14, 1-bit"]
    ends = [Ends(layout, feedback, where) for where in (device, "cpu")]
    like, other = torch.empty(0, device=device), ends[0].senders[1]
    kernels = row_kernels(other.format, like)
    line = OneWire(lambda: other.stage_row(kernels, sources[1].to(device)))
    bucket = AllGather().make_bucket(BucketContext(layout, feedback, like, 0, line, Counter()))
    for step in range(4):
        sources = gradients(layout, step)
        sources[step % 2][7] = torch.inf if step == 2 else 1.0
        own, out = sources[0].to(device), torch.empty(layout.d, device=device)
        with stand_in.counted() as counts:
            stands = bucket.stage(own, out, 1.0)
            (bucket.commit if stands else bucket.roll_back)()
        _, expected, defined = ends[1].stage(sources, 0)
        assert stands == defined == (step != 2)
        if stands:
            assert same(out.cpu(), expected)
            other.commit()
            ends[1].commit(0)
        else:
            other.roll_back()
            ends[1].roll_back(0)
        if step and not ON_GPU:
            assert counts["wait"] == counts["copy to host"] == 1
    assert bucket.held_bytes()["memory"] == 4 * layout.d


class OneWire:
    """Rank 0's collectives over a backend of a device, and what arrives from the others."""

    rank, on_device = 0, True

    def __init__(self, *others):
        self._others = others
        self.size = 1 + len(others)

    def all_gather_rows(self, words, what, look):
        return look(torch.stack([words, *(other() for other in self._others)])).cpu()


@pytest.mark.parametrize("name", part4_processes.FEEDBACKS)
def test_a_single_rank_whose_frames_stay_on_the_device(name, device):
    assert part4_processes.equal_to_cpu(OneWire(), device, 16, part4_processes.FEEDBACKS[name])


@pytest.mark.parametrize("byte", [3, 9, 30, 40, 100, "a number"])
def test_a_frame_that_was_changed_on_the_device_is_refused(byte, device):
    ends = Ends(layout_of(), FEEDBACKS["EF14, 1-bit"], device)

    def change(rows):
        if byte != "a number":
            rows[1, byte // 4] ^= 1 << byte % 4 * 8
            return
        frame = bytearray(rows[1].cpu().numpy().tobytes())
        length = int.from_bytes(frame[16:20], "little")
        frame[length - 2 : length] = b"\xff\xff"  # the last exempt number is NaN
        frame[28:32] = zlib.crc32(frame[32:length], zlib.crc32(frame[:28])).to_bytes(4, "little")
        rows[1].copy_(torch.frombuffer(frame, dtype=torch.int32))

    with pytest.raises(laconic.ExchangeError, match="the message of rank 1") as error:
        ends.stage_rows(gradients(layout_of(), 0), 0, change)
    assert ("none that a message holds" in str(error.value)) == (byte == "a number")
    ends.roll_back(0)
    assert not any(memory.any() for memory in ends.states(0))


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
        assert counts["wait"] == counts["copy to host"] == 2  # for the frame, and for what arrived


def loops_since(before):
    """Compiled loops for the CPU that were called since then."""
    used = laconic.kernels.kernel_counts()
    return {key for key, count in used.items() if count > before.get(key, 0) and key.startswith("cpu:")}


def test_an_exchange_of_one_rank(device):
    layout = layout_of()
    results = []
    for where in (device, torch.device("cpu")):
        before = laconic.kernels.kernel_counts()
        exchange = laconic.Exchange(layout, laconic.EF21(TopK(0.05) >> Cast(torch.bfloat16)), device=where)
        for step in range(3):
            (flat,) = gradients(layout, step, 1)
            tensors = {
                s.name: flat[s.offset : s.end].clone().view(s.shape).to(where) for s in layout.segments
            }
            assert exchange.reduce_(tensors)
        results.append([tensor.cpu() for tensor in tensors.values()])
        assert bool(loops_since(before)) == (where != device)  # neither warmed up nor run
        exchange.close()
    assert all(same(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("feedback", "clip"),
    [(laconic.EF14(TopK(0.05) >> ScaledSign()), 1.0), (laconic.EF21(TopK(0.05)), None)],
)
def test_steps_of_the_optimizer(feedback, clip, device):
    results = []
    for where in (device, torch.device("cpu")):
        generator = torch.Generator().manual_seed(0)
        parameters = [
            torch.nn.Parameter(torch.randn(s, generator=generator).to(where)) for s in SIZES.values()
        ]
        before = laconic.kernels.kernel_counts()
        optimizer = laconic.optim.CompressedAdamW(parameters, lr=1e-2, feedback=feedback, clip=clip)
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        for _ in range(3):
            for parameter in parameters:
                # In place: for gradients at other addresses a table is made, which takes one more wait.
                parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
            with stand_in.counted() as found:
                optimizer.step()
        results.append([p.detach().cpu() for p in parameters])
        if where != torch.device("cpu") and not ON_GPU:
            assert launches(found) <= 80
            assert found["wait"] == found["copy to host"] == 1 + (clip is not None)  # the frame; the norm
        assert bool(loops_since(before)) == (where == torch.device("cpu"))  # neither warmed up nor run
        optimizer.close()
    assert all(same(a, b) for a, b in zip(*results, strict=True))
