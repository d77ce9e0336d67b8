"""Benchmark of packed messages: bits against the entropy bound, and speed on one core."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from laconic.bench.timing import Clock
from laconic.compressors import BlockQuantizer, ClippedExponent, Compressor, NaturalCompression, Ternary, TopK
from laconic.demo._model import CONTEXT, ByteTransformer, loss_of
from laconic.demo._text import read_corpus, share, windows
from laconic.feedback import EF21
from laconic.formats.sizes import FRAME_BYTES, base_bytes, side_bytes, value_bytes
from laconic.kernels import Stream, warm_up_packing
from laconic.kernels.group_positions import get_adaptive, get_positions, put_adaptive, put_positions
from laconic.kernels.position_plan import position_plan
from laconic.kernels.tables import Integers
from laconic.layout import Layout
from laconic.messages import Message
from laconic.wire import packed_size
from laconic.wire._values import get_codes, put_codes


@dataclass(frozen=True)
class PositionRow:
    """Uniform positions of one density: bits each, their ratio to the bound, millions a second."""

    density: float
    form: str
    bound: float
    bits: float
    ratio: float
    encode: float
    decode: float
    both: float


@dataclass(frozen=True)
class ValueRow:
    """Values: bits each with scales, and GB of float32 a second from numbers to bytes and back."""

    name: str
    bits: float
    encode: float
    decode: float


@dataclass(frozen=True)
class MessageRow:
    """Whole messages, frame excluded: bits for each kept coordinate; the bound is that of its positions."""

    name: str
    kept: int
    bound: float
    positions: float
    ratio: float
    total: float


_LAST = 10
"""Rounds whose messages are counted; one round alone says little."""


def bound(d: int, k: int) -> float:
    """log2 C(d, k) / k."""
    nats = math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)
    return nats / math.log(2) / k


def uniform_positions(d: int, k: int) -> Integers:
    """k ascending positions of d, every set as likely."""
    rng = np.random.default_rng(k)
    drawn = np.unique(rng.integers(0, d, int(1.2 * k) + 20))
    return np.sort(rng.permutation(drawn)[:k])


def measure_positions(d: int, repeats: int) -> Iterator[PositionRow]:
    """Fixed and adaptive sizes at 0.1, 1 and 10 %."""
    warm_up_packing()
    for density in (0.001, 0.01, 0.1):
        k = math.ceil(density * d)
        positions = uniform_positions(d, k)
        yield _position_row("fixed", density, d, positions, repeats)
        yield _position_row("adaptive", density, d, positions, repeats)


def _position_row(form: str, density: float, d: int, positions: Integers, repeats: int) -> PositionRow:
    k = positions.size
    plan, clock = position_plan([d], [k]), Clock()
    packed = np.empty(plan.nbytes, np.uint8) if form == "fixed" else put_adaptive(positions, plan)
    if form == "fixed":
        encode = clock.fastest(lambda: put_positions(positions, plan, packed), repeats)
        decode = clock.fastest(lambda: get_positions(packed, plan), repeats)
    else:
        encode = clock.fastest(lambda: put_adaptive(positions, plan), repeats)
        decode = clock.fastest(lambda: get_adaptive(packed, plan), repeats)
    bits, least = 8 * packed.size / k, bound(d, k)
    rates = (k / seconds / 1e6 for seconds in (encode, decode, encode + decode))
    return PositionRow(density, form, least, bits, bits / least, *rates)


def measure_values(k: int, repeats: int) -> Iterator[ValueRow]:
    """From numbers to bytes and back, selection excluded."""
    x = torch.randn(k, generator=torch.Generator().manual_seed(0)) ** 3
    for name, compressor in (
        ("4 bits", BlockQuantizer(4)),
        ("8 bits", BlockQuantizer(8)),
        ("3 bits", BlockQuantizer(3)),
        ("2 bits", BlockQuantizer(2)),
        ("natural", NaturalCompression()),
        ("clipped exponent, 3 bits", ClippedExponent(2)),
        ("ternary", Ternary()),
    ):
        yield _value_row(name, compressor, x, repeats if name.endswith("bits") else min(repeats, 3))


def _value_row(name: str, compressor: Compressor, x: torch.Tensor, repeats: int) -> ValueRow:
    (group,) = compressor.encode(x, Stream(0)).groups
    one, kind, k = group.format, group.format.kind, x.numel()
    assert kind.grid is not None
    bases = np.empty(base_bytes(kind.grid, kind.dtype), np.uint8)
    packed = np.empty(value_bytes(kind, k), np.uint8)

    def encode() -> None:
        put_codes(compressor.encode(x, Stream(0)).groups[0].values, one, None, bases, packed)

    def decode() -> None:
        group.with_tensors({"values": get_codes(bases, packed, one, None)}).decode()

    rates = (4 * k / Clock().fastest(run, repeats) / 1e9 for run in (encode, decode))
    return ValueRow(name, 8 * (packed.size + side_bytes(one)) / k, *rates)


def measure_messages(d: int) -> Iterator[MessageRow]:
    """1 % of a vector of independent normal numbers, with 4-bit values."""
    method = TopK(0.01) >> BlockQuantizer(4)
    message = method.compress(torch.randn(d, generator=torch.Generator().manual_seed(0)))
    yield message_row("normal, fixed size", [message], adaptive=False)
    yield message_row("normal, adaptive", [message], adaptive=True)


def measure_real(rounds: int, nodes: int = 4) -> Iterator[MessageRow]:
    """EF21 messages of the demo's transformer on Python's own sources: all nodes', of the last rounds."""
    torch.manual_seed(0)
    model = ByteTransformer()
    layout = Layout.of(dict(model.named_parameters()))
    text, _ = read_corpus()
    for name, place in (("whole model", Layout.flat(layout.d)), ("by parameter", layout)):
        messages = _train(model, place, text, rounds, nodes)
        yield message_row(f"EF21, {name}, fixed size", messages, adaptive=False)
        yield message_row(f"EF21, {name}, adaptive", messages, adaptive=True)


def _train(
    model: ByteTransformer, layout: Layout, text: torch.Tensor, rounds: int, nodes: int
) -> list[Message]:
    torch.manual_seed(0)
    method = EF21(TopK(0.01) >> BlockQuantizer(4))
    senders = [method.sender(layout, node=node) for node in range(nodes)]
    receiver = method.receiver(layout, nodes=nodes)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    kept: list[Message] = []
    for number in range(rounds + 1):
        messages: list[Message] = []
        for node, sender in enumerate(senders):
            own = share(text, node, nodes)
            inputs, following = windows(own, torch.randint(own.numel() - CONTEXT - 1, (16,)), CONTEXT)
            gradients = torch.autograd.grad(loss_of(model, inputs, following), parameters)
            messages.append(sender.send(torch.cat([g.flatten() for g in gradients])))
        if number > max(0, rounds - _LAST):  # the first round is dense
            kept += messages
        estimate = receiver.receive(messages)
        offset = 0
        for parameter in parameters:
            parameter.grad = estimate[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
        optimizer.step()
    return kept


def message_row(name: str, messages: list[Message], *, adaptive: bool) -> MessageRow:
    """Bits of messages of one format between ends that share it, on average."""
    known = messages[0].format.adapted() if adaptive else messages[0].format
    size, places = 0, 0
    for message in messages:
        size += packed_size(message, expect=known) - FRAME_BYTES
        for group in message.groups:
            assert group.positions is not None
            plan = group.format.plan
            places += put_adaptive(group.positions, plan).size if adaptive else plan.nbytes
    segments = known.segment_formats
    kept = sum(one.k for one in segments)
    least = sum(bound(one.d, one.k) * one.k for one in segments) / kept
    each = 8 * places / kept / len(messages)
    return MessageRow(name, kept, least, each, each / least, 8 * size / kept / len(messages))
