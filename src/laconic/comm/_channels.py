"""The channels of an exchange, and what is remembered of segments while no channel holds it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from laconic.comm._channel import Channel
from laconic.comm._dense import DenseChannel
from laconic.comm._group import Group
from laconic.comm._stats import Counter
from laconic.feedback import Feedback
from laconic.layout import Layout

Names = tuple[str, ...]
Memories = dict[str, dict[str, Any]]


class Channels:
    """One channel a bucket; where buckets change, memories move with their segments."""

    def __init__(self, layout: Layout, feedback: Feedback, group: Group, seed: int, counter: Counter) -> None:
        """Start without memories."""
        self.feedback = feedback
        self._layout = layout
        self._group = group
        self._seed = seed
        self._counter = counter
        self._held: dict[Names, Channel] = {}
        self._loose: Memories = {}

    def dense(self, names: Names) -> DenseChannel:
        """A channel through which the bucket is averaged whole, past all memories."""
        return DenseChannel(self._layout.select(names), self._group, self._counter)

    def get(self, names: Names, like: Tensor) -> Channel:
        """The bucket's channel, made of what was remembered by segment where buckets have changed.

        Raises:
            ValueError: for unknown names, a tensor of another size, or memories that do not fit together.
        """
        if names in self._held:
            return self._held[names]
        layout = self._layout.select(names)
        if layout.d != like.numel():
            raise ValueError(f"the bucket of {names[0]!r} has {layout.d} elements, got {like.numel()}")
        for key, channel in list(self._held.items()):
            if not set(key).isdisjoint(names):
                self._loose.update(channel.state_by_segment())
                del self._held[key]
        made = Channel(layout, self.feedback, self._group, self._seed, self._counter, like[:0])
        known = [name for name in names if name in self._loose]
        if known and len(known) < len(names):
            missing = next(name for name in names if name not in self._loose)
            raise ValueError(f"the memory of {known[0]!r} is known, but not that of {missing!r}")
        if known:
            made.load_by_segment({name: self._loose.pop(name) for name in names})
        self._held[names] = made
        return made

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
        """What is remembered, by segment, as a copy."""
        found: Memories = {}
        for channel in self._held.values():
            found.update(channel.state_by_segment())
        return found | self._loose

    def load(self, memories: Mapping[str, dict[str, Any]]) -> None:
        """Remember this, and nothing else."""
        self._held = {}
        self._loose = dict(memories)
