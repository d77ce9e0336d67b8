"""Create the Exchange of a model after verifying that all ranks agree on parameters and settings."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.comm import Exchange, Topology
from laconic.comm._checks import check_group
from laconic.comm._warm import warm_up
from laconic.comm.topologies import choose_topology
from laconic.layout import Layout
from laconic.session._schedule import Schedule


def create_exchange(
    layout: Layout,
    schedule: Schedule,
    process_group: dist.ProcessGroup | None,
    topology: str | Topology,
    *,
    dtypes: Mapping[str, torch.dtype],
    settings: Mapping[str, object],
    seed: int,
    timeout_s: float,
    adaptive: bool,
    device: torch.device | None = None,
    measure_error_every: int = 0,
) -> Exchange:
    """The exchange that starts with the schedule's first method; all ranks call it together.

    Args:
        layout: of the parameters.
        schedule: every method in it must suit the layout.
        process_group: the ranks; None is all of them.
        topology: as for the exchange; "auto" by the bytes of the schedule's last method, with which most of a
            run is made: chosen by those of a dense beginning, the mean would be taken to the end.
        dtypes: of what is sent of each parameter, by name.
        settings: whatever else must be alike on all ranks, by name.
        seed, timeout_s, adaptive, device, measure_error_every: as for the exchange.

    Raises:
        ValueError: where a method does not suit the layout.
        RanksDifferError: an ExchangeError and ValueError, where the ranks differ.
    """
    for method in schedule.methods:
        method.sender(layout, seed=seed)
    for method in schedule.methods[1:]:  # the exchange does so for the first
        warm_up(layout, method, dtypes, adaptive=adaptive, device=device)
    check_group(process_group)
    meets = dist.is_available() and dist.is_initialized()
    nodes = dist.get_world_size(process_group) if meets else 1
    exchange = Exchange(
        layout,
        schedule.methods[0],
        process_group,
        choose_topology(topology, layout, schedule.methods[-1], nodes, dtypes),
        seed=seed,
        timeout_s=timeout_s,
        measure_error_every=measure_error_every,
        adaptive=adaptive,
        dtypes=dtypes,
        device=device,
    )
    exchange.compare({"operation": "construction of optimiser or hook", "schedule": schedule, **settings})
    return exchange


def first_mismatch(found: Sequence[Tensor]) -> tuple[int, int] | None:
    """The first place, and the first rank there, whose number is not that of rank 0; None if all agree.

    Example:
        >>> import torch
        >>> first_mismatch([torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), torch.tensor([1, 5, 4])])
        (1, 2)
    """
    unequal = torch.stack([numbers != found[0] for numbers in found])
    places = unequal.any(dim=0).nonzero()
    if not len(places):
        return None
    place = int(places[0])
    return place, int(unequal[:, place].nonzero()[0])
