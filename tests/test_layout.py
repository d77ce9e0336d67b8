"""Layouts: what they refuse, and digests that no release may change."""

import pytest
import torch

from laconic import Layout, Segment


def test_of_computes_offsets():
    layout = Layout.of({"a": (2, 3), "b": (), "c": torch.zeros(4)}, exact=["b"])
    assert [(s.name, s.shape, s.offset, s.numel, s.end, s.rule) for s in layout.segments] == [
        ("a", (2, 3), 0, 6, 6, "compress"),
        ("b", (), 6, 1, 7, "exact"),
        ("c", (4,), 7, 4, 11, "compress"),
    ]
    assert layout.d == 11


def test_flat_and_like():
    flat = Layout.flat(7)
    assert flat == Layout((Segment("x", (7,), 0),))
    assert Layout.like(7) == Layout.like(torch.zeros(3, 7)) == Layout.like(flat) == flat
    assert Layout.like(flat) is flat
    with pytest.raises(ValueError, match="needs a last dimension"):
        Layout.like(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ((), "at least one segment"),
        ((Segment("a", (2,), 0), Segment("a", (2,), 2)), "'a' is used twice"),
        ((Segment("a", (2,), 0), Segment("b", (0,), 2)), "'b' is empty"),
        ((Segment("a", (2,), 1),), "'a' starts at 1, but the one before it ends at 0"),
        ((Segment("a", (2,), 0), Segment("b", (2,), 3)), "'b' starts at 3, but the one before it ends at 2"),
        ((Segment("a", (2,), 0), Segment("b", (2,), 1)), "'b' starts at 1, but the one before it ends at 2"),
        ((Segment("a", (2,), 0, "sometimes"),), "unknown rule 'sometimes' of segment 'a'"),
    ],
)
def test_what_does_not_cover_the_vector_is_refused(segments, words):
    with pytest.raises(ValueError, match=words):
        Layout(segments)


def test_empty_lengths_and_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'x' is empty"):
        Layout.flat(0)
    with pytest.raises(
        ValueError, match=r"exact or bfloat16 names \['c'\] are not among the segments \['a'\]"
    ):
        Layout.of({"a": (2,)}, exact=["c"])
    with pytest.raises(ValueError, match="at least one segment"):
        Layout.of({})


def test_digests_are_these():
    """They travel in frames and lie in checkpoints: a new release must compute the same."""
    assert Layout.flat(15).digest == 3959780030
    assert Layout.of({"weight": (3, 4), "bias": (3,)}, exact=["bias"]).digest == 1683371310


def test_digests_see_names_shapes_rules_and_order():
    layouts = [
        Layout.of({"a": (2, 3), "b": (4,)}),
        Layout.of({"a": (3, 2), "b": (4,)}),
        Layout.of({"a": (6,), "b": (4,)}),
        Layout.of({"b": (4,), "a": (2, 3)}),
        Layout.of({"a": (2, 3), "c": (4,)}),
        Layout.of({"a": (2, 3), "b": (4,)}, exact=["b"]),
        Layout.of({"a (2, 3) compress\n'b'": (4,)}),
    ]
    digests = [layout.digest for layout in layouts]
    assert len(set(digests)) == len(layouts)
    assert all(0 <= digest < 2**32 for digest in digests)
    assert Layout.of({"a": (2, 3), "b": (4,)}).digest == digests[0]
