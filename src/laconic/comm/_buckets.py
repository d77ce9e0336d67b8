"""The buckets of an exchange, and the memories of segments that no bucket holds."""

from collections.abc import Mapping
from typing import Any

import torch

from laconic.comm._bucket import Bucket
from laconic.comm._dense_bucket import DenseBucket
from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.feedback import Feedback
from laconic.kernels.tables import SegmentedVector
from laconic.layout import Layout

Names = tuple[str, ...]
Memories = dict[str, dict[str, Any]]


class Buckets:
    """The state of each bucket; where buckets change, memories move with their segments."""

    def __init__(
        self,
        layout: Layout,
        feedback: Feedback,
        group: Group,
        seed: int,
        counter: Counter,
        *,
        adaptive: bool = False,
        dtypes: Mapping[str, torch.dtype] | None = None,
    ) -> None:
        """Start without memories; ``dtypes`` says of which dtype each segment's numbers will be."""
        self.feedback = feedback
        self._layout = layout
        self._group = group
        self._seed = seed
        self._counter = counter
        self._adaptive = adaptive
        self._dtypes = dict(dtypes or {})
        self._held: dict[Names, Bucket] = {}
        self._loose: Memories = {}

    def dense(self, names: Names) -> DenseBucket:
        """A bucket that is averaged whole, past all memories."""
        return DenseBucket(self._layout.select(names), self._group, self._counter)

    def get(self, names: Names, vector: SegmentedVector) -> Bucket:
        """The bucket of these segments, made of their memories where buckets have changed.

        Raises:
            ValueError: for unknown names, a tensor of another size, or memories that do not fit together.
        """
        if names in self._held:
            return self._held[names]
        layout = self._layout.select(names)
        found = sum(tensor.numel() for tensor in vector.tensors or (vector.like,))
        if layout.d != found:
            raise ValueError(f"the bucket of {names[0]!r} has {layout.d} elements, got {found}")
        for key, bucket in list(self._held.items()):
            if not set(key).isdisjoint(names):
                self._loose.update(bucket.state_by_segment())
                del self._held[key]
        made = self._made(names, vector.like)
        known = [name for name in names if name in self._loose]
        if known and len(known) < len(names):
            missing = next(name for name in names if name not in self._loose)
            raise ValueError(f"the memory of {known[0]!r} is known, but not that of {missing!r}")
        if known:
            made.load_by_segment({name: self._loose.pop(name) for name in names})
        self._held[names] = made
        return made

    def _made(self, names: Names, like: torch.Tensor) -> Bucket:
        return Bucket(
            self._layout.select(names),
            self.feedback,
            self._group,
            self._seed,
            self._counter,
            like,
            adaptive=self._adaptive,
        )

    def switch(self, feedback: Feedback) -> None:
        """Go on with the same memories and another compressor.

        Raises:
            ValueError: where the method or its settings beside the compressor differ, or the compressor
                does not suit them.
        """
        if feedback.name != self.feedback.name:
            raise ValueError(
                f"the memories of {self.feedback.name} mean nothing to {feedback.name}: change only the "
                "compressor"
            )
        feedback.sender(self._layout, seed=self._seed)
        self.load(self.memories())
        self.feedback = feedback

    def memories(self) -> Memories:
        """What is remembered of every segment, as a copy: zeros of those that have not been sent yet."""
        found: Memories = {}
        for bucket in self._held.values():
            found.update(bucket.state_by_segment())
        found |= self._loose
        fresh: dict[torch.dtype, list[str]] = {}
        for segment in self._layout.segments:
            if segment.name not in found:
                dtype = self._dtypes.get(segment.name, torch.float32)
                fresh.setdefault(dtype, []).append(segment.name)
        for dtype, names in fresh.items():
            found |= self._made(tuple(names), torch.empty(0, dtype=dtype)).state_by_segment()
        return {segment.name: found[segment.name] for segment in self._layout.segments}

    def load(self, memories: Mapping[str, dict[str, Any]]) -> None:
        """Remember this, and nothing else."""
        self._held = {}
        self._loose = dict(memories)
