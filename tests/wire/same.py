"""Equality of messages, bit for bit."""

import torch


def bits(tensor):
    return tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def assert_same(a, b):
    assert (a.round, a.digest, len(a.parts)) == (b.round, b.digest, len(b.parts))
    assert (a.replaces is None) == (b.replaces is None)
    assert a.replaces is None or (
        a.replaces.dtype == b.replaces.dtype and torch.equal(a.replaces, b.replaces)
    )
    for p, q in zip(a.parts, b.parts, strict=True):
        for field in ("d", "dtype", "grid", "factor", "seeded", "block", "cells"):
            assert getattr(p, field) == getattr(q, field), field
        ours, theirs = p.tensors(), q.tensors()
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            other = theirs[name]
            assert (tensor.shape, tensor.dtype) == (other.shape, other.dtype), name
            assert torch.equal(bits(tensor), bits(other)), name
