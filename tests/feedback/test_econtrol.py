"""A method of two memories written as a user would, docs/your-own-method.md, beside the general laws."""

import pytest
import reference
import torch
from courses import ETA, KINDS, NODES, ROUNDS, SEED, D, same_bits, same_message, some_gradients
from econtrol import METHOD, USE, EControl, FrozenEControl
from processes import run_python

import laconic

CONTRACTIVE = [c if c.constants(D).contraction is not None else c.contractive() for c in KINDS]
every_kind = pytest.mark.parametrize("compressor", CONTRACTIVE, ids=repr)


def run_of(method, gradients):
    """The messages of every round by node, the estimates, and the nodes' senders at the end."""
    senders = [method.sender(D, node=i, seed=SEED) for i in range(NODES)]
    receiver = method.receiver(D, NODES)
    messages = [[s.send(g[i]) for i, s in enumerate(senders)] for g in gradients]
    return messages, [receiver.receive(each) for each in messages], senders


@every_kind
def test_both_memories_are_the_papers(compressor):
    gradients = some_gradients(ROUNDS, NODES, D)
    _, _, senders = run_of(EControl(compressor, ETA), gradients)
    C = reference.segmentwise(compressor, D, SEED)
    *_, (_, e, h) = reference.econtrol_rounds(C, gradients, ETA)
    for i, sender in enumerate(senders):
        state = sender.state_dict()
        assert same_bits(state["residual"], e[i])
        assert same_bits(state["memory"], h[i])


@every_kind
@pytest.mark.parametrize(
    ("controlled", "known"),
    [
        (lambda C: EControl(C, eta=0.0), lambda C: laconic.EF21(C, init="compressed")),
        (lambda C: FrozenEControl(C, eta=1.0), laconic.EF14),
    ],
    ids=["no residual is fed back: EF21", "no estimate is kept: EF14"],
)
def test_its_ends_are_ef21_and_ef14(compressor, controlled, known):
    gradients = some_gradients(5, NODES, D, seed=4)
    found, expected = (run_of(make(compressor), gradients) for make in (controlled, known))
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert all(map(same_message, ours, theirs))
    assert all(map(same_bits, found[1], expected[1]))


def test_what_listeners_miss_is_the_distance_of_the_memory():
    sender = EControl(laconic.TopK(1)).sender(2)
    gradient = torch.tensor([3.0, 4.0])
    assert sender.error(sender.send(gradient), gradient) == (9.0, 25.0)


def test_the_page_runs(tmp_path):
    (tmp_path / "econtrol.py").write_text(METHOD)
    (tmp_path / "use.py").write_text(USE)
    printed = run_python("use.py", cwd=tmp_path)
    first, last = (float(x) for x in printed.strip().strip("[]").split())
    assert 0 < last < 1e-3 < first


def test_it_has_ten_lines():
    """Of its own, beside imports, the class and its name."""
    body = METHOD[METHOD.index("    eta: float") :]
    assert len([line for line in body.splitlines() if line.strip()]) <= 10
