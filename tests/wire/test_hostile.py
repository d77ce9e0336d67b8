"""Bytes that are no message are refused with words, and nothing else happens."""

import struct
from dataclasses import replace

import pytest
import torch
from corpus import COMPRESSORS, corpus
from mutants import FRAME, MAX_D, attack, check, sealed

import laconic as lc
from laconic.formats._cursor import varint
from laconic.wire import Flags, pack_non_finite, read_frame

MESSAGE = lc.TopK(3).compress(torch.tensor([5.0, 1.0, 4.0, 0.0, 3.0, 2.0]))
PACKED = lc.pack(MESSAGE).numpy().tobytes()
INFINITY = struct.pack("<f", float("inf"))
LISTED, COUNTED, SEEDED, ORIGIN, SCALES, LOWEST, CELLS, FACTORS, ADAPTIVE = (1 << i for i in range(9))


def changed(at, value):
    data = bytearray(PACKED)
    data[at] = value
    return bytes(data)


def described(body):
    """A sealed message with this description and whatever follows."""
    return sealed(PACKED[:FRAME] + body)


def kind(flags=0, dtype=0, tag=0):
    return struct.pack("<HBB", flags, dtype, tag)


def group(flags=0, dtype=0, tag=0, rest=b"\x01\x05"):
    """A message of one group; the rest starts with what its kind has beside the flags."""
    return described(b"\x01" + kind(flags, dtype, tag) + rest)


def double(*numbers):
    return varint(len(numbers)) + struct.pack(f"<{len(numbers)}d", *numbers)


DENSE = kind() + b"\x01"
"""A group of one segment, up to the segment."""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes are too few"),
        (PACKED[:31], "too few"),
        (PACKED[:-1], "the buffer has"),
        (PACKED + b"\0", "the buffer has"),
        (b"PNG" + PACKED[3:], "this is no message"),
        (changed(2, 1), "version 1 of the format, .* update laconic on all ranks"),
        (b"Lc\x01" + bytes(20), "version 1 of the format"),
        (changed(2, 9), "version 9 of the format, .*: update laconic"),
        (changed(16, 33), "checksum"),
        (changed(19, 255), "the buffer has"),
        (changed(len(PACKED) - 1, 77), "corrupted"),
        (sealed(changed(3, 1)), "extension 1: a later version"),
        (sealed(changed(6, 2)), "stage 2: a later version"),
        (sealed(changed(7, 3)), "reserved byte 3: a later version"),
        (sealed(changed(4, 0x88)), "unknown flags"),
        (sealed(changed(5, 0x80)), "unknown flags"),
        (sealed(changed(4, 0x10)), "names without the message's format"),
        (sealed(changed(4, 0x06)), "both silent and dense"),
        (sealed(changed(4, 0x09)), "not finite, but more follows"),
        (sealed(changed(4, 0x0A)), "contradict the description"),
        (sealed(changed(4, 0x0C)), "contradict the description"),
        (sealed(changed(4, 0x00)), "does not describe itself: pass expect="),
        (sealed(changed(4, 0x28)), "the choices"),
        (described(b""), "takes 1 bytes, but only 0 are left"),
        (described(b"\x00"), "number of groups is 0"),
        (described(b"\xff\x01"), "number of groups is 255"),
        (described(b"\x80\x00"), "more bytes than it needs"),
        (described(b"\xff" * 9 + b"\x01"), "more than 63 bits"),
        (group(rest=b"\x00"), "number of group 0's segments is 0"),
        (group(rest=b"\x01\x00"), "segment 0 of group 0 keeps 0 of 0"),
        (group(LISTED, rest=b"\x01\x05\x06"), "keeps 6 of 5"),
        (group(rest=b"\x01" + varint(2**31 + 1)), "more than max_d"),
        (group(rest=b"\x02" + varint(2**30) + varint(2**30 + 1)), "more than max_d"),
        (group(rest=b"\x01" + varint(2**31)), "takes 8589934592 bytes, but only 0 are left"),
        (group(1 << 9), "unknown flags"),
        (group(dtype=4), "unknown dtype"),
        (group(dtype=0x10), "unknown dtype"),
        (described(b"\x02" + 2 * (DENSE + b"\x00\x05")), "take each place of the layout once"),
        (
            described(b"\x02" + DENSE + b"\x00\x05" + DENSE + b"\x02\x05"),
            "take each place of the layout once",
        ),
        (described(b"\x02" + DENSE + b"\x00\x05" + DENSE + varint(2**62) + b"\x05"), "take each place"),
        (described(b"\x02" + DENSE + b"\x00" + varint(2**30) + DENSE + b"\x01" + varint(2**31)), "max_d"),
        (group(COUNTED), "contradict each other"),
        (group(CELLS), "contradict each other"),
        (group(ADAPTIVE), "contradict each other"),
        (group(LISTED | ORIGIN), "contradict each other"),
        (group(LISTED | SEEDED | ORIGIN | COUNTED), "contradict each other"),
        (group(LISTED | SEEDED | ORIGIN | ADAPTIVE), "contradict each other"),
        (group(SCALES, rest=b"\x00\x01\x05"), "contradict each other"),
        (group(LOWEST, tag=4, rest=b"\x00\x01\x05"), "contradict each other"),
        (group(FACTORS, rest=b"\x01\x05" + struct.pack("<d", float("nan"))), "factor of nan is not finite"),
        (group(FACTORS, rest=b"\x01\x05" + struct.pack("<d", -1e39)), r"factor of -1e\+39 is not finite"),
        (group(FACTORS, rest=b"\x01\x05" + struct.pack("<d", 1.0)), "factors of group 0 are all 1"),
        (group(LISTED | CELLS, rest=b"\x01\x09\x09\x04\x05"), "keeps 5 of 4"),
        (group(LISTED | CELLS, rest=b"\x01\x09\x09\x0a\x01"), "keeps 1 of 10 coordinates of each cell, of 9"),
        (group(LISTED | CELLS, rest=b"\x01\x09\x09\x04\x01"), "cannot keep 9 of 9 with 1 in each 4"),
        (group(LISTED | SEEDED | ORIGIN, rest=b"\x01\x09\x04" + varint(2**32)), "beyond 32 bits"),
        (group(LISTED | SEEDED | ORIGIN, rest=b"\x01\x09\x04\x00" + bytes(9)), "takes 16 bytes"),
        (group(dtype=2, rest=b"\x01\x05\x00"), "takes 10 bytes, but only 1 are left"),
        (group(tag=7, rest=b"\x00\x01\x05"), "no grid has tag 7"),
        (group(tag=1, rest=b"\x09"), "9 parameters, but 0 bytes"),
        (group(tag=1, rest=double(2, 1) + b"\x01\x05"), "must increase"),
        (group(tag=1, rest=double(1, 1 + 1e-12) + b"\x01\x05"), "too fine"),
        (group(tag=1, rest=double(1, 1e250) + b"\x01\x05"), "too coarse"),
        (group(dtype=2, tag=4, rest=b"\x00\x01\x05"), "not for torch.float16"),
        (group(tag=3, rest=double(2.5) + b"\x01\x05"), "no grid has tag 3"),
        (group(tag=3, rest=double(1) + b"\x01\x05\xff"), "none of 3 symbols"),
        (group(tag=3, rest=double(1) + b"\x01\x04\x51"), "none of 3 symbols"),
        (group(tag=4, rest=b"\x00\x01\x05\xff"), "not zero"),
        (group(tag=4, rest=b"\x00\x02\x05\x04" + b"\xff\x03"), "not zero"),
        (group(tag=6, rest=double(2) + b"\x01\x04" + b"\xff\xff" + bytes(2)), "start above level 65535"),
        (group(LISTED, rest=b"\x01\x08\x04\x1f" + bytes(16)), "group 0"),
        (group(LISTED | COUNTED, rest=b"\x01\x08\x04\x05\0\0\0"), "segment 0 of group 0 uses 5 of 4"),
        (
            group(LISTED | COUNTED, rest=b"\x02\x08\x04\x08\x04\x04\0\0\0\xff\xff\xff\xff"),
            "segment 1 of group 0",
        ),
        (group(LISTED | ADAPTIVE, rest=b"\x01\x08\x04\x09\x00"), "group 0"),
        (group(LISTED | ADAPTIVE, rest=b"\x01\x08\x04\x80\x00"), "group 0"),
        (group(LISTED | ADAPTIVE, rest=b"\x01\x08\x08\x01\x00\x00"), "need no writing"),
        (group(rest=b"\x01\x02" + bytes(4) + INFINITY), "values of group 0 are not finite"),
        (group(dtype=3, rest=b"\x01\x02\x00\x00\x80\xff"), "values of group 0 are not finite"),
        (group(dtype=2, rest=b"\x01\x02\x00\x00\x01\x7c"), "values of group 0 are not finite"),
        (
            group(SCALES, tag=4, rest=b"\x00\x00\x01\x05" + INFINITY + b"\x00"),
            "scales of group 0 are not finite",
        ),
        (
            group(SCALES | LOWEST, tag=5, rest=double(4) + b"\x00\x01\x01" + bytes(4) + INFINITY + b"\x00"),
            "lowest magnitudes of group 0 are not finite",
        ),
    ],
)
def test_what_is_wrong_is_said(data, says):
    with pytest.raises(lc.WireError, match=says.replace("(", r"\(")):
        lc.unpack(data)


def test_a_frame_may_say_that_numbers_are_not_finite():
    known = replace(MESSAGE.format, digest=77)
    buffer = torch.zeros(50, dtype=torch.uint8)
    assert pack_non_finite(buffer, 77, round=4) == 32
    frame = read_frame(buffer)
    assert (frame.non_finite, frame.round, frame.digest, frame.length) == (True, 4, 77, 32)
    with pytest.raises(lc.WireError, match="round 4 are not finite"):
        lc.unpack(buffer[:32], expect=known)


def test_agreement_and_changed_settings_are_read():
    data = bytearray(PACKED)
    data[20:28] = (2**64 - 2).to_bytes(8, "little")
    data[4] |= 64
    frame = read_frame(sealed(data))
    assert frame.agreement == 2**64 - 2
    assert frame.changed
    assert frame.flags == Flags.DESCRIBED | Flags.CHANGED
    check(lc.unpack(sealed(data)), data)


def test_a_verified_frame_is_not_verified_again():
    frame = read_frame(PACKED)
    data = bytearray(PACKED)
    data[28:32] = b"\xff\xff\xff\xff"
    with pytest.raises(lc.WireError, match="checksum"):
        lc.unpack(data)
    assert torch.equal(lc.unpack(data, frame=frame).dense(), MESSAGE.dense())
    with pytest.raises(lc.WireError, match="the buffer has"):
        lc.unpack(PACKED + b"\0", frame=frame)


def test_a_rank_that_is_one_step_off_is_named_with_both_steps():
    with pytest.raises(lc.WireError, match="of round 0, but round 1 is expected"):
        lc.unpack(PACKED, round=1)


def test_other_layouts_and_senders_are_refused():
    known = replace(MESSAGE.format, digest=5)
    with pytest.raises(lc.WireError, match="another layout or dtype"):
        lc.unpack(PACKED, expect=known)
    with pytest.raises(ValueError, match="digest"):
        lc.pack(MESSAGE, expect=known)
    other = lc.TopK(2).compress(torch.randn(6)).format
    with pytest.raises(lc.WireError, match="another sender: group 0 has kept"):
        lc.unpack(PACKED, expect=other)
    with pytest.raises(ValueError, match="format of expect=: group 0 has kept"):
        lc.pack(MESSAGE, expect=other)


def test_a_draw_keyed_by_other_segments_is_another_sender():
    message = lc.RandK(0.5).compress(torch.randn(200), torch.Generator().manual_seed(0))
    (one,) = message.format.groups
    assert one.kind.sends_seed
    known = replace(message.format, groups=(replace(one, numbers=(7,)),))
    with pytest.raises(lc.WireError, match="another sender"):
        lc.unpack(lc.pack(message), expect=known)
    (group,) = message.groups
    other = lc.Message((replace(group, format=known.groups[0]),))
    assert lc.unpack(lc.pack(other)).format.groups[0].table.numbers == (7,)


def test_max_d_bounds_described_and_expected_messages():
    bare = lc.pack(MESSAGE, expect=MESSAGE.format)
    for data, expect in ((PACKED, None), (bare, MESSAGE.format)):
        lc.unpack(data, expect=expect, max_d=6)
        with pytest.raises(lc.WireError, match="max_d = 5"):
            lc.unpack(data, expect=expect, max_d=5)


@pytest.mark.parametrize("positions", [[4, 2, 0], [0, 2, 2], [0, 2, 6], [-1, 2, 5], [0, 2, 2**40]])
def test_positions_that_do_not_ascend_are_not_packed(positions):
    (group,) = MESSAGE.groups
    wrong = lc.Message((replace(group, positions=torch.tensor(positions)),))
    for adaptive in (False, True):
        with pytest.raises(ValueError, match="ascend"):
            lc.pack(wrong, adaptive=adaptive)


@pytest.mark.parametrize("code", [-300, 300, 2**30, 2**32 + 1, -(2**63)])
def test_codes_outside_their_grid_are_not_packed(code):
    for compressor in (lc.Ternary(), lc.NaturalCompression(), lc.ScaledSign(), lc.BlockQuantizer(4)):
        (group,) = compressor.compress(torch.ones(6), torch.Generator().manual_seed(0)).groups
        values = group.values.to(torch.int32 if abs(code) < 2**31 else torch.int64)
        values[2] = code
        with pytest.raises(ValueError, match="none of"):
            lc.pack(lc.Message((replace(group, values=values),)))


def test_columns_of_another_shape_or_dtype_are_not_packed():
    (group,) = (lc.TopK(2) >> lc.BlockQuantizer(4)).compress(torch.randn(6)).groups
    (numbers,) = MESSAGE.groups
    for wrong in (
        replace(group, scale=group.scale.double()),
        replace(group, low=torch.zeros(2)),
        replace(group, values=torch.ones(3, dtype=torch.int8)),
        replace(group, positions=torch.arange(3)),
        replace(numbers, values=torch.zeros(2)),
        replace(numbers, values=torch.zeros(3, dtype=torch.bfloat16)),
    ):
        with pytest.raises(ValueError, match=r"format|positions"):
            lc.pack(lc.Message((wrong,)))


@pytest.mark.parametrize("counts", [[-1], [7]])
def test_counts_that_do_not_fit_are_not_packed(counts):
    (group,) = lc.RandomSparsification(0.5).compress(torch.ones(6), torch.Generator().manual_seed(0)).groups
    with pytest.raises(ValueError, match="columns of"):
        lc.pack(lc.Message((replace(group, counts=torch.tensor(counts)),)))


def test_truncation_anywhere_is_noticed():
    for sample in corpus()[::7]:
        for length in range(0, len(sample.packed), 5):
            with pytest.raises(lc.WireError):
                lc.unpack(sample.packed[:length], expect=sample.expect)
            if length >= FRAME:
                with pytest.raises(lc.WireError):
                    lc.unpack(sealed(sample.packed[:length]), expect=sample.expect)


def small_messages():
    """A small message of every compressor, on three segments."""
    layout = lc.Layout.of({"a": (6,), "b": (1,), "c": (3,)}, exact=["b"])
    for compressor in COMPRESSORS:
        if not isinstance(getattr(compressor, "k", 0.5), float):
            continue
        x = torch.linspace(-3, 4, layout.d)
        yield lc.DCGD(compressor).sender(layout, node=1, seed=2).send(x)


@pytest.mark.parametrize("number", range(len(list(small_messages()))))
def test_every_change_of_a_byte_is_refused_or_makes_a_message(number):
    """Every byte with each bit flipped, 0x00 and 0xff; then with length and checksum made anew."""
    message = list(small_messages())[number]
    for expect, adaptive in ((None, False), (message.format, False), (message.format.adapted(), True)):
        packed = lc.pack(message, expect=expect, adaptive=adaptive).numpy().tobytes()
        for at, byte in enumerate(packed):
            for value in {byte ^ 1 << bit for bit in range(8)} | {0x00, 0xFF} - {byte}:
                data = bytearray(packed)
                data[at] = value
                with pytest.raises(lc.WireError):
                    lc.unpack(data, expect=expect, max_d=MAX_D)
                try:
                    found = lc.unpack(sealed(data), expect=expect, max_d=MAX_D)
                except lc.WireError:
                    pass
                else:
                    check(found, bytes(data))


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
