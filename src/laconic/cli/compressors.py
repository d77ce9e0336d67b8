"""``laconic compressors``: table of the constants that compressors declare."""

import math
import textwrap
import warnings

import click

from laconic.cli._output import make_console, print_json, table_like
from laconic.compressors import Constants, installed_names, parse_compressor

_FIELDS = ("alpha", "beta", "gamma", "delta", "zeta")


def _specs(k: int, dim: int) -> list[str]:
    return [
        "identity",
        f"top-k:{k}",
        f"rand-k:{k}",
        f"random-sparsification:{min(1.0, k / dim):g}",
        "adaptive-random",
        "unbiased-rounding:2",
        "unbiased-rounding:1.5",
        "natural",
        "biased-rounding:2",
        "exponential-dithering:1.5:16",
        "natural-dithering:8",
        "natural-dithering:2:inf",
        "random-dithering:8",
        "ternary",
        "sign",
        "cast:bf16",
        f"top-k:{k}+natural",
        f"top-k:{k}+block-quantizer:4",
        f"top-k:{k}+sign",
        f"top-k:{k}+natural-dithering",
    ]


@click.command(name="compressors")
@click.option(
    "--dim", type=click.IntRange(min=1), default=10_000, show_default=True, help="Length d of the vector."
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Coordinates that sparsifiers keep.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.argument("specs", nargs=-1)
def command(dim: int, k: int, as_json: bool, specs: tuple[str, ...]) -> None:
    """Print the constants that each compressor declares for vectors of length d.

    \b
    B1(alpha, beta)  alpha |x|^2 <= E|C(x)|^2 <= beta <E C(x), x>
    B2(gamma, beta)  max(gamma |x|^2, E|C(x)|^2 / beta) <= <E C(x), x>
    B3(delta)        E|C(x) - x|^2 <= (1 - 1/delta) |x|^2
    U(zeta)          E C(x) = x and E|C(x)|^2 <= zeta |x|^2
    scaled           delta of .contractive(), with the scaling that the theory asks for

    Error feedback needs a delta; EF21's contraction is 1/delta.

    A dash stands where a class does not hold; where the table is too wide for the terminal, each compressor
    has lines of its own with those that do. SPECS are compressors by name; without any, all are shown,
    those of installed packages included.

    \b
    Example:
      laconic compressors --dim 10000 --k 100
      laconic compressors --dim 1000000 top-k:0.01+natural rand-k:0.01
    """
    table = [_row(spec, dim) for spec in specs or _specs(k, dim)]
    if not specs:
        table += _of_other_packages(k, dim)
    if as_json:
        print_json([_record(*row) for row in table])
        return
    out = table_like()
    out.add_column("compressor", no_wrap=True)
    for field in (*_FIELDS, "scaled"):
        out.add_column(field, justify="right", no_wrap=True)
    for spec, constants, scaled in table:
        out.add_row(spec, *(_shown(getattr(constants, field)) for field in _FIELDS), _shown(scaled.delta))
    console = make_console()
    console.print(f"Constants for vectors of length {dim:,}; scaled: delta of .contractive()")
    if make_console(width=1000).measure(out).maximum <= console.width:
        console.print(out)
        return
    for spec, constants, scaled in table:
        values = {field: getattr(constants, field) for field in _FIELDS} | {"scaled": scaled.delta}
        known = [f"{name}={_shown(value)}" for name, value in values.items() if _shown(value) != "-"]
        lines = textwrap.wrap(" ".join(known), console.width - 2)
        console.print(spec, *lines, sep="\n  ", soft_wrap=True)


_Row = tuple[str, Constants, Constants]


def _row(spec: str, dim: int) -> _Row:
    compressor = parse_compressor(spec)
    constants = compressor.constants(dim)
    if constants.beta is None or constants.gamma is None:
        return spec, constants, Constants()
    return spec, constants, compressor.contractive().constants(dim)


def _of_other_packages(k: int, dim: int) -> list[_Row]:
    """Rows of the compressors that need no argument, or k alone; a broken one must not hide the rest."""
    rows = []
    for name, entry in installed_names():
        specs = {name: name, f"{name}:K": f"{name}:{k}"}
        spec = specs.get(entry.usage.split("[")[0])
        if spec is None:
            click.echo(f"{entry.usage} is installed too; name it with its arguments to see it", err=True)
            continue
        try:
            rows.append(_row(spec, dim))
        except Exception as error:  # whatever foreign code raises
            reason = f"{type(error).__name__}: {error}"
            warnings.warn(f"the compressor {spec!r} cannot be shown: {reason}", stacklevel=2)
    return rows


def _record(spec: str, constants: Constants, scaled: Constants) -> dict[str, str | float | None]:
    fields = {field: getattr(constants, field) for field in _FIELDS}
    return {"compressor": spec, **fields, "scaled_delta": scaled.delta}


def _shown(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.4g}" if value >= 1e-3 else f"{value:.2g}"
