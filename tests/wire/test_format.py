"""The format is what docs/wire-format.md says: by a decoder written from it, and by stored messages."""

import json
from pathlib import Path

import pytest
import torch
from corpus import corpus
from decoder import decode
from vectors.make import VECTORS, build, record

import laconic as lc

STORED = sorted(VECTORS.glob("*.json"))
FIRST_VERSION = sorted((Path(__file__).parent / "vectors" / "v1").glob("*.json"))


def bytes_of(path):
    return bytes.fromhex("".join(json.loads(path.read_text())["bytes"]))


def assert_decodes(decoded, message):
    assert decoded["digest"] == message.digest
    assert decoded["round"] == message.round
    if message.replaces is None:
        assert decoded["choices"] is None
    else:
        assert decoded["choices"] == message.replaces.int().tolist()
    numbers = {
        place: (group.decode(), group.format.table.bounds[s])
        for group in message.groups
        for s, place in enumerate(group.format.places)
    }
    for place, (ours, part) in enumerate(zip(decoded["parts"], message.parts, strict=True)):
        used = part.k if part.count is None else int(part.count)
        assert ours["d"] == part.d
        if part.positions is None:
            assert ours["positions"] is None
        else:
            assert ours["positions"] == part.positions[:used].tolist()
        row, start = numbers[place]
        theirs = torch.tensor(ours["values"], dtype=row.dtype)
        assert torch.equal(theirs, row[start : start + used])


@pytest.mark.parametrize("sample", [s for s in corpus() if s.expect is None], ids=lambda sample: sample.name)
def test_a_decoder_written_from_the_document_reads_every_message(sample):
    assert_decodes(decode(sample.packed), sample.message)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_messages_read_as_they_did(path):
    stored = json.loads(path.read_text())
    data = bytes_of(path)
    message = lc.unpack(data)
    assert record(stored["name"], message, data) == stored
    assert_decodes(decode(data), message)


@pytest.mark.parametrize(
    ("name", "message", "options"), build(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_messages_are_written_as_they_were(name, message, options):
    data = lc.pack(message, **options).numpy().tobytes()
    assert data == bytes_of(VECTORS / f"{name}.json")


@pytest.mark.parametrize("path", FIRST_VERSION, ids=lambda path: path.stem)
def test_messages_of_the_first_version_are_refused_with_what_to_do(path):
    with pytest.raises(lc.WireError, match=r"of version 1 of the format.*update laconic on all ranks"):
        lc.unpack(bytes_of(path))
