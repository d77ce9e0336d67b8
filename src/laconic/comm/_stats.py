"""Statistics of an exchange: steps, bytes, time by phase, waiting."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

PHASES = ("select", "pack", "communicate", "unpack", "apply")
SCALARS = (
    "steps", "skipped", "bytes_sent", "bytes_received", "bytes_bf16", "ratio_to_bf16",
    "exposed", "hidden", "waited", "latest_rank", "relative_error",
)  # fmt: skip
RATES = ("bytes_sent", "bytes_received", "exposed", "waited")


@dataclass(frozen=True)
class Stats:
    """Totals since the start, of this rank.

    Args:
        steps: steps that were committed.
        skipped: steps that were rolled back because some rank's numbers were not finite.
        bytes_sent: bytes handed to collectives for the other ranks: n - 1 copies of each message, and of 8
            bytes for ``waited_for`` and the ranks' agreement; where sizes vary, of these too. The 16 bytes by
            which ranks compare settings now and then are not counted.
        bytes_received: bytes that came from the other ranks.
        bytes_bf16: what a ring all-reduce of the same numbers in bfloat16 sends, 2 (n - 1) / n * 2 d a step.
        seconds: by phase: select (feedback and compressor), pack, communicate, unpack, apply. Waiting for
            ranks that come later is in "communicate"; ``waited`` says how much of it that is.
        exposed: seconds from the arrival of each step's last bucket to the end of the step, in which the
            caller had nothing to do but wait.
        relative_error: this rank's |x - what listeners know of x|^2 / |x|^2 in the last step in which it was
            measured, with x its gradient (EF14: what waits to be sent); NaN where it never was.
        waited_for: seconds by rank: how long this rank waited in collectives to which that rank came last. A
            rank that others wait for has 0 here itself. Every rank sends how long it worked since the last
            collective; links on which ranks leave it at different times blur this by the difference.
        bytes_per_parameter: of an optimiser, from its first step on: what this rank holds beside parameters
            and gradients. "state" is what the optimiser remembers, "memory" what feedback remembers,
            "scratch" second buffers and room for messages, which hold nothing between steps.
    """

    steps: int
    skipped: int
    bytes_sent: int
    bytes_received: int
    bytes_bf16: int
    seconds: dict[str, float]
    exposed: float = 0.0
    relative_error: float = float("nan")
    waited_for: tuple[float, ...] = (0.0,)
    bytes_per_parameter: Mapping[str, float] = field(default_factory=dict)

    def with_held(self, held: Mapping[str, int], numbers: int) -> "Stats":
        """With the bytes that are held, by kind, for so many parameters."""
        return replace(self, bytes_per_parameter={kind: size / numbers for kind, size in held.items()})

    def scalars(self, since: "Stats | None" = None) -> dict[str, float]:
        """Every number by a name of its own, for any ``log(dict)``: totals, and rates a step.

        Totals: ``steps``, ``skipped``, ``bytes_sent``, ``bytes_received``, ``bytes_bf16``, ``exposed``,
        ``waited`` (the sum of ``waited_for``), ``seconds_PHASE``; ``ratio_to_bf16`` and ``hidden`` of these;
        of an optimiser ``bytes_per_parameter_KIND``;
        ``latest_rank`` and ``relative_error`` as they stand. NaN stands for what is not known. Rates, over
        committed and skipped steps: ``bytes_sent_per_step``, ``bytes_received_per_step``,
        ``exposed_per_step``, ``waited_per_step`` and ``seconds_per_step_PHASE``.

        Args:
            since: earlier statistics; the rates are then of the steps since. By default of all steps.
        """
        found = {name: getattr(self, name) for name in SCALARS}
        values = {name: float("nan" if value is None else value) for name, value in found.items()}
        values |= {f"seconds_{phase}": value for phase, value in self.seconds.items()}
        values |= {f"bytes_per_parameter_{kind}": value for kind, value in self.bytes_per_parameter.items()}
        steps = self.steps + self.skipped - (0 if since is None else since.steps + since.skipped)
        rates = {f"{name}_per_step": (getattr(self, name), getattr(since, name, 0)) for name in RATES}
        for phase, value in self.seconds.items():
            rates[f"seconds_per_step_{phase}"] = value, 0.0 if since is None else since.seconds[phase]
        per_step = {
            name: (now - before) / steps if steps else float("nan") for name, (now, before) in rates.items()
        }
        return values | per_step

    @property
    def waited(self) -> float:
        """Seconds that this rank waited in collectives for ranks that came later."""
        return sum(self.waited_for)

    @property
    def latest_rank(self) -> int | None:
        """The rank that this one waited for longest; None where it waited for none."""
        return self.waited_for.index(max(self.waited_for)) if self.waited else None

    @property
    def hidden(self) -> float:
        """The share of the time in all phases that passed while the caller was still busy; NaN at first."""
        total = sum(self.seconds.values())
        return max(0.0, 1.0 - self.exposed / total) if total else float("nan")

    @property
    def ratio_to_bf16(self) -> float:
        """Bytes sent over those of a bfloat16 ring all-reduce; NaN on a single rank."""
        return self.bytes_sent / self.bytes_bf16 if self.bytes_bf16 else float("nan")


@dataclass
class Counter:
    """The running totals behind :class:`Stats`."""

    steps: int = 0
    skipped: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_bf16: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    exposed: float = 0.0
    waited_for: list[float] = field(default_factory=lambda: [0.0])
    measuring: bool = False
    error: tuple[float, float] = (0.0, 0.0)

    def measure(self, wanted: bool) -> None:
        """Measure in this step, or do not."""
        self.measuring = wanted
        if wanted:
            self.error = 0.0, 0.0

    def add_error(self, missing: float, whole: float) -> None:
        """Add a bucket's squared norms."""
        self.error = self.error[0] + missing, self.error[1] + whole

    def add_bf16(self, numbers: int, ranks: int) -> None:
        """Add what a ring all-reduce of so many numbers in bfloat16 sends."""
        self.bytes_bf16 += 2 * (ranks - 1) * 2 * numbers // ranks

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside, and name it in a profiler's trace."""
        start = time.perf_counter()
        with torch.profiler.record_function(f"laconic::{name}"):
            yield
        self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Count no bytes and no waiting inside, where they belong to no step."""
        before = self.bytes_sent, self.bytes_received, list(self.waited_for)
        yield
        self.bytes_sent, self.bytes_received, self.waited_for[:] = before

    def stats(self) -> Stats:
        """The totals as they stand."""
        return Stats(
            steps=self.steps,
            skipped=self.skipped,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            bytes_bf16=self.bytes_bf16,
            seconds=dict(self.seconds),
            exposed=self.exposed,
            relative_error=self.error[0] / self.error[1] if self.error[1] else float("nan"),
            waited_for=tuple(self.waited_for),
        )
