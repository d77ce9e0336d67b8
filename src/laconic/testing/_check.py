"""check_compressor: tests of a compressor's declared constants and contracts."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from laconic.compressors import Compressor, Constants
from laconic.formats.grids import level_table
from laconic.kernels import Stream
from laconic.testing._classes import Tally, check_classes
from laconic.testing._constants import check_constants
from laconic.testing._contract import Contract, check_randomness
from laconic.testing._jobs import check_jobs
from laconic.testing._report import CompressorError, Report, name_of
from laconic.testing._vectors import adversarial

_ALL_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_CHECKS = (
    "constants that agree with each other",
    "the inequalities of every declared class",
    "draws from the generator alone, each place its own",
    "each row on its own",
    "messages that share nothing with x and add themselves exactly",
    "compress_group as encode, with every update of a memory, and its refusal of NaN and infinity",
    "zeros",
    "sizes",
)


def check_compressor(
    compressor: Compressor,
    *,
    dims: Sequence[int] = (1, 2, 3, 10, 64),
    dtypes: Sequence[torch.dtype] = _ALL_DTYPES,
    draws: int = 4096,
    seed: int = 0,
    within: tuple[float, float] | None = None,
) -> Report:
    """Hold a compressor against what it declares, on vectors made to break it.

    Checked are: that the declared constants agree with each other; the inequalities of each class they
    declare (:class:`~laconic.compressors.Constants`), exactly for deterministic compressors and as means
    over many draws for random ones; that draws come from the generator alone; that rows of a batch do not
    know each other; that messages share nothing with x, add themselves exactly and know their size;
    that ``compress_group``, which your ``compress_together`` may serve, sends what ``encode`` does for
    every segment, moves the memory by it and refuses NaN and infinity; and that a compressor which declares
    a loss loses something.

    The draws are seeded, so a result repeats. A correct compressor is refused with a probability below
    one in a million, as long as no coordinate jumps, with a probability below about 30 / draws, beyond
    max(1, beta, zeta) times the vector's length.

    Args:
        compressor: any compressor, your own included.
        dims: lengths to try; those that the settings refuse, as k > d, are skipped.
        dtypes: dtypes to try.
        draws: draws for each vector in the first dtype; the others get a quarter.
        seed: of vectors and draws.
        within: smallest and largest magnitude that the constants are declared for, other than 0; the
            whole range of each dtype unless given. ``Cast(torch.float16)`` needs ``(2.0**-14, 65504.0)``.

    Returns:
        A report of what was checked and how near to its bounds the compressor came; ``str`` of it reads
        well.

    Raises:
        CompressorError: an AssertionError that says which promise is broken, on what, and by how much.
        ValueError: where the compressor refuses all of ``dims``.

    Example:
        >>> import laconic
        >>> report = check_compressor(laconic.TopK(2), dims=(2, 10))
        >>> [round(w.ratio, 3) for w in report.worst if w.promise == "B3"]
        [1.0]
    """
    if not isinstance(compressor, Compressor):
        raise TypeError(f"check_compressor takes a laconic.Compressor, got {compressor!r}")
    tally = Tally()
    declared = {d: c for d in dims if (c := _declared(compressor, d)) is not None}
    usable = list(declared)
    for d, constants in declared.items():
        check_constants(name_of(compressor), constants, d)
    if not usable:
        raise ValueError(
            f"{name_of(compressor)} refuses vectors of every length in {tuple(dims)}; give other dims"
        )
    for number, dtype in enumerate(dtypes):
        for d, constants in declared.items():
            room = max(1.0, constants.beta or 0.0, constants.zeta or 0.0)
            found = adversarial(d, dtype, _levels(compressor, d, dtype), within, seed, room)
            # Many small calls are slow: the other dtypes make do with the greatest length.
            if number == 0 or d == usable[-1]:
                contract = Contract(compressor, found, seed)
                _run(compressor, contract.check)
                _run(compressor, partial(check_jobs, contract))
            share = draws if number == 0 else max(256, draws // 4)
            _run(compressor, partial(check_classes, compressor, constants, found, share, seed, tally))
    d, dtype = usable[-1], dtypes[0]
    found = adversarial(d, dtype, None, within, seed)
    _refuse_identity(compressor, tally)
    lossless = declared[d].zeta == 1.0 or declared[d].delta == 1.0
    vector = found.get("Gaussian", found["zeros"])
    _run(compressor, partial(check_randomness, Contract(compressor, found, seed), vector, lossless))
    return Report(
        compressor=name_of(compressor),
        dims=tuple(usable),
        skipped=tuple(d for d in dims if d not in usable),
        dtypes=tuple(str(dtype).removeprefix("torch.") for dtype in dtypes),
        vectors=tally.vectors,
        draws=draws if compressor.random else 1,
        checks=_CHECKS,
        worst=tuple(tally.worst.values()),
    )


def _declared(compressor: Compressor, d: int) -> Constants | None:
    """The constants for this length; None where the settings refuse it."""
    try:
        return compressor.constants(d)
    except ValueError:
        return None


def _levels(compressor: Compressor, d: int, dtype: torch.dtype) -> Tensor | None:
    """The levels of the grid that the compressor rounds to, where its messages show one."""
    message = compressor.compress(torch.ones(1, d, dtype=dtype, device="cpu"), Stream(seed=0))
    for part in message.parts:
        if part.grid is not None:
            return level_table(part.grid, part.dtype, torch.device("cpu"))[1:]
    return None


def _run(compressor: Compressor, check: Callable[[], None]) -> None:
    """Run a check; a compressor that raises breaks the promise to compress every finite vector."""
    try:
        check()
    except CompressorError:
        raise
    except Exception as error:
        raise CompressorError(
            f"{name_of(compressor)} breaks: every finite vector compresses: {type(error).__name__}: {error}"
        ) from error


def _refuse_identity(compressor: Compressor, tally: Tally) -> None:
    if tally.claims_loss and not tally.lossy:
        raise CompressorError(
            f"{name_of(compressor)} breaks: what declares a loss loses something: delta or zeta above 1, but "
            f"C(x) = x bit for bit on {tally.vectors} vectors; the constants are not those of what it does"
        )
