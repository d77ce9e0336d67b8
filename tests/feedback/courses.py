"""Every compressor with every method, run once for a few rounds; the tests look at what was recorded."""

from dataclasses import dataclass, fields
from functools import cache

import pytest
import reference
import torch
from econtrol import EControl
from zoo import ALL_COMPRESSORS

import laconic
from laconic.messages import Message, Part

D = 16
NODES = 3
ROUNDS = 3
SEED = 7
ETA = 0.3

METHODS = {
    "dcgd": laconic.DCGD,
    "ef14": laconic.EF14,
    "ef14-decay": lambda C: laconic.EF14(C, decay=0.9),
    "ef14-bfloat16": lambda C: laconic.EF14(C, decay=0.9, residual=torch.bfloat16),
    "ef21": laconic.EF21,
    "ef21-compressed": lambda C: laconic.EF21(C, init="compressed"),
    "ef21-zero": lambda C: laconic.EF21(C, init="zero"),
    "ef21+": laconic.EF21Plus,
    "ef21+-compressed": lambda C: laconic.EF21Plus(C, init="compressed"),
    "ef21-sgdm": lambda C: laconic.EF21SGDM(C, eta=ETA),
    "econtrol": lambda C: EControl(C, eta=ETA),
    "ef21-sgdm-zero": lambda C: laconic.EF21SGDM(C, eta=ETA, init="zero"),
}
ONLY_KINDS = ("ef14-decay", "ef14-bfloat16", "ef21+-compressed", "ef21-sgdm-zero")


def pairs(params, methods):
    """Each method with each compressor that it takes: DCGD as it is, the others its contractive form."""
    for param in params:
        (compressor,) = param.values
        contracts = compressor.constants(D).contraction is not None
        contractive = compressor if contracts else compressor.contractive()
        for name in methods:
            if name.startswith("ef21+") and compressor.random:
                continue
            kept = compressor if name == "dcgd" else contractive
            yield pytest.param(METHODS[name](kept), id=f"{name}-{param.id}")


ALL_PAIRS = list(pairs(ALL_COMPRESSORS, [name for name in METHODS if name not in ONLY_KINDS]))

# One compressor of every kind of message, for what a method does alike with all compressors.
KINDS = [
    laconic.Identity(),
    laconic.TopK(2),
    laconic.RandK(4),
    laconic.RandomSparsification(0.4),
    laconic.BiasedRounding(2.0),
    laconic.ScaledSign(),
    laconic.TopK(4) >> laconic.NaturalDithering(3),
    laconic.TopK(4) >> laconic.Cast(torch.bfloat16),
]
KIND_PAIRS = list(pairs([pytest.param(c, id=repr(c)) for c in KINDS], METHODS))


def of(pairs, *methods):
    """The pairs of some methods only."""
    return [param for param in pairs if isinstance(param.values[0], methods)]


def twin(method, gradients, layout_or_like=D, seed=SEED):
    """The reference implementation of a method: pairs of estimate and memories, round after round."""
    C = reference.segmentwise(method.compressor, layout_or_like, seed)
    match method:
        case laconic.DCGD():
            return reference.dcgd(C, gradients)
        case laconic.EF14(decay=decay, residual=residual):
            return reference.ef14(C, gradients, decay=decay, residual=residual)
        case laconic.EF21(init=init):
            return reference.ef21(C, gradients, init)
        case laconic.EF21Plus(init=init):
            return reference.ef21_plus(C, gradients, init, layout_or_like)
        case laconic.EF21SGDM(eta=eta, init=init):
            return reference.ef21_sgdm(C, gradients, init, eta)
        case EControl(eta=eta):
            return reference.econtrol(C, gradients, eta)
    raise AssertionError(f"no reference for {method}")


def some_gradients(*shape, seed=1, dtype=torch.float32):
    """Normal numbers of unlike sizes, with a few zeros."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x * torch.exp2(torch.randint(-3, 4, shape, generator=generator))
    return torch.where(torch.rand(shape, generator=generator) < 0.05, 0.0, x).to(dtype)


def memory_of(state):
    """What a sender or receiver remembers apart from round, layout and momentum; None if nothing."""
    found = [state[name] for name in ("memory", "memories", "residual") if name in state]
    return found[0] if found else None


def same_bits(a, b):
    """Equal in dtype, shape and every bit, so that 0 and -0 differ."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))


def raw(x):
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.contiguous().view(widths[x.element_size()])


def same_message(a, b):
    """Whether two messages are equal in everything that they say, bit for bit."""
    if (a.round, a.digest, len(a.parts)) != (b.round, b.digest, len(b.parts)):
        return False
    if not same_bits(a.replaces, b.replaces):
        return False
    names = [field.name for field in fields(Part)]
    values = [(getattr(p, n), getattr(q, n)) for p, q in zip(a.parts, b.parts, strict=True) for n in names]
    return all(
        same_bits(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x is y or x == y
        for x, y in values
    )


def same_state(a, b):
    """Whether two state dicts are equal, tensors bit for bit."""
    if a.keys() != b.keys():
        return False
    tensors = all(same_bits(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor) or a[k] is None)
    return tensors and all(a[k] == b[k] for k in a if not isinstance(a[k], torch.Tensor))


@dataclass(frozen=True)
class Course:
    """What happened: every list has an entry a round, and in it, where it says "per node", one a node."""

    gradients: torch.Tensor
    messages: list[list[Message]]  # per node
    decoded: list[list[torch.Tensor]]  # per node
    states: list[list[dict]]  # per node, after the round
    estimates: list[torch.Tensor]
    heard: list[dict]  # the receiver's state, after the round

    def memories(self, t):
        """The nodes' memories after round t, one each."""
        return [memory_of(state) for state in self.states[t]]


@cache
def course(method) -> Course:
    """A sender for each node and a receiver, run for some rounds in float32."""
    gradients = some_gradients(ROUNDS, NODES, D)
    senders = [method.sender(D, node=i, seed=SEED) for i in range(NODES)]
    receiver = method.receiver(D, NODES)
    record = Course(gradients, [], [], [], [], [])
    for g in gradients:
        messages = [sender.send(g[i]) for i, sender in enumerate(senders)]
        record.messages.append(messages)
        record.decoded.append([message.dense() for message in messages])
        record.states.append([sender.state_dict() for sender in senders])
        record.estimates.append(receiver.receive(messages))
        record.heard.append(receiver.state_dict())
    return record
