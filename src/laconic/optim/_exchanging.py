"""The abstract base class of optimisers that exchange: session, steps, statistics, gathered states."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.comm import OnMismatch, Stats
from laconic.optim._checkpoint import SavedState, merged, saved_state, with_memories
from laconic.session import Session

_COPIED = (
    "the optimiser is a copy or came from a pickle, which has no exchange with other ranks: make a new one "
    "on every rank and load this one's state_dict()"
)


class ExchangingOptimizer(Optimizer, ABC):
    """An optimiser that all ranks step together, with an exchange of its own.

    A subclass sets ``_session`` to None before :class:`torch.optim.Optimizer` is initialised, calls
    :meth:`_start` when it is made, and says what a step is (:meth:`_step`).
    """

    _step_supports_amp_scaling = True
    """GradScaler then calls step() on every rank, also where it found an infinity on one alone."""

    _session: Session | None

    def _start(self, session: Session) -> None:
        self._session = session
        self._consolidated: dict[str, Any] | None = None
        # Dynamo would specialise on the first parameter of each shape. Making an optimiser has imported it.
        self._untraced_step = torch.compiler.disable(self._step_anew)  # type: ignore[no-untyped-call]

    @abstractmethod
    def _step(self, closure: Callable[[], float] | None) -> float | None:
        """A step, outside of compilation."""

    @abstractmethod
    def held_bytes(self) -> dict[str, int]:
        """Bytes of main memory and devices that this rank holds beside parameters and gradients, by kind.

        "state": what the optimiser remembers; "memory": what feedback remembers; "scratch": second buffers
        and room for messages, which hold nothing between steps.
        """

    @property
    def session(self) -> Session:
        """The parameters and the exchange.

        Raises:
            RuntimeError: for a copied or unpickled optimiser.
        """
        session: Session | None = self.__dict__.get("_session")
        if session is None:
            raise RuntimeError(_COPIED)
        return session

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, while the optimiser is made; later it is refused.

        Raises:
            RuntimeError: once the optimiser is made.
        """
        if "_session" not in self.__dict__:
            raise RuntimeError(_COPIED)
        if self._session is not None:
            raise RuntimeError(
                "the ranks have agreed on the parameters: give all groups when the optimiser is made, those "
                "for later with lr=0, or make a new optimiser"
            )
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every rank. Inside ``torch.compile`` it runs eagerly.

        Args:
            closure: evaluates the model anew and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            laconic.ExchangeError: where another rank died or hangs.
        """
        if "_untraced_step" not in self.__dict__:
            raise RuntimeError(_COPIED)
        found: float | None = self._untraced_step(closure)
        return found

    def _step_anew(self, closure: Callable[[], float] | None) -> float | None:
        # Not in step(): PyTorch 2.10's dynamo does not trace that an optimiser's attribute is set.
        self._consolidated = None
        return self._step(closure)

    def _refuse_unknown(self) -> None:
        given = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        self.session.parameters.names([p for p in given if p.numel() > 0])

    def check_replicas(self) -> None:
        """Compare the parameters' bits over ranks; all call it together.

        Raises:
            laconic.ExchangeError: naming the first parameter that differs.
        """
        self.session.check_replicas()

    @property
    def skipped(self) -> int:
        """Steps that were void."""
        return self.session.stats().skipped

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far, and what it holds."""
        return self.session.stats().with_held(self.held_bytes(), self.session.layout.d)

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        """Settings, and of each parameter the state and memories of this rank, or of all.

        What differs by rank lies under a key by rank, so that it survives tools that keep one of several
        equal keys, or "state" and "param_groups" alone.

        Args:
            gather: whether rank 0 gets the state of all ranks, for a file that all load; the others get their
                own. All ranks call it together then.

        Raises:
            laconic.ExchangeError: where another rank does not gather, too.
        """
        exchange, numbers = self.session.exchange, self._names()
        names = {number: name for number, name in enumerate(numbers) if name is not None}
        memories = exchange.state_dict() | self._counts()
        own = with_memories(self._plain_state(), names, memories, exchange.rank)
        if gather:
            return merged(own, exchange.gather_states(own["state"]))
        return own if self._consolidated is None else merged(own, self._consolidated)

    def consolidate_state_dict(self) -> None:
        """Gather the state of all ranks for ``state_dict()`` on rank 0, until the next step or load.

        For tools that call ``state_dict()`` on rank 0 alone; all ranks call this together. Lightning does so
        by itself, as for :class:`torch.distributed.optim.ZeroRedundancyOptimizer`.

        Raises:
            laconic.ExchangeError: where another rank does not gather, too.
        """
        self._consolidated = None
        self._consolidated = self.session.exchange.gather_states(self.state_dict()["state"])

    def _plain_state(self) -> dict[str, Any]:
        return super().state_dict()

    def _counts(self) -> dict[str, Any]:
        """What all ranks count alike."""
        return {"iteration": self.session.iteration}

    def _saved(self, state_dict: Mapping[str, Any]) -> SavedState:
        self._consolidated = None
        saved = saved_state(state_dict, self._names(), self.session.exchange.rank)
        found, own = (
            [len(g["params"]) for g in groups] for groups in (saved.plain["param_groups"], self.param_groups)
        )
        if saved.exchange is not None and found != own:
            # Before any memory is replaced: PyTorch says so when they are.
            raise ValueError(
                f"the saved optimiser has groups of {found} parameters, this one of {own}: make it with the "
                "same groups"
            )
        return saved

    def _load_exchange(self, state: Mapping[str, Any], on_mismatch: OnMismatch) -> None:
        self.session.exchange.load_state_dict(state, on_mismatch)
        if "iteration" in state:
            self.session.resume_at(int(state["iteration"]))

    def _names(self) -> list[str | None]:
        names = self.session.parameters.name_of
        return [names.get(parameter) for group in self.param_groups for parameter in group["params"]]

    def close(self) -> None:
        """End the exchange's thread and process group; the optimiser can make no more steps."""
        if (session := self.__dict__.get("_session")) is not None:
            session.close()


def tensor_bytes(states: Iterable[Mapping[str, Any]]) -> int:
    """Bytes of the tensors in several states; those that they share count once."""
    tensors = [each for own in states for each in own.values() if isinstance(each, Tensor)]
    return sum({id(each): each.nbytes for each in tensors}.values())
