"""Part 3: EF21's step against ``torch.topk`` and a copy; AdamW's update; an exchange without a link."""

import statistics
import time

import numpy as np
import torch
from cases import same_bits
from ends import Ends

import laconic
from laconic.bench.kernels import pair, sender_of, step_of, with_torch_topk
from laconic.kernels import gpu
from laconic.kernels.tables import Vectors

TARGETS = {"topk": 10.0, "floor": 2.5, "exchange": 4.0}


def main(settings):
    """Steps of senders, then an exchange with simulated peers."""
    device = settings.device()
    sizes = settings.choose((10**6, 10**7, 10**8), (10**6, 10**8), (5000,))
    repeats = settings.choose(20, 7, 1)
    for d in sizes:
        vector(settings, d, repeats, device)
    exchange(settings, device, repeats)


def vector(settings, d, repeats, device):
    """Rows of one length."""
    g, h = pair(d, device)
    other = torch.empty_like(g)
    copy = milliseconds(lambda: other.copy_(g), repeats, device)
    settings.report(what="copy", d=d, ms=copy, gb_s=8e-6 * d / copy)
    for share in (0.01, 0.001):
        step(settings, g, h, share, copy, repeats, device)
    update(settings, g, h, copy, repeats, device)


def step(settings, g, h, share, copy, repeats, device):
    """One row: a sender's stage and commit."""
    d = g.numel()
    compressor = laconic.TopK(share)
    feedback, k = laconic.EF21(compressor), compressor.kept(d)
    sender, other, naive = sender_of(feedback, None, h), sender_of(feedback, None, h), h.clone()
    message, again = step_of(sender, g), step_of(other, g)
    equal = all(same_bits(a, b) for a, b in zip(tensors(message), tensors(again), strict=True))
    ours = milliseconds(lambda: step_of(sender, g), repeats, device)
    topk = milliseconds(lambda: with_torch_topk(g, naive, k), max(1, repeats // 2), device)
    # A copy reads one vector and writes one; a step reads two.
    row = {"what": "EF21's step", "d": d, "kept": share, "ms": ours, "times_topk": topk / ours}
    row |= {"times_reading": ours / copy, "equal_again": equal, "ok": equal}
    if d == 10**8 and share == 0.01:
        row["targets_met"] = topk / ours >= TARGETS["topk"] and ours / copy <= TARGETS["floor"]
    settings.report(**row)


def tensors(message):
    """The columns of a message."""
    return [tensor for group in message.groups for tensor in group.tensors().values()]


def update(settings, g, h, copy, repeats, device):
    """One row: AdamW's update and moment of a vector in one launch."""
    numels, zero = np.array([g.numel()]), np.zeros(1, np.int64)
    rows = np.array([[1, 0, 1, 1, 0.999, 0.001, 0.1, 1e-8, 1e-3]], np.float32)
    out, after = torch.empty_like(g), torch.empty_like(g)
    own = [Vectors.flat(each, zero) for each in (out, g, h.abs(), after)]
    ms = milliseconds(lambda: gpu.adamw_both(*own, rows, numels), repeats, device)
    settings.report(what="AdamW's update", d=g.numel(), ms=ms, times_copy=ms / copy)


def exchange(settings, device, repeats):
    """Rows of a step's phases with four simulated peers, without a link."""
    d, tensors = settings.choose((125_000_000, 150), (125_000_000, 150), (3000, 6))
    sizes = {f"s{i}": (d // tensors,) for i in range(tensors)}
    layout = laconic.Layout.of(sizes)
    for name, feedback in (
        ("EF21, 1 % in bfloat16", laconic.EF21(laconic.TopK(0.01) >> laconic.Cast(torch.bfloat16))),
        ("EF14, 1 % in 1 bit", laconic.EF14(laconic.TopK(0.01) >> laconic.ScaledSign())),
    ):
        ends = Ends(layout, feedback, device, 5)
        g = (
            torch.randn(layout.d, device=device)
            if device.type == "cuda"
            else torch.randn(layout.d).to(device)
        )
        out = torch.empty_like(g)
        found = [ends.timed_step(g, out, lambda: clock(device)) for _ in range(2 + repeats)][2:] or [
            ends.timed_step(g, out, lambda: clock(device))
        ]
        phases = {phase: 1e3 * statistics.median(each[phase] for each in found) for phase in found[0]}
        total = sum(phases.values())
        settings.report(
            what="exchange",
            method=name,
            d=layout.d,
            **phases,
            ms=total,
            target_met=total <= TARGETS["exchange"],
        )
        del ends, g, out


def clock(device):
    """Seconds, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def milliseconds(work, repeats, device):
    """The median time of a call, after two that do not count."""
    for _ in range(2 if repeats > 1 else 0):
        work()
    found = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            work()
            found.append(1e3 * (time.perf_counter() - began))
    return statistics.median(found)
