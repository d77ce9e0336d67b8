"""Messages that were cut, changed and put together wrongly; and what must hold of whatever still unpacks."""

import random
import struct
import zlib

import torch

import laconic as lc

FRAME = 32
MAX_D = 4096
EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0x81, 0xFE, 0xFF)


def sealed(data):
    """The bytes with a frame that fits them: magic, version, length and checksum."""
    data = bytearray(data)
    data[0:3] = b"Lc\x02"
    data[16:20] = struct.pack("<I", len(data))
    data[28:32] = struct.pack("<I", zlib.crc32(data[32:], zlib.crc32(data[:28])))
    return bytes(data)


def mutant(rng, packed, others):
    """The bytes after one to four changes; in half of the cases sealed again."""
    data = bytearray(packed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _change(rng, data, others)
    if len(data) >= FRAME and rng.random() < 0.5:
        return sealed(data)
    return bytes(data)


def _change(rng, data, others):
    if not data:
        data += rng.randbytes(rng.randrange(40))
        return
    at = rng.randrange(len(data))
    if len(data) > FRAME and rng.random() < 0.5:
        at = min(len(data) - 1, FRAME + int(rng.expovariate(1 / 8)))  # where descriptions and counts stand
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice(EDGES)
        case 2:
            data[at] = rng.randrange(256)
        case 3:
            del data[at:]
        case 4:
            del data[at : at + rng.randrange(1, 9)]
        case 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 6:
            other = rng.choice(others)
            data[at:] = other[min(at, len(other)) :]
        case 7:
            width = rng.choice((2, 4, 8))
            data[at : at + width] = rng.choice((b"\x00", b"\xff")) * width


def attack(samples, count, seed):
    """Unpack so many mutants; returns how many were refused and how many were read."""
    rng = random.Random(seed)
    packed = [sample.packed for sample in samples]
    refused = read = 0
    for _ in range(count):
        sample = rng.choice(samples)
        data = mutant(rng, sample.packed, packed)
        try:
            message = lc.unpack(data, expect=sample.expect, max_d=MAX_D)
        except lc.WireError as error:
            refused += bool(str(error))
        else:
            check_again(message, data)
            read += 1
    return refused, read


def check(message, data):
    """What is read is a message: of bounded size, with positions and codes in range, that decodes."""
    assert message.d <= MAX_D, data.hex()
    for group in message.groups:
        one = group.format
        assert all(t.numel() <= max(3, one.d) for t in group.tensors().values()), data.hex()
        for part in group.parts():
            check_part(part, data)
        for numbers in (group.scale, group.low, None if one.kind.grid else group.values):
            assert numbers is None or bool(numbers.isfinite().all()), data.hex()
    assert message.dense().shape == (message.d,), data.hex()


def check_part(part, data):
    """Positions ascend within the segment; those that are not used hold its length."""
    if part.positions is None or not part.k:
        return
    used = part.k if part.count is None else int(part.count)
    kept = part.positions[:used]
    assert bool((kept[1:] > kept[:-1]).all()), data.hex()
    assert used == 0 or (int(kept[0]) >= 0 and int(kept[-1]) < part.d), data.hex()
    assert bool((part.positions[used:] == part.d).all()), data.hex()


def check_again(message, data):
    """As ``check``; and what is read can be packed and read again."""
    check(message, data)
    again = lc.unpack(lc.pack(message))
    assert torch.equal(again.dense().view(torch.uint8), message.dense().view(torch.uint8)), data.hex()
