"""Create the Exchange of a model after verifying that all ranks agree on layout and settings."""

import zlib
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm import Exchange
from laconic.layout import Layout
from laconic.session._schedule import Schedule


def meet(
    layout: Layout,
    schedule: Schedule,
    process_group: dist.ProcessGroup | None,
    *,
    seed: int,
    timeout_s: float,
    measure_error_every: int,
    adaptive: bool,
    dtypes: Mapping[str, torch.dtype],
    settings: str,
) -> Exchange:
    """The exchange that starts with the schedule's first method; all ranks call it together.

    Args:
        layout: the model's.
        schedule: every method in it must suit the layout.
        process_group: the ranks; None is all of them.
        seed: of random compressors.
        timeout_s: how long to wait for the others, in seconds.
        measure_error_every: as for the exchange.
        adaptive: as for the exchange.
        dtypes: as for the exchange.
        settings: whatever else must be alike on all ranks, in words.

    Raises:
        ValueError: where a method does not suit the layout, or the ranks differ.
    """
    for method in schedule.methods:
        method.sender(layout, seed=seed)
    exchange = Exchange(
        layout,
        schedule.methods[0],
        process_group,
        seed=seed,
        timeout_s=timeout_s,
        measure_error_every=measure_error_every,
        adaptive=adaptive,
        dtypes=dtypes,
    )
    settings = f"{schedule}, seed {seed}, adaptive {adaptive}, {settings}"
    own = torch.tensor([layout.digest, zlib.crc32(settings.encode())])
    differs = differing(exchange.gather(own, "the digests of model and settings"))
    if differs is not None:
        exchange.close()
        what = ("parameters (names, shapes or exemptions)", f"settings than {settings}")[differs[0]]
        raise ValueError(f"rank {differs[1]} and rank 0 differ: other {what}; make them alike")
    return exchange


def differing(found: Sequence[Tensor]) -> tuple[int, int] | None:
    """The first place, and the first rank there, whose number is not that of rank 0; None if all agree.

    Example:
        >>> import torch
        >>> differing([torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), torch.tensor([1, 5, 4])])
        (1, 2)
    """
    unequal = torch.stack([numbers != found[0] for numbers in found])
    places = unequal.any(dim=0).nonzero()
    if not len(places):
        return None
    place = int(places[0])
    return place, int(unequal[:, place].nonzero()[0])
