"""Golden hashes: running senders and a receiver on given gradients, hashing and comparing what they hold.

Gradients are made of the library's Philox words by exact operations and one rounded sum, never by a model,
and no number of a case goes through a power function, BLAS or libm. (Factors of ``contractive()`` may, in
float64; they multiply float32 numbers, which hides a last bit.) So the hashes are the same on every machine,
for any number of threads and any version of PyTorch.
"""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from laconic.feedback import Feedback
from laconic.kernels import Purpose, Stream, set_threads
from laconic.layout import Layout

FILE = Path(__file__).with_name("hashes.json")
NODES = 2
SEED = 11
Hashes = dict[str, str]
"""From what was hashed to its hash, or to the hashes of all rounds, separated by spaces."""


def hash_of(tensor: Tensor) -> str:
    """16 hex digits of the SHA-256 of dtype, shape and little-endian bytes."""
    size = tensor.element_size()
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(integers[size]).numpy()
    head = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} "
    return hashlib.sha256(head.encode() + raw.astype(f"<i{size}").tobytes()).hexdigest()[:16]


def numbers(count: int, place: Stream, coarse: bool = False) -> Tensor:
    """Exact float32 numbers in (-1, 1], of magnitudes that span eight powers of two, some 0 and none -0.

    Coarse ones have 5 bits, so that many magnitudes are equal.
    """
    words = place.words(count, Purpose.COIN)
    mantissa = (words >> 26) - (1 << 5) if coarse else (words >> 8) - (1 << 23)
    unit = 2.0 ** (-5 if coarse else -23)
    scales = torch.tensor([unit * 2.0**-e for e in range(8)], dtype=torch.float32)
    found = mantissa.to(torch.float32) * scales[words & 7]
    return torch.where((words >> 3) & 31 == 0, 0.0, found)


@lru_cache(maxsize=16)
def given(layout: Layout, round: int, node: int) -> Tensor:
    """A node's gradient: float32 (d), what stays from round to round and a smaller part that changes."""
    parts = []
    for s in layout.segments:
        always = numbers(s.numel, Stream(SEED, 1000, node, s.number), coarse=s.number % 3 == 2)
        now = numbers(s.numel, Stream(SEED, round, node, s.number), coarse=s.number % 3 == 2)
        parts.append(always + now * 0.25)
    return torch.cat(parts)


@dataclass(frozen=True)
class Case:
    """A method on a layout.

    Args:
        method: the feedback with its compressor.
        layout: what is sent.
        rounds: how many.
        dtype: of the gradients.
        stepsize: given to ``send``, or None.
        decoded: whether messages are hashed beside estimates and memories.
        threads: whether two threads share vectors of this length too.
        slow: whether the fast lane leaves it out.
    """

    method: Feedback
    layout: Layout
    rounds: int
    dtype: torch.dtype = torch.float32
    stepsize: float | None = None
    decoded: bool = True
    threads: bool = False
    slow: bool = False

    def run(self) -> Hashes:
        """The hashes of estimates, decoded messages, and memories at the end."""
        if self.threads:
            with sharing_threads():
                return self._run()
        return self._run()

    def _run(self) -> Hashes:
        senders = [self.method.sender(self.layout, node=i, seed=SEED) for i in range(NODES)]
        receiver = self.method.receiver(self.layout, nodes=NODES)
        rounds: dict[str, list[str]] = {"estimate": []}
        settings = {} if self.stepsize is None else {"stepsize": self.stepsize}
        for t in range(self.rounds):
            # The sum turns a -0 that a narrow dtype rounds to into 0.
            gradients = [given(self.layout, t, i).to(self.dtype) + 0.0 for i in range(NODES)]
            messages = [s.send(g, **settings) for s, g in zip(senders, gradients, strict=True)]
            if self.decoded:
                for i, message in enumerate(messages):
                    rounds.setdefault(f"message of node {i}", []).append(hash_of(message.dense()))
            rounds["estimate"].append(hash_of(receiver.receive(messages)))
        found = {what: " ".join(hashes) for what, hashes in rounds.items()}
        ends = {**{f"sender {i}": s for i, s in enumerate(senders)}, "the receiver": receiver}
        for end, remembers in ends.items():
            for name, tensor in memories(remembers.state_dict()):
                what = f"{name} of {end}"
                assert what not in found, f"two memories are called {what!r}"
                found[what] = hash_of(tensor)
        return found


def memories(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each tensor in a state dict, however deep, save those that are 0 throughout.

    A memory that is None and one that is full of zeros say the same.
    """
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from memories(value)
        elif isinstance(value, Tensor) and bool(value.contiguous().reshape(-1).view(torch.uint8).any()):
            yield name, value


@contextmanager
def sharing_threads() -> Iterator[None]:
    """Inside, two threads share vectors of a few 10,000 numbers.

    The thresholds are private to the kernels: those that are not there any more are passed over.
    """
    lower = {"selection": {"_WORTH": 1 << 14, "_CUT": 1 << 16}, "scatter": {"_WORTH": 1 << 8}}
    set_threads(2)
    try:
        with ExitStack() as stack:
            for name, thresholds in lower.items():
                try:
                    module = importlib.import_module(f"laconic.kernels.cpu.{name}")
                except ImportError:
                    continue
                for threshold, value in thresholds.items():
                    if hasattr(module, threshold):
                        stack.enter_context(mock.patch.object(module, threshold, value))
            yield
    finally:
        set_threads(None)


def stored() -> dict[str, Hashes]:
    """All cases in the file."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def store(cases: Mapping[str, Hashes]) -> None:
    """Write the file."""
    FILE.write_text(json.dumps(dict(cases), indent=1) + "\n")


def differences(expected: Hashes, found: Hashes) -> list[str]:
    """A line for each hash that differs, saying what it is of."""
    lines = [f"{what}: stored, but not found or 0" for what in expected.keys() - found.keys()]
    lines += [f"{what}: found, but not stored" for what in found.keys() - expected.keys()]
    for what in [what for what in expected if what in found]:
        old, new = expected[what].split(), found[what].split()
        if len(old) != len(new):
            lines.append(f"{what}: {len(old)} hashes stored, {len(new)} found")
        for t, (a, b) in enumerate(zip(old, new, strict=False)):
            if a != b:
                of_round = f" of round {t}" if len(old) > 1 else ""
                lines.append(f"{what}{of_round}: stored {a}, found {b}")
    return lines
