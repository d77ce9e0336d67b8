"""The format is what docs/wire-format.md says: by a decoder written from it, and by stored messages."""

import json
from pathlib import Path

import pytest
import torch
from corpus import corpus
from decoder import decode
from vectors.make import build, record

import laconic as lc

VECTORS = sorted((Path(__file__).parent / "vectors").glob("*.json"))


def assert_decodes(decoded, message):
    assert decoded["digest"] == message.digest
    assert decoded["round"] == message.round
    if message.replaces is None:
        assert decoded["choices"] is None
    else:
        assert decoded["choices"] == message.replaces.int().tolist()
    for ours, part in zip(decoded["parts"], message.parts, strict=True):
        used = part.k if part.count is None else int(part.count)
        assert ours["d"] == part.d
        if part.positions is None:
            assert ours["positions"] is None
        else:
            assert ours["positions"] == part.positions[:used].tolist()
        numbers = part.decode()[:used]
        theirs = torch.tensor(ours["values"], dtype=numbers.dtype)
        assert torch.equal(theirs, numbers)


@pytest.mark.parametrize("sample", [s for s in corpus() if s.expect is None], ids=lambda sample: sample.name)
def test_a_decoder_written_from_the_document_reads_every_message(sample):
    assert_decodes(decode(sample.packed), sample.message)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_stored_messages_read_as_they_did(path):
    stored = json.loads(path.read_text())
    data = bytes.fromhex("".join(stored["bytes"]))
    message = lc.unpack(data)
    assert record(stored["name"], message, data) == stored
    assert_decodes(decode(data), message)


@pytest.mark.parametrize(
    ("name", "message", "options"), build(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_messages_are_written_as_they_were(name, message, options):
    stored = json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text())
    data = lc.pack(message, **options).numpy().tobytes()
    assert data == bytes.fromhex("".join(stored["bytes"]))
