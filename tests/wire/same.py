"""Equality of messages, bit for bit."""

from dataclasses import replace

import torch


def bits(tensor):
    return tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def plain(group):
    """The group's format without what only its bytes have."""
    return replace(group.format, kind=replace(group.format.kind, adaptive=False))


def travelling(group):
    """The tensors that travel: an origin stays behind where positions take fewer bytes."""
    return {
        name: tensor
        for name, tensor in group.tensors().items()
        if name != "origin" or group.format.kind.sends_seed
    }


def assert_same(a, b):
    assert (a.round, a.digest, len(a.groups)) == (b.round, b.digest, len(b.groups))
    assert (a.replaces is None) == (b.replaces is None)
    assert a.replaces is None or (
        a.replaces.dtype == b.replaces.dtype and torch.equal(a.replaces, b.replaces)
    )
    for p, q in zip(a.groups, b.groups, strict=True):
        assert plain(p) == plain(q)
        assert not p.format.kind.sends_seed or p.format.table.numbers == q.format.table.numbers
        ours, theirs = travelling(p), travelling(q)
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            other = theirs[name]
            assert (tensor.shape, tensor.dtype) == (other.shape, other.dtype), name
            assert torch.equal(bits(tensor), bits(other)), name
