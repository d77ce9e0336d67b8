"""Memories of feedback methods: named tensors of full size, zero from construction."""

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from laconic.formats import accumulation_dtype
from laconic.layout import Layout


class Memories(dict[str, Tensor]):
    """Named tensors (..., d) of a sender or a receiver, in the layout's order, and scratch buffers for them.

    Args:
        names: of the memories.
        shape: of each.
        dtype: that vectors accumulate in, float32 or float64.
        device: where they lie.
        memory_dtype: of memories of vectors that accumulate in float32.
    """

    def __init__(
        self,
        names: Iterable[str],
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory_dtype: torch.dtype = torch.float32,
    ) -> None:
        self._memory_dtype = memory_dtype
        own = self._own(dtype)
        super().__init__({name: torch.zeros(shape, dtype=own, device=device) for name in names})
        self._scratch: dict[str, Tensor] = {}

    @classmethod
    def like(
        cls,
        names: Iterable[str],
        layout_or_like: Layout | Tensor | int,
        dtype: torch.dtype,
        memory_dtype: torch.dtype = torch.float32,
    ) -> "Memories":
        """Of the shape, dtype and device of a tensor; or of a layout's length, for vectors of ``dtype``."""
        if isinstance(layout_or_like, Tensor):
            like = layout_or_like
            return cls(names, tuple(like.shape), accumulation_dtype(like.dtype), like.device, memory_dtype)
        return cls(
            names, (Layout.like(layout_or_like).d,), accumulation_dtype(dtype), memory_dtype=memory_dtype
        )

    def _own(self, dtype: torch.dtype) -> torch.dtype:
        return self._memory_dtype if dtype == torch.float32 else dtype

    def fitted(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> "Memories":
        """Zeros for other vectors than at construction, which none has met yet; itself where they fit."""
        fits = all(
            memory.shape == shape and memory.dtype == self._own(dtype) and memory.device == device
            for memory in self.values()
        )
        return self if fits else Memories(self, shape, dtype, device, self._memory_dtype)

    def move(self, device: torch.device) -> None:
        """Let the memories lie on this device: those of a checkpoint lie where it was read to."""
        for name, memory in self.items():
            if memory.device != device:
                self[name] = memory.to(device)
                self._scratch.pop(name, None)

    @property
    def dtype(self) -> torch.dtype:
        """Of the memories; float32 where there is none."""
        return next((memory.dtype for memory in self.values()), torch.float32)

    def scratch(self, name: str) -> Tensor:
        """A buffer for the next round's memory of that name, which holds nothing of worth."""
        if name not in self._scratch:
            self._scratch[name] = torch.empty_like(self[name])
        return self._scratch[name]

    def swap(self, name: str) -> None:
        """Let the scratch buffer be the memory, and the memory the scratch buffer."""
        self[name], self._scratch[name] = self._scratch[name], self[name]

    def held_bytes(self) -> dict[str, int]:
        """Bytes of the memories, and of the buffers beside them."""
        held = {"memory": self.values(), "scratch": self._scratch.values()}
        return {kind: sum(tensor.nbytes for tensor in list(tensors)) for kind, tensors in held.items()}

    def snapshot(self) -> dict[str, Tensor]:
        """Copies, which later rounds do not change."""
        return {name: memory.detach().clone() for name, memory in self.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over copies in the memories' dtype; zeros for None, a memory before its first round."""
        for name, memory in self.items():
            value = torch.zeros_like(memory) if state[name] is None else state[name].detach()
            self[name] = value.to(self._own(accumulation_dtype(value.dtype)), copy=True)
        self._scratch = {}


class Rooms(threading.local):
    """Vectors in float32 that a thread reuses from bucket to bucket, as long as the longest.

    Allocated anew in each round, they would cost more than all that is computed in them: pages that a process
    meets for the first time are filled with zeros by the operating system.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.device], Tensor] = {}

    def like(self, name: str, memory: Tensor) -> Tensor:
        """Of the shape and device of a memory, with numbers of no worth."""
        key = name, memory.device
        if key not in self._held or self._held[key].numel() < memory.numel():
            self._held[key] = torch.empty(memory.numel(), dtype=torch.float32, device=memory.device)
        return self._held[key][: memory.numel()].view(memory.shape)


def take_round(state: Mapping[str, Any], layout: Layout, names: Iterable[str]) -> int:
    """The round in a state dict, once its keys and its layout are known to fit.

    Raises:
        ValueError: for missing or unknown keys, or another layout.
    """
    expected = {"layout", "round", *names}
    if set(state) != expected:
        raise ValueError(
            f"the state has the keys {sorted(state)}, but this method's are {sorted(expected)}; "
            "load it into the method that saved it"
        )
    if state["layout"] != layout.digest:
        raise ValueError(
            "the state was saved for another layout (other parameters, shapes or rules); "
            "load it into a model with the same parameters"
        )
    return int(state["round"])
