"""Bytes that are no message are refused with words, and nothing else happens."""

import struct

import pytest
import torch
from corpus import corpus
from mutants import attack, sealed

import laconic as lc
from laconic.specs import varint
from laconic.wire import Schema, pack_non_finite, read_frame

MESSAGE = lc.TopK(3).compress(torch.tensor([5.0, 1.0, 4.0, 0.0, 3.0, 2.0]))
PACKED = lc.pack(MESSAGE).numpy().tobytes()


def changed(at, value):
    data = bytearray(PACKED)
    data[at] = value
    return bytes(data)


def described(body):
    """A sealed message with this description and whatever follows."""
    return sealed(PACKED[:20] + body)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes are too few"),
        (PACKED[:19], "too few"),
        (PACKED[:-1], "the buffer has"),
        (PACKED + b"\0", "1 bytes follow the message"),
        (b"PNG" + PACKED[3:], "this is no message"),
        (changed(2, 9), "version 9"),
        (changed(12, 21), "checksum"),
        (changed(15, 255), "the buffer has"),
        (changed(len(PACKED) - 1, 77), "corrupted"),
        (sealed(changed(3, 0x88)), "unknown flags"),
        (sealed(changed(3, 0x10)), "names without the message's structure"),
        (sealed(changed(3, 0x06)), "both silent and dense"),
        (sealed(changed(3, 0x09)), "not finite, but more follows"),
        (sealed(changed(3, 0x0A)), "contradict the description"),
        (sealed(changed(3, 0x00)), "does not describe itself: pass expect="),
        (sealed(changed(3, 0x28)), "the choices"),
        (described(b""), "takes 1 bytes, but only 0 are left"),
        (described(b"\x00"), "number of kinds is 0"),
        (described(b"\xff\x01"), "number of kinds is 255"),
        (described(b"\x80\x00"), "more bytes than it needs"),
        (described(b"\xff" * 9 + b"\x01"), "more than 63 bits"),
        (described(b"\x01\x00\x00\x01\x00"), "segment 0 keeps 0 of 0"),
        (described(b"\x01\x01\x00\x01\x05\x06"), "keeps 6 of 5"),
        (described(b"\x01\x00\x00\x01" + varint(2**31 + 1)), "more than max_d"),
        (described(b"\x01\x00\x00\x01" + varint(2**31)), "takes 8589934592 bytes, but only 0 are left"),
        (described(b"\x02\x00\x00\x00\x00\x01\x00\x05"), "lists a kind of segment twice"),
        (described(b"\x02\x00\x00\x01\x00\x01\x01\x05\x00"), "order of their first use"),
        (described(b"\x02\x00\x00\x01\x00\x01\x02\x05\x00"), "is of kind 2, but there are 2"),
        (described(b"\x01\x02\x00\x01\x05"), "contradict each other"),
        (described(b"\x01\x08\x00\x01\x05"), "contradict each other"),
        (described(b"\x01\x10\x00\x00\x01\x05"), "scales without codes"),
        (described(b"\x01\x40\x00" + struct.pack("<d", float("nan")) + b"\x01\x05"), "factor of nan"),
        (described(b"\x01\x01\x04\x04\x05\x01\x09\x09"), "keeps 5 of 4"),
        (described(b"\x01\x01\x04\x04\x01\x01\x09\x09"), "cannot keep 9 of 9 with 1 in each 4"),
        (described(b"\x01\x00\x02\x01\x05\x00"), "takes 10 bytes, but only 1 are left"),
        (described(b"\x01\x00\x38\x00\x01\x05"), "no grid has tag 7"),
        (described(b"\x01\x00\x08\x09"), "9 parameters, but 0 bytes"),
        (described(b"\x01\x00\x08\x02" + struct.pack("<2d", 2, 1) + b"\x01\x05"), "must increase"),
        (described(b"\x01\x00\x08\x02" + struct.pack("<2d", 1, 1 + 1e-12) + b"\x01\x05"), "too fine"),
        (described(b"\x01\x00\x08\x02" + struct.pack("<2d", 1, 1e250) + b"\x01\x05"), "too coarse"),
        (described(b"\x01\x00\x22\x00\x01\x05"), "not for torch.float16"),
        (described(b"\x01\x00\x18\x01" + struct.pack("<d", 2.5) + b"\x01\x05"), "no grid has tag 3"),
        (described(b"\x01\x00\x18\x01" + struct.pack("<d", 1) + b"\x01\x05\xff"), "none of 3 symbols"),
        (described(b"\x01\x00\x18\x01" + struct.pack("<d", 1) + b"\x01\x04\x51"), "none of 3 symbols"),
        (described(b"\x01\x00\x20\x00\x01\x05\xff"), "not zero"),
        (described(b"\x01\x01\x00\x01\x08\x04\x1f" + b"\0" * 16), "ones, not 4"),
        (described(b"\x01\x03\x00\x01\x08\x04\x05\0\0\0"), "uses 5 of 4 places"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(data, says):
    with pytest.raises(lc.WireError, match=says.replace("(", r"\(")):
        lc.unpack(data)


def test_a_frame_may_say_that_numbers_are_not_finite():
    layout = lc.Layout.flat(6)
    buffer = torch.zeros(30, dtype=torch.uint8)
    assert pack_non_finite(buffer, layout, round=4) == 20
    frame = read_frame(buffer)
    assert (frame.non_finite, frame.round, frame.digest, frame.length) == (True, 4, layout.digest, 20)
    with pytest.raises(lc.WireError, match="round 4 are not finite"):
        lc.unpack(buffer[:20], expect=Schema.of(layout, lc.TopK(1)))


def test_a_rank_that_is_one_step_off_is_named_with_both_steps():
    with pytest.raises(lc.WireError, match="of round 0, but round 1 is expected"):
        lc.unpack(PACKED, round=1)


def test_other_layouts_and_senders_are_refused():
    schema = Schema.of(lc.Layout.flat(6), lc.TopK(3))
    with pytest.raises(lc.WireError, match="another layout"):
        lc.unpack(PACKED, expect=schema)
    with pytest.raises(ValueError, match="digest"):
        lc.pack(MESSAGE, expect=schema)
    other = Schema.like(lc.TopK(2).compress(torch.randn(6)))
    with pytest.raises(lc.WireError, match="another sender: segment 0"):
        lc.unpack(PACKED, expect=other)
    with pytest.raises(ValueError, match="structure of the schema: segment 0"):
        lc.pack(MESSAGE, expect=other)


def test_max_d_bounds_described_and_expected_messages():
    schema = Schema.like(MESSAGE)
    bare = lc.pack(MESSAGE, expect=schema)
    for data, expect in ((PACKED, None), (bare, schema)):
        lc.unpack(data, expect=expect, max_d=6)
        with pytest.raises(lc.WireError, match="max_d = 5"):
            lc.unpack(data, expect=expect, max_d=5)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("positions", torch.tensor([4, 2, 0])),
        ("positions", torch.tensor([0, 2, 2])),
        ("positions", torch.tensor([0, 2, 6])),
        ("positions", torch.tensor([-1, 2, 5])),
    ],
)
def test_positions_that_do_not_ascend_are_not_packed(field, values):
    from dataclasses import replace

    part = replace(MESSAGE.parts[0], **{field: values})
    for adaptive in (False, True):
        with pytest.raises(ValueError, match="ascend"):
            lc.pack(lc.Message((part,)), adaptive=adaptive)


@pytest.mark.parametrize("code", [-300, 300, 2**30, 2**32 + 1, -(2**63)])
def test_codes_outside_their_grid_are_not_packed(code):
    from dataclasses import replace

    for compressor in (lc.Ternary(), lc.NaturalCompression(), lc.ScaledSign(), lc.BlockQuantizer(4)):
        (part,) = compressor.compress(torch.ones(6), torch.Generator().manual_seed(0)).parts
        values = part.values.to(torch.int32 if abs(code) < 2**31 else torch.int64)
        values[2] = code
        with pytest.raises(ValueError, match="none of"):
            lc.pack(lc.Message((replace(part, values=values),)))


def test_truncation_anywhere_is_noticed():
    for sample in corpus()[::7]:
        for length in range(0, len(sample.packed), 5):
            with pytest.raises(lc.WireError):
                lc.unpack(sample.packed[:length], expect=sample.expect)
            if length >= 20:
                with pytest.raises(lc.WireError):
                    lc.unpack(sealed(sample.packed[:length]), expect=sample.expect)


def test_twenty_thousand_mutants():
    refused, read = attack(corpus(), 20_000, seed=1)
    assert refused > 10_000
    assert read > 200  # else only frames and checksums were tried


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_million_mutants(seed):
    refused, read = attack(corpus(), 100_000, seed)
    assert refused > 50_000
    assert read > 1_000
