"""The result of check_compressor: a report, or an error."""

from dataclasses import dataclass


def name_of(compressor: object) -> str:
    """A compressor's repr, on one line and of bearable length."""
    text = " ".join(repr(compressor).split())
    return text if len(text) <= 160 else text[:157] + "..."


class CompressorError(AssertionError):
    """A compressor breaks a promise; the message says which one, where and by how much."""


@dataclass(frozen=True)
class Worst:
    """The vector on which an inequality came nearest to being broken.

    Args:
        promise: the inequality.
        ratio: measured over allowed: 1 where the inequality is tight. A mean over random draws may
            exceed 1 by its statistical error.
        vector: the vector's name.
        d: its length.
        dtype: its dtype, without "torch.".
    """

    promise: str
    ratio: float
    vector: str
    d: int
    dtype: str


@dataclass(frozen=True)
class Report:
    """What :func:`check_compressor` checked, and how near to its bounds the compressor came.

    Args:
        compressor: its repr.
        dims: the lengths that were checked.
        skipped: the lengths that the compressor's settings refuse, as k > d.
        dtypes: the dtypes, without "torch.".
        vectors: how many vectors the inequalities were tried on.
        draws: draws for each vector; 1 for a compressor that draws nothing.
        checks: the promises that were checked, in words.
        worst: for each inequality the vector that came nearest to breaking it.
    """

    compressor: str
    dims: tuple[int, ...]
    skipped: tuple[int, ...]
    dtypes: tuple[str, ...]
    vectors: int
    draws: int
    checks: tuple[str, ...]
    worst: tuple[Worst, ...]

    def __str__(self) -> str:
        """A few lines to read."""
        skipped = f" (not {', '.join(map(str, self.skipped))}: refused)" if self.skipped else ""
        lines = [
            f"{self.compressor} keeps its promises",
            f"  d = {', '.join(map(str, self.dims))}{skipped}; {', '.join(self.dtypes)}; "
            f"{self.vectors} vectors, {self.draws} draws each",
            f"  checked: {'; '.join(self.checks)}",
        ]
        if self.worst:
            lines.append("  measured / allowed, at worst:")
        for w in self.worst:
            lines.append(f"    {w.promise:<34} {w.ratio:8.4f}   {w.vector}, d = {w.d}, {w.dtype}")
        return "\n".join(lines)
