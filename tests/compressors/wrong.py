"""Compressors that are wrong, each in one way: ``check_compressor`` must refuse every one of them.

``WRONG`` lists (compressor, what the refusal must speak of).
"""

import math
from dataclasses import dataclass, field, replace

import torch

from laconic import Compressor, Constants, NaturalCompression, RandomDithering, TopK
from laconic.compressors import Compressed, NotFiniteError
from laconic.compressors._base import unbiased
from laconic.formats.grids import GeometricGrid, UniformLevels, level_table
from laconic.kernels import Purpose, canonical_sum, norm, top_k_positions
from laconic.kernels.tables import SegmentedVector
from laconic.messages import Message, Part, accumulation_dtype


def everything(x, values=None):
    """A message of all coordinates."""
    values = x.to(accumulation_dtype(x.dtype), copy=True) if values is None else values
    return Message((Part(d=x.shape[-1], values=values, dtype=values.dtype),))


def at(x, positions, factor=1.0):
    """A message of some coordinates of x."""
    return Message(
        (
            Part(
                d=x.shape[-1],
                values=x.gather(-1, positions),
                dtype=x.dtype,
                positions=positions,
                factor=factor,
            ),
        )
    )


def top_constants(k, d):
    return Constants(alpha=k / d, beta=1.0, gamma=k / d, delta=d / k)


@dataclass(frozen=True)
class IdentityCalledDithering(Compressor):
    levels: int = 4

    def encode(self, x, draw):
        return everything(x)

    def constants(self, d):
        return RandomDithering(self.levels).constants(d)


@dataclass(frozen=True)
class RandomIdentityCalledDithering(IdentityCalledDithering):
    random = True


@dataclass(frozen=True)
class SignedTopK(Compressor):
    """The largest values instead of the largest magnitudes."""

    k: int = 1

    def encode(self, x, draw):
        return at(x, x.to(torch.float64).topk(self.k, dim=-1).indices.sort(dim=-1).values)

    def constants(self, d):
        return TopK(self.k).constants(d)


@dataclass(frozen=True)
class TopKShortByOne(Compressor):
    k: int = 2

    def encode(self, x, draw):
        return at(x, top_k_positions(x, self.k - 1))

    def constants(self, d):
        return TopK(self.k).constants(d)


@dataclass(frozen=True)
class TopKTooSmallDelta(Compressor):
    k: int = 1

    def encode(self, x, draw):
        return at(x, top_k_positions(x, self.k))

    def constants(self, d):
        return Constants(delta=max(1.0, 0.99 * d / self.k))


@dataclass(frozen=True)
class ThreePositions(Compressor):
    """Positions in the order of magnitude, and no ascending order."""

    def encode(self, x, draw):
        return at(x, x.to(torch.float64).abs().topk(min(3, x.shape[-1]), dim=-1).indices)

    def constants(self, d):
        return TopK(min(3, d)).constants(d)


@dataclass(frozen=True)
class GridRounding(Compressor):
    """Unbiased rounding to powers of two, but for one twist."""

    twist: str = "none"

    random = True

    def encode(self, x, draw):
        x = x.to(accumulation_dtype(x.dtype))
        table = level_table(GeometricGrid((1.0, 2.0)), x.dtype, x.device)
        below = torch.searchsorted(table[1:].contiguous(), x.abs(), right=True)
        above = (below + 1).clamp(max=len(table) - 1)
        low, high = table[below], table[above]
        share = (x.abs() - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)
        if self.twist == "swapped":
            share = torch.where(share > 0, 1 - share, 0)
        if self.twist == "truncated":
            share = torch.zeros_like(share)
        up = draw.uniform(x.shape[-1], Purpose.ROUNDING) < share
        chosen = torch.where(up, above, below)
        if self.twist == "one level too high":
            chosen = torch.where(chosen > 0, (chosen + 1).clamp(max=len(table) - 1), 0)
        return everything(x, table[chosen] * x.sign())

    def constants(self, d):
        return NaturalCompression().constants(d)


@dataclass(frozen=True)
class RescaledAdaptiveRandom(Compressor):
    """One coordinate by its magnitude, divided by its probability; the constants of the biased one."""

    random = True

    def encode(self, x, draw):
        size = x.to(torch.float64).abs()
        size = size / size.amax(dim=-1, keepdim=True).clamp(min=5e-324)
        level = draw.coin(Purpose.SELECTION).unsqueeze(-1) * size.sum(-1, keepdim=True)
        chosen = (size.cumsum(-1) > level).to(torch.int8).argmax(dim=-1, keepdim=True)
        values = x.to(accumulation_dtype(x.dtype)).gather(-1, chosen)
        total = size.sum(-1, keepdim=True) / size.gather(-1, chosen).clamp(min=5e-324)
        values = (values * total).to(values.dtype)
        values = torch.where(torch.isfinite(values), values, 0)
        return Message((Part(d=x.shape[-1], values=values, dtype=values.dtype, positions=chosen),))

    def constants(self, d):
        return top_constants(1, d)


@dataclass(frozen=True)
class Half(Compressor):
    """Keeps each coordinate with probability 1/2, times 2, with draws from ``source``."""

    source: str

    random = True

    def encode(self, x, draw):
        d = x.shape[-1]
        if self.source == "global torch":
            draws = torch.rand(x.shape, dtype=torch.float64)
        elif self.source == "one for all nodes":
            draws = replace(draw, node=0).uniform(d, Purpose.SELECTION)
        elif self.source == "no round":
            draws = replace(draw, round=0).uniform(d, Purpose.SELECTION)
        else:
            draws = draw.uniform(d, Purpose.SELECTION)
        if self.source == "moves torch":
            torch.rand(1)
        wide = x.to(accumulation_dtype(x.dtype))
        return everything(x, torch.where(draws < 0.5, 2 * wide, 0))

    def constants(self, d):
        return unbiased(2.0)


@dataclass(frozen=True)
class NeedsNoGenerator(Half):
    def _stream(self, x, generator):
        return super()._stream(x, generator or torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class SaysNotRandom(Half):
    random = False

    def _stream(self, x, generator):
        return super()._stream(x, generator or torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class RandKFlawed(Compressor):
    """Rand-k, with replacement or with another factor."""

    k: int = 2
    replacement: bool = False
    factor: str = "d/k"

    random = True

    def encode(self, x, draw):
        d = x.shape[-1]
        if self.replacement:
            # Two equal draws count once, so that positions stay distinct.
            kept = torch.zeros(x.shape, dtype=torch.bool)
            index = (draw.uniform(self.k, Purpose.SELECTION) * d).to(torch.int64)
            kept.scatter_(-1, index.expand(*x.shape[:-1], -1), True)
        else:
            kept = draw.uniform(d, Purpose.SELECTION).argsort(dim=-1).argsort(dim=-1) < self.k
        factor = d / self.k if self.factor == "d/k" else (d - self.k) / self.k
        wide = x.to(accumulation_dtype(x.dtype))
        return everything(x, torch.where(kept, wide * factor, 0))

    def constants(self, d):
        if self.k > d:
            raise ValueError("k > d")
        return unbiased(d / self.k)


@dataclass(frozen=True)
class DitheringWrongNorm(Compressor):
    """Sends the 2-norm but divides by the largest magnitude."""

    random = True

    def encode(self, x, draw):
        x = x.to(accumulation_dtype(x.dtype))
        largest = norm(x, math.inf).to(x.dtype).unsqueeze(-1)
        share = x.abs() / torch.where(largest > 0, largest, 1)
        up = draw.uniform(x.shape[-1], Purpose.ROUNDING) < share
        codes = (up * x.sign()).to(torch.int32)
        scale = norm(x, 2).to(x.dtype).unsqueeze(-1)
        return Message(
            (Part(d=x.shape[-1], values=codes, dtype=x.dtype, grid=UniformLevels(1), scale=scale),)
        )

    def constants(self, d):
        return unbiased(1.0 + math.sqrt(d))


@dataclass(frozen=True)
class SignWithOneScaleForAllRows(Compressor):
    keeps_zeros = False

    def encode(self, x, draw):
        wide = x.to(accumulation_dtype(x.dtype))
        scale = canonical_sum(wide.abs().to(torch.float64) / x.shape[-1]).mean().to(wide.dtype)
        return everything(x, torch.where(wide < 0, -scale, scale))

    def constants(self, d):
        return Constants()


@dataclass(frozen=True)
class MeanMagnitudeSignKeepingZeros(Compressor):
    """Scaled sign with the sign of 0 plus, which says that zeros stay."""

    def encode(self, x, draw):
        wide = x.to(accumulation_dtype(x.dtype))
        scale = canonical_sum(wide.abs().to(torch.float64) / x.shape[-1]).to(wide.dtype).unsqueeze(-1)
        return everything(x, torch.where(wide < 0, -scale, scale))

    def constants(self, d):
        return top_constants(1, d)


@dataclass(frozen=True)
class LeansToOneSide(Compressor):
    """Adds a vector at right angles to x: all inner products as in U(2), only the mean is not x."""

    keeps_zeros = False

    def encode(self, x, draw):
        wide = x.to(accumulation_dtype(x.dtype))
        half = x.shape[-1] // 2
        first, second, rest = wide.split((half, half, x.shape[-1] - 2 * half), dim=-1)
        return everything(x, torch.cat((first - second, second + first, rest), dim=-1))

    def constants(self, d):
        return unbiased(2.0)


@dataclass(frozen=True)
class SharesItsInput(Compressor):
    def encode(self, x, draw):
        return Message((Part(d=x.shape[-1], values=x, dtype=x.dtype),))

    def constants(self, d):
        return unbiased(1.0)


@dataclass(frozen=True)
class HalvesInPlace(Compressor):
    def encode(self, x, draw):
        x.mul_(0.5)
        return everything(x)

    def constants(self, d):
        return Constants(alpha=0.25, beta=0.5, gamma=0.5, delta=4.0 / 3.0)


@dataclass(frozen=True)
class KeepsState(Compressor):
    """Adds what it lost last time: error feedback where none belongs."""

    lost: dict = field(default_factory=dict, compare=False)

    def encode(self, x, draw):
        carried = x + self.lost.get(x.shape, 0.0)
        message = TopK(1).encode(carried, draw)
        self.lost[x.shape] = x - message.dense().to(x.dtype)
        return message

    def constants(self, d):
        return TopK(1).constants(d)


@dataclass(frozen=True)
class WrongTogether(Compressor):
    """Top-1 whose joint form is wrong."""

    twist: str

    def encode(self, x, draw):
        return TopK(1).encode(x, draw)

    def constants(self, d):
        return TopK(1).constants(d)

    def compress_together(self, job):
        if self.twist == "forgets the memory":
            return TopK(1).compress_together(replace(job, memory=None, update="none"))
        try:
            found = TopK(1).compress_together(job)
        except NotFiniteError:
            if self.twist == "takes NaN" and job.update == "none":
                finite = SegmentedVector(job.target.flattened().nan_to_num())
                return TopK(1).compress_together(replace(job, target=finite))
            if self.twist == "moves before it refuses" and job.update == "track":
                job.memory.add_(1.0)
            raise
        if found is None:
            return None
        if self.twist == "mixes segments":
            return Compressed(replace(found.group, values=found.group.values.flip(-1)), found.undo)
        track, drain = job.update == "track", job.update == "drain"
        if self.twist == "moves twice" and track:
            found.group.add_to(job.memory, 1.0)
        if self.twist == "moves and says it has not" and track:
            return Compressed(found.group)
        if self.twist == "undoes nothing" and track:
            return Compressed(found.group, lambda memory: None)
        if self.twist == "undoes too much" and track:
            return Compressed(found.group, lambda memory: memory.zero_())
        if self.twist == "sends another" and drain:
            return Compressed(replace(found.group, values=found.group.values * 0.5), found.undo)
        if self.twist == "takes nothing away" and drain:
            found.group.add_to(job.out, 1.0)
        if self.twist == "drains in place" and drain:
            job.memory.copy_(job.out)
        return found


@dataclass(frozen=True)
class FailsOnZeros(Compressor):
    def encode(self, x, draw):
        if not bool(x.any(dim=-1).all()):
            raise ZeroDivisionError("a row of zeros")
        return everything(x)

    def constants(self, d):
        return unbiased(1.0)


@dataclass(frozen=True)
class DividesZeroByZero(Compressor):
    def encode(self, x, draw):
        wide = x.to(accumulation_dtype(x.dtype))
        return everything(x, wide / wide.abs().amax(dim=-1, keepdim=True) * wide.abs().amax(-1, keepdim=True))

    def constants(self, d):
        return unbiased(1.0)


@dataclass(frozen=True)
class Declares(Compressor):
    """The identity, with any constants."""

    declared: Constants

    def encode(self, x, draw):
        return everything(x)

    def constants(self, d):
        return self.declared


def declares(**constants):
    return Declares(Constants(**constants))


WRONG = [
    (IdentityCalledDithering(), "declares a loss loses something"),
    (RandomIdentityCalledDithering(), "declares a loss loses something"),
    (SignedTopK(), r"B1 \(lower\).* on '"),
    (TopKShortByOne(), r"B1 \(lower\).* on '"),
    (TopKTooSmallDelta(), r"B3: .* on '"),
    (ThreePositions(), "positions ascend"),
    (GridRounding("swapped"), r"B1 \(lower\)|U \(unbiased\)"),
    (GridRounding("truncated"), r"B1 \(lower\)|B2 \(lower\)|U \(unbiased\)"),
    (GridRounding("one level too high"), r"B1, B2 \(upper\)|U \("),
    (RescaledAdaptiveRandom(), r"B1, B2 \(upper\)"),
    (Half("global torch"), "no state is kept|global random state"),
    (Half("moves torch"), "global random states stay as they are .*: that of torch moved"),
    (Half("one for all nodes"), "another node gives other draws"),
    (Half("no round"), "another round gives other draws"),
    (NeedsNoGenerator("draw"), "without a generator raises ValueError"),
    (SaysNotRandom("draw"), "random = False: another generator gives the same message|B1|B2|B3|U"),
    (RandKFlawed(replacement=True), r"B1 \(lower\)|B2 \(lower\)|U \(unbiased\)"),
    (RandKFlawed(factor="(d-k)/k"), r"B1 \(lower\)|B2 \(lower\)|U \(unbiased\)"),
    (DitheringWrongNorm(), r"U \(unbiased\)|U \(second moment\)|B1, B2 \(upper\)"),
    (LeansToOneSide(), r"U \(unbiased\): E C\(x\) = x in coordinate"),
    (SignWithOneScaleForAllRows(), "each row of a batch is compressed on its own|C\\(0\\) = 0"),
    (MeanMagnitudeSignKeepingZeros(), "keeps_zeros"),
    (SharesItsInput(), "must not share x"),
    (HalvesInPlace(), "leaves x as it was"),
    (KeepsState(), "no state is kept between calls"),
    (WrongTogether("forgets the memory"), r"compress_group sends what encode does \(track\)"),
    (WrongTogether("sends another"), r"compress_group sends what encode does \(drain\)"),
    (WrongTogether("moves twice"), r"compress_group adds the decoded message \(track\)"),
    (WrongTogether("moves and says it has not"), r"compress_group leaves the memory to the caller \(track\)"),
    (WrongTogether("undoes nothing"), "undo puts the memory back as it was"),
    (WrongTogether("undoes too much"), "undo puts the memory back as it was"),
    (WrongTogether("takes nothing away"), r"compress_group takes the decoded message away \(drain\)"),
    (WrongTogether("mixes segments"), r"compress_group sends what encode does \(none\)"),
    (WrongTogether("takes NaN"), r"compress_group refuses NaN and infinity \(none\)"),
    (WrongTogether("moves before it refuses"), r"leaves the memory as it was where it refuses \(track\)"),
    (WrongTogether("drains in place"), r"compress_group leaves the memory as it is \(drain\)"),
    (FailsOnZeros(), "every finite vector compresses: ZeroDivisionError"),
    (DividesZeroByZero(), "C\\(x\\) is finite"),
    (declares(alpha=2.0, beta=1.0), r"beta\^2 >= alpha"),
    (declares(gamma=2.0, beta=1.0), "beta >= gamma"),
    (declares(delta=0.5), "delta >= 1"),
    (declares(zeta=0.5), "zeta >= 1"),
    (declares(zeta=math.inf), "not positive and finite"),
    (declares(alpha=0.1, beta=1.0, gamma=0.5), r"alpha >= gamma\^2"),
    (declares(alpha=0.5, beta=1.0, gamma=0.1), "gamma >= alpha / beta"),
    (declares(beta=1.5, gamma=0.5, delta=5.0), "delta <= "),
    (declares(zeta=1.2, beta=1.3), "beta <= zeta"),
    (declares(zeta=1.2, delta=2.0), r"delta <= 1 / \(2 - zeta\)"),
    (declares(gamma=0.5), "without beta"),
]
