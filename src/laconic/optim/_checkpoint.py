"""Checkpoints of the optimisers: moments and memories as the state of each parameter, under a key by rank."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from laconic.optim._clipping import LAST_NORM

State = dict[str, Any]
_log = logging.getLogger("laconic")
_ANOTHER = (
    "the state was saved by another optimiser: load one of the same kind, or go on with the model's "
    "parameters and without the optimiser's state"
)


class SavedState(NamedTuple):
    """What an optimiser loads.

    Args:
        plain: state and groups as :class:`torch.optim.Optimizer` loads them, with a rank's own moments.
        exchange: as the exchange loads it; None for the state of an optimiser that has none.
    """

    plain: dict[str, Any]
    exchange: dict[str, Any] | None


def with_memories(plain: Mapping[str, Any], names: Mapping[int, str], exchange: State, rank: int) -> State:
    """An optimiser's state dict with the memories of this rank among the parameters' state.

    All that differs by rank lies under a key by rank, so that tools which keep one of several equal keys lose
    nothing; and in "state" and "param_groups", which are all that some tools keep. Numbers are tensors
    there, because DCP restores other values under the wrong key where a dict has integer keys.

    Args:
        plain: as :meth:`torch.optim.Optimizer.state_dict` makes it.
        names: of the parameters that have a memory, by number.
        exchange: the exchange's state.
        rank: this process's.
    """
    memories = exchange["ranks"][str(rank)]
    identity = {key: value for key, value in exchange.items() if key != "ranks"}
    state = {
        number: {_key(rank): {**plain["state"].get(number, {}), "memory": _as_tensors(memories[name])}}
        for number, name in names.items()
    }
    groups = [{**group, "exchange": identity} for group in plain["param_groups"]]
    return {**plain, "state": state, "param_groups": groups}


def merged(state: State, ranks: Mapping[str, Mapping[int, State]]) -> State:
    """The state dict with the parameters' state of all these ranks."""
    together: dict[int, State] = {number: {} for number in state["state"]}
    for own in ranks.values():
        for number, by_rank in own.items():
            together[number] |= by_rank
    return {**state, "state": together}


def saved_state(state: Mapping[str, Any], names: Sequence[str | None], rank: int) -> SavedState:
    """What a rank loads of a state dict of any form: of one rank or gathered, of version 1 or 2, or dense.

    Where it has no moments of the rank, they are another's.

    Args:
        state: as it was saved; keys of parameters are numbers or names.
        names: of the parameters of all groups, in order; None of those that have no memory.
        rank: this process's.

    Raises:
        ValueError: where it is no state dict of an optimiser, or has another number of parameters.
    """
    if "state" not in state or "param_groups" not in state:
        raise ValueError("this is not the state_dict() of an optimiser: it needs 'state' and 'param_groups'")
    groups = [{k: v for k, v in group.items() if k != "exchange"} for group in state["param_groups"]]
    keys = [key for group in groups for key in group["params"]]
    if len(keys) != len(names):
        raise ValueError(f"the saved optimiser has {len(keys)} parameters, this one has {len(names)}")
    if "exchange" in state:
        return SavedState({"state": state["state"], "param_groups": groups}, dict(state["exchange"]))
    identities = [group["exchange"] for group in state["param_groups"] if "exchange" in group]
    if not identities:
        return SavedState({"state": state["state"], "param_groups": groups}, None)
    moments: dict[Any, State] = {}
    ranks: dict[str, State] = {}
    for key, name in zip(keys, names, strict=True):
        by_rank = state["state"].get(key, {})
        if not by_rank or name is None:
            continue
        for one, own in by_rank.items():
            ranks.setdefault(one.removeprefix(_key("")), {})[name] = _as_numbers(own["memory"])
        own = by_rank.get(_key(rank)) or list(by_rank.values())[rank % len(by_rank)]
        moments[key] = {k: v for k, v in own.items() if k != "memory"}
    return SavedState({"state": moments, "param_groups": groups}, {**identities[0], "ranks": ranks})


def adopted(saved: Mapping[str, Any], own: Mapping[str, Any], rank: int) -> State:
    """The state of a dense optimiser as this one's, with this one's settings; a line of the log says so.

    Args:
        saved: of a dense optimiser, as :func:`saved_state` returns it.
        own: this optimiser's, whose state says what is taken; new ones' is zeros.
        rank: this process's.

    Raises:
        ValueError: where it lacks what this optimiser needs.
    """
    keys = [key for group in saved["param_groups"] for key in group["params"]]
    moments = {n: [name for name in of if name != LAST_NORM] for n, of in own["state"].items()}
    if not any(moments.values()):
        raise ValueError(f"this optimiser remembers nothing that a dense one does. {_ANOTHER}")
    state = {}
    for number, names in moments.items():
        found = saved["state"].get(keys[number], {})
        lacking = [name for name in names if not isinstance(found.get(name), Tensor)]
        if lacking:
            raise ValueError(f"the state of a dense optimiser has no {lacking[0]!r}. {_ANOTHER}")
        state[number] = {name: found[name] for name in names}
    if rank == 0:
        _log.warning(
            "adopted the %s of a dense optimiser; settings stay as they are here, memories are new",
            ", ".join(next(iter(state.values()))),
        )
    return {"state": state, "param_groups": own["param_groups"]}


def _key(rank: int | str) -> str:
    return f"rank{rank}"


def _as_tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_tensors(each) for key, each in value.items()}
    if not isinstance(value, (bool, int, float)):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None, device="cpu")


def _as_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_numbers(each) for key, each in value.items()}
    return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value
