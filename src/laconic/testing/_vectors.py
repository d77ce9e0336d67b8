"""Adversarial test vectors."""

import math

import torch
from torch import Tensor

# Powers of two in the middle of nowhere: neighbours of a grid that a compressor without one may still use.
_PLAIN_LEVELS = torch.tensor([0.25, 0.5, 1.0, 2.0], dtype=torch.float64, device="cpu")


def adversarial(
    d: int,
    dtype: torch.dtype,
    levels: Tensor | None,
    within: tuple[float, float] | None,
    seed: int,
    room: float = 1.0,
) -> dict[str, Tensor]:
    """Named vectors of length d: those on which constants are attained, and those that break arithmetic.

    Args:
        d: the length.
        dtype: what they are rounded to.
        levels: the positive levels of the compressor's grid, ascending, or None.
        within: magnitudes that the compressor is made for; smaller ones become 0, and vectors with
            larger ones are left out.
        seed: of the random ones.
        room: the factor by which the compressor may enlarge a number, beside d.
    """
    info = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    ones = torch.ones(d, dtype=torch.float64, device="cpu")
    place = torch.arange(d, dtype=torch.float64, device="cpu")
    signs = 1.0 - 2.0 * (place % 2)
    normal = torch.randn(d, dtype=torch.float64, generator=generator, device="cpu")
    normal = torch.where(normal == 0, 1.0, normal)
    cauchy = torch.tan(
        math.pi * (torch.rand(d, dtype=torch.float64, generator=generator, device="cpu") - 0.5)
    )
    # Room for the factor d / k of an unbiased sparsifier, and for rounding up a level.
    huge, tiny = info.max / (64.0 * max(d, room)), info.smallest_normal
    unit = normal / normal.abs().max()
    found = {
        "zeros": 0.0 * ones,
        "ones": ones,
        "minus ones": -ones,
        "ones of both signs": signs,
        "a spike": _with(0.0 * ones, 0, 1.0),
        "a negative spike in the middle": _with(0.0 * ones, d // 2, -3.0),
        "a spike at the end": _with(0.0 * ones, d - 1, 1.7),
        "a spike over a floor": _with(0.01 * ones, d - 1, -1.0),
        "a large number among negative ones": _with(-2.0 - place / d, 0, 1.0),
        "a spike over 1 / (1 + sqrt d)": _with(ones / (1.0 + math.sqrt(d)), 0, 1.0),
        "ties": (2.0 - (place % 3 == 0).to(torch.float64)) * signs,
        "1, 2, ..., d": place + 1.0,
        "4/3": ones * 4.0 / 3.0,
        "3/2": ones * 1.5,
        "1/2, 1/4, ...": signs * 0.5 ** (place % 60 + 1.0),
        "0.9, 0.81, ...": 0.9 ** (place + 1.0),
        "0.1, 0.01, ...": 0.1 ** (place % 30 + 1.0),
        "Gaussian": normal,
        "Gaussian, half zeros": torch.where(place % 2 == 1, 0.0, normal),
        "exponential": -torch.log1p(-torch.rand(d, dtype=torch.float64, generator=generator, device="cpu"))
        + 1e-3,
        "Cauchy": cauchy.clamp(-1e4, 1e4),
        "just above 1": ones + info.eps,
        "just below 2": (2.0 - info.eps) * signs,
        "1 beside the smallest": torch.where(place % 2 == 0, ones, tiny * ones),
        "subnormal": unit * tiny * 0.9,
        "the smallest subnormal": ones * tiny * info.eps,
        "huge": unit * huge,
        "huge beside the smallest subnormal": torch.where(
            place % 2 == 0, huge * ones, tiny * info.eps * ones
        ),
    }
    near = _PLAIN_LEVELS if levels is None else levels.to(torch.float64)
    near = near[(near > tiny) & (near < huge)]
    found |= _between_levels(d, near if len(near) else _PLAIN_LEVELS)
    cast = {name: x.to(dtype) for name, x in found.items()}
    if within is not None:
        low, high = within
        cast = {name: torch.where(x.abs() < low, 0, x) for name, x in cast.items()}
        cast = {name: x for name, x in cast.items() if float(x.abs().max()) <= high}
    return cast


def _with(x: Tensor, position: int, value: float) -> Tensor:
    x = x.clone()
    x[position] = value
    return x


def _between_levels(d: int, levels: Tensor) -> dict[str, Tensor]:
    """Where rounding to neighbours a < b is worst: at 2ab/(a+b) if random, in the middle if not."""
    if len(levels) == 1:
        pairs = torch.stack((levels / 2, levels))
    else:
        # Nearest to 1 first: there a geometric grid shows its whole period, and a relative one its top.
        start = int((levels - 1.0).abs().argmin())
        order = sorted(range(len(levels) - 1), key=lambda j: abs(j + 0.5 - start))[:12]
        pairs = torch.stack((levels[:-1], levels[1:]))[:, order]
    low, high = pairs
    cycle = torch.arange(d, device="cpu") % len(low)
    steepest = int((high / low).argmax())
    points = {"harmonic": 2 * low * high / (low + high), "middle": (low + high) / 2}
    found = {}
    for name, point in points.items():
        worst = torch.full((d,), float(point[steepest]), dtype=torch.float64, device="cpu")
        found[f"{name} points of the grid"] = point[cycle]
        found[f"the worst {name} point"] = worst
        found[f"1 and the worst {name} point"] = _with(worst, 0, 1.0)
    return found
