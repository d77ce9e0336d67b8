"""Creation of an exchange's process group."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from laconic.comm.errors import ExchangeError


def make_group(
    process_group: dist.ProcessGroup | None, backend: str, timeout: timedelta
) -> dist.ProcessGroup:
    """A group of the same ranks; only they take part, at the same point of their programs.

    A group of some ranks has a hash of them as its name, so it must never be destroyed: a second one of that
    name would find the first's addresses.

    Raises:
        ExchangeError: where a rank does not take part in time.
    """
    ranks = dist.get_process_group_ranks(process_group)
    whole = len(ranks) == dist.get_world_size()
    try:
        if not whole:
            _level_groups(process_group)
        group: dist.ProcessGroup = dist.new_group(
            None if whole else ranks, timeout=timeout, backend=backend, use_local_synchronization=not whole
        )
    except RuntimeError as error:
        raise ExchangeError(
            f"rank {dist.get_rank(process_group)} waited for the ranks {ranks} to make a process group, and "
            "it failed: all of them must construct it at the same point of their programs. PyTorch says: "
            f"{error}"
        ) from error
    return group


def _level_groups(process_group: dist.ProcessGroup | None) -> None:
    """Let all ranks have the same count of groups, for PyTorch derives the name of a group from it."""
    own = _group_count()
    counts: list[int] = [0] * dist.get_world_size(process_group)
    dist.all_gather_object(counts, own, group=process_group)
    for _ in range(max(counts) - own):
        # A group of one rank waits for nobody.
        dist.new_group([dist.get_rank()], backend="gloo", use_local_synchronization=True)


def _group_count() -> int:
    """The number that tells groups of the same ranks apart; PyTorch has no public name for it."""
    world = distributed_c10d._world
    # Of the groups that this process belongs to; since 2.14 of those whose creation it took part in.
    return world.group_count if _VERSION >= (2, 14) else len(world.pg_names)


_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
