"""Inequalities of the classes B1, B2, B3 and U on vectors: exact, or as means over many draws."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from laconic.compressors import Compressor, Constants
from laconic.kernels import Stream, shifted
from laconic.messages import accumulation_dtype
from laconic.testing._report import CompressorError, Worst, name_of

# ln(4 / p) with p = 10^-12 a comparison: a million comparisons raise a false alarm with probability 10^-6.
_LOG = math.log(4e12)
_ELEMENTS = 1 << 20


@dataclass
class Tally:
    """The worst ratio of each inequality so far, and whether anything was ever lost."""

    worst: dict[str, Worst] = field(default_factory=dict)
    vectors: int = 0
    lossy: bool = False
    claims_loss: bool = False

    def note(self, promise: str, ratios: Tensor, sample: "_Sample") -> None:
        """Keep the largest of some vectors' ratios."""
        # Zeros, subnormal vectors and bounds of 0 have ratios that tell of rounding only.
        plain = sample.unit[:, 0] < 1e-3
        ratios = torch.nan_to_num(torch.where(plain, ratios, 0), nan=0.0, posinf=0.0)
        row = int(ratios.argmax())
        ratio = float(ratios[row])
        if promise not in self.worst or ratio > self.worst[promise].ratio:
            self.worst[promise] = Worst(promise, ratio, sample.names[row], sample.d, sample.dtype)


@dataclass(frozen=True)
class _Sample:
    """Some vectors, each divided by a power of two, and what the draws made of them, in float64."""

    compressor: str
    names: list[str]
    d: int
    dtype: str
    eps: float
    x: Tensor  # (v, 1, d)
    c: Tensor  # (v, n, d)
    unit: Tensor  # (v, 1): the smallest subnormal number, divided likewise

    def refuse(self, promise: str, row: int, left: float, right: float, allowed: float) -> CompressorError:
        """The error for one vector."""
        draws = self.c.shape[1]
        means = f"means over {draws} draws, " if draws > 1 else ""
        return CompressorError(
            f"{self.compressor} breaks {promise}, on {self.names[row]!r} (d = {self.d}, {self.dtype}): "
            f"{left:.9g} against {right:.9g} ({means}{allowed:.3g} allowed for rounding and chance)"
        )


def check_classes(
    compressor: Compressor, c: Constants, found: dict[str, Tensor], draws: int, seed: int, tally: Tally
) -> None:
    """Hold the inequalities of every declared class against vectors of one length and dtype.

    A mean over draws may err by an empirical Bernstein margin (Maurer and Pontil, 2009) for outcomes
    that, unless larger ones were seen, reach max(1, beta, zeta) times the vector. Deterministic
    compressors get no margin but rounding.
    """
    x = torch.stack(list(found.values()))
    names, d = list(found), x.shape[-1]
    n = draws if compressor.random else 1
    step = max(1, _ELEMENTS // (n * d))
    # Seeds, not nodes: nodes may share their draws.
    stream = Stream(seed=torch.arange(n, device="cpu") + seed * 1_000_003, segment=d)
    tally.vectors += len(names)
    exact = True
    for start in range(0, len(names), step):
        rows = x[start : start + step].unsqueeze(1)
        output = compressor.compress(rows.expand(-1, n, -1), stream).dense()
        exact = exact and bool((output == rows).all())
        _check_sample(_sample(name_of(compressor), names[start : start + step], rows, output), c, tally)
    # What a dtype cannot show, as the loss that a cast to float32 declares, it need not show.
    claimed = max(c.zeta or 1.0, c.delta or 1.0) > 1.0 + 4.0 * torch.finfo(x.dtype).eps
    tally.claims_loss |= claimed
    tally.lossy |= not exact


def _sample(compressor: str, names: list[str], rows: Tensor, output: Tensor) -> _Sample:
    info, d = torch.finfo(accumulation_dtype(rows.dtype)), rows.shape[-1]
    dtype = str(rows.dtype).removeprefix("torch.")
    if not bool(torch.isfinite(output).all()):
        row = int((~torch.isfinite(output)).flatten(1).any(dim=-1).to(torch.int8).argmax())
        raise CompressorError(f"{compressor} breaks: C(x) is finite, on {names[row]!r} (d = {d}, {dtype})")
    x, c = rows.to(torch.float64), output.to(torch.float64)
    _, exponent = torch.frexp(x.abs().amax(dim=-1, keepdim=True))
    unit = torch.full(exponent.shape, info.smallest_normal * info.eps, dtype=torch.float64, device="cpu")
    return _Sample(
        compressor,
        names,
        d,
        dtype,
        info.eps,
        shifted(x, -exponent),
        shifted(c, -exponent),
        shifted(unit, -exponent)[..., 0],
    )


def _check_sample(s: _Sample, c: Constants, tally: Tally) -> None:
    square, inner = (s.c * s.c).sum(-1), (s.c * s.x).sum(-1)
    error = ((s.c - s.x) ** 2).sum(-1)
    x2 = (s.x * s.x).sum(-1)
    x1 = x2.sqrt()
    length = torch.maximum(x2, square.mean(-1, keepdim=True)).sqrt()
    # The length of what rounding, in the subnormal range too, may do to C(x).
    slack = 8 * s.eps * length + 2 * math.sqrt(s.d) * s.unit
    reach = x2[:, 0] * max(1.0, c.beta or 0.0, c.zeta or 0.0)

    def hold(promise: str, small: Tensor, large: Tensor, rounding: Tensor) -> None:
        """Refuse where the mean of ``small - large`` exceeds what rounding and chance allow."""
        left, right = (side.expand(square.shape).mean(-1) for side in (small, large))
        gap = (small - large).expand(square.shape)
        allowed = rounding[:, 0] + _margin(gap, reach)
        tally.note(promise.partition(":")[0], left / right, s)
        over = gap.mean(-1) - allowed
        row = int(over.argmax())
        if float(over[row]) > 0:
            raise s.refuse(promise, row, float(left[row]), float(right[row]), float(allowed[row]))

    if c.alpha is not None:
        least = c.alpha * x2
        promise = f"B1 (lower): {c.alpha:.6g} |x|^2 <= E|C(x)|^2"
        hold(promise, least, square, slack * (2 * least.sqrt() + slack))
    if c.beta is not None:
        promise = f"B1, B2 (upper): E|C(x)|^2 <= {c.beta:.6g} <E C(x), x>"
        hold(promise, square, c.beta * inner, slack * (2 * length + c.beta * x1 + slack))
    if c.gamma is not None:
        hold(f"B2 (lower): {c.gamma:.6g} |x|^2 <= <E C(x), x>", c.gamma * x2, inner, slack * x1)
    if c.delta is not None:
        lost = max(0.0, 1.0 - 1.0 / c.delta)
        most = lost * x2
        promise = f"B3: E|C(x) - x|^2 <= (1 - 1/{c.delta:.6g}) |x|^2"
        hold(promise, error, most, slack * (2 * most.sqrt() + slack))
    if c.zeta is not None:
        most = c.zeta * x2
        promise = f"U (second moment): E|C(x)|^2 <= {c.zeta:.6g} |x|^2"
        hold(promise, square, most, slack * (2 * most.sqrt() + slack))
        _check_mean(s, x1[:, 0] * max(1.0, c.zeta))


def _check_mean(s: _Sample, reach: Tensor) -> None:
    """Unbiasedness, coordinate by coordinate."""
    gap = (s.c - s.x).transpose(1, 2)
    rounding = 8 * s.eps * s.x[:, 0].abs() + 2 * s.unit
    allowed = rounding + _margin(gap, reach.unsqueeze(-1))
    over = gap.mean(-1).abs() - allowed
    row, i = divmod(int(over.argmax()), s.d)
    if float(over[row, i]) > 0:
        mean, x = float(s.c[row, :, i].mean()), float(s.x[row, 0, i])
        promise = f"U (unbiased): E C(x) = x in coordinate {i}"
        raise s.refuse(promise, row, mean, x, float(allowed[row, i]))


def _margin(gap: Tensor, reach: Tensor) -> Tensor:
    """How far the mean over the last dimension may be from the expectation."""
    n = gap.shape[-1]
    if n == 1:
        return torch.zeros(gap.shape[:-1], dtype=gap.dtype, device="cpu")
    spread = torch.maximum(gap.amax(-1) - gap.amin(-1), reach)
    return (2 * gap.var(-1) * _LOG / n).sqrt() + 7 * spread * _LOG / (3 * (n - 1))
