"""The exchange of n simulated nodes in one process: n senders and their receiver, without bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.feedback import Feedback, NotFiniteError, Receiver, Sender
from laconic.formats import accumulation_dtype
from laconic.layout import Layout
from laconic.messages import Message
from laconic.session import TrainedParameters

Vectors = Mapping[Tensor, Tensor]
"""A tensor for each parameter, of its shape."""


class SimulatedNodes:
    """What :class:`laconic.Exchange` computes on n ranks, bit for bit, given what each of them sends.

    Args:
        parameters: which the vectors belong to.
        layout: of the parameters.
        feedback: the method; None is the mean of what the nodes send, past any compression.
        nodes: n.
        seed: of all draws.
    """

    def __init__(
        self,
        parameters: TrainedParameters,
        layout: Layout,
        feedback: Feedback | None,
        nodes: int,
        seed: int = 0,
    ) -> None:
        """Start with empty memories."""
        self.nodes = nodes
        self._seed = seed
        self._layout, self._parameters = layout, parameters
        self._feedback: Feedback | None = None
        # What shares a bucket changes no bit, so there is one for each dtype and device.
        self._buckets = parameters.buckets(torch.iinfo(torch.int64).max)
        self._senders: list[list[Sender]] = []
        self._receivers: list[Receiver] = []
        self.bits = 0.0
        """Of packed messages that a node has sent so far, mean over nodes; of dense means 32 a number."""
        if feedback is not None:
            self._make(feedback)

    def _make(self, feedback: Feedback) -> None:
        self._feedback, self._senders, self._receivers = feedback, [], []
        for bucket in self._buckets:
            part, dtype = self._layout.select(self._parameters.names(bucket)), bucket[0].dtype
            self._senders.append(
                [feedback.sender(part, i, self._seed, dtype=dtype) for i in range(self.nodes)]
            )
            self._receivers.append(feedback.receiver(part, self.nodes, dtype=dtype))

    def switch(self, feedback: Feedback) -> None:
        """Go on with the same memories and another compressor."""
        if feedback != self._feedback:
            state = self.state_dict()
            self._make(feedback)
            self.load_state_dict(state)

    def mean(self, sent: Sequence[Vectors], dense: bool = False) -> dict[Tensor, Tensor] | None:
        """The estimate of the mean over nodes, which all nodes have alike.

        Args:
            sent: what each node sends of each parameter.
            dense: whether it is averaged whole, past compressor and memories.

        Returns:
            A tensor for each parameter in the accumulation dtype; None where the step is void, because
            some node's numbers were not finite: then all memories are as they were.
        """
        if dense or not self._senders:
            return self._dense_mean(sent)
        estimates: dict[Tensor, Tensor] = {}
        everything: list[Message] = []
        try:
            for bucket, senders, receiver in zip(self._buckets, self._senders, self._receivers, strict=True):
                messages = [
                    sender.stage([own[p] for p in bucket]) for sender, own in zip(senders, sent, strict=True)
                ]
                everything += messages
                estimate = receiver.stage(messages)
                assert estimate is not None
                pieces = torch.split(estimate, [p.numel() for p in bucket])
                estimates |= {p: piece.view(p.shape) for p, piece in zip(bucket, pieces, strict=True)}
        except NotFiniteError:
            self._end("roll_back")
            return None
        estimates = {p: estimate.clone() for p, estimate in estimates.items()}
        self._end("commit")
        self.bits += sum(8 * message.nbytes for message in everything) / self.nodes
        return estimates

    def _end(self, how: str) -> None:
        for senders, receiver in zip(self._senders, self._receivers, strict=True):
            for end in (*senders, receiver):
                getattr(end, how)()

    def _dense_mean(self, sent: Sequence[Vectors]) -> dict[Tensor, Tensor] | None:
        means: dict[Tensor, Tensor] = {}
        for parameter in sent[0]:
            dtype = accumulation_dtype(parameter.dtype)
            mean = torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)
            for own in sent:
                mean += own[parameter].to(mean.dtype) * (1.0 / self.nodes)
            means[parameter] = mean
        if not all(bool(torch.isfinite(mean).all()) for mean in means.values()):
            return None
        self.bits += sum(32.0 * parameter.numel() for parameter in means)
        return means

    def state_dict(self) -> dict[str, Any]:
        """What all senders and receivers remember."""
        return {
            "bits": self.bits,
            "senders": [[sender.state_dict() for sender in senders] for senders in self._senders],
            "receivers": [receiver.state_dict() for receiver in self._receivers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what the senders and receivers of as many nodes remembered.

        Raises:
            ValueError: where it does not fit.
        """
        if [len(saved) for saved in state["senders"]] != [len(own) for own in self._senders]:
            raise ValueError(f"the saved state is not that of {self.nodes} nodes and the same parameters")
        self.bits = state["bits"]
        for senders, saved in zip(self._senders, state["senders"], strict=True):
            for sender, one in zip(senders, saved, strict=True):
                sender.load_state_dict(one)
        for receiver, saved in zip(self._receivers, state["receivers"], strict=True):
            receiver.load_state_dict(saved)
