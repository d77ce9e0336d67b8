"""A decoder written from docs/wire-format.md alone: plain Python, nothing of the library.

Slow and simple. ``decode(data)`` takes a message that describes itself.
"""

import struct
import zlib


class Reader:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def bytes(self, count):
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, notation):
        return struct.unpack("<" + notation, self.bytes(struct.calcsize("<" + notation)))

    def varint(self):
        number = shift = 0
        while True:
            (byte,) = self.bytes(1)
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def bits(self, count):
        """The next bits, filled to whole bytes, as one number."""
        number = int.from_bytes(self.bytes((count + 7) // 8), "little")
        assert number >> count == 0
        return number

    def numbers(self, count, width):
        bits = self.bits(count * width)
        return [bits >> i * width & ((1 << width) - 1) for i in range(count)]

    def floats(self, count, dtype):
        if dtype == 3:
            return [struct.unpack("<f", b"\0\0" + self.bytes(2))[0] for _ in range(count)]
        return list(self.unpack(f"{count}{'fde'[dtype]}"))


def rounder(dtype):
    """Rounding to the dtype in which is computed."""
    return float if dtype == 1 else lambda x: struct.unpack("<f", struct.pack("<f", x))[0]


def decode(data):
    magic, version, flags, digest, round_, length, checksum = struct.unpack_from("<2sBBIIII", data)
    assert (magic, version, length) == (b"Lc", 1, len(data))
    assert checksum == zlib.crc32(data[20:], zlib.crc32(data[:16]))
    assert flags & 8
    reader = Reader(data, 20)
    kinds = [read_kind(reader) for _ in range(reader.varint())]
    segments = []
    for _ in range(reader.varint()):
        kind = kinds[reader.varint() if len(kinds) > 1 else 0]
        d = reader.varint()
        segments.append((kind, d, reader.varint() if kind["listed"] else d))
    names = None
    if flags & 16:
        names = []
        for _ in range(reader.varint()):
            name = reader.bytes(reader.varint()).decode()
            shape = [reader.varint() for _ in range(reader.varint())]
            names.append([name, shape, ("compress", "exact", "bfloat16")[reader.bytes(1)[0]]])
    choices = reader.numbers(len(segments), 1) if flags & 32 else None
    parts = [read_section(reader, *segment) for segment in segments]
    assert reader.at == len(data)
    return {"digest": digest, "round": round_, "names": names, "choices": choices, "parts": parts}


def read_kind(reader):
    first, second = reader.bytes(2)
    names = ("listed", "counted", "seeded", "origin", "scales", "lowest", "factor", "adaptive")
    kind = {name: bool(first >> i & 1) for i, name in enumerate(names)}
    kind["dtype"], kind["tag"] = second & 3, second >> 3
    kind["factor"] = reader.unpack("d")[0] if kind["factor"] else 1.0
    kind["cells"] = (reader.varint(), reader.varint()) if second & 4 else None
    kind["parameters"] = reader.unpack(f"{reader.varint()}d") if kind["tag"] else ()
    kind["places"] = reader.varint() if kind["scales"] else 0
    return kind


def read_section(reader, kind, d, k):
    used = reader.unpack("I")[0] if kind["counted"] else k
    positions = origin = None
    if kind["origin"]:
        origin = reader.unpack("qIII")
    elif kind["listed"]:
        positions = (
            read_adaptive(reader, d, used, kind)
            if kind["adaptive"]
            else read_positions(reader, d, used, kind)
        )
    blocks = 0 if not kind["scales"] else -(-k // kind["places"]) if kind["places"] else 1
    scales = reader.floats(blocks, kind["dtype"])
    lowest = reader.floats(blocks if kind["lowest"] else 0, kind["dtype"])
    fl = rounder(kind["dtype"])
    if kind["tag"] == 0:
        values = reader.floats(used, kind["dtype"])
    else:
        levels, symbols, window = grid(kind, fl)
        values = []
        for i, code in enumerate(read_codes(reader, used, symbols, window, len(levels))):
            block = i // kind["places"] if kind["places"] else 0
            value = levels[abs(code) - 1] if code else 0.0
            value = fl(value * scales[block]) if scales else value
            value = fl(lowest[block] + value) if lowest else value
            values.append(-value if code < 0 else value)
    if kind["factor"] != 1.0:
        factor = fl(kind["factor"])
        values = [fl(value * factor) for value in values]
    if origin:
        positions = seeded(d, k, *origin)
    return {"d": d, "positions": positions, "values": values}


def elias_fano_low(d, k):
    return min(range(d.bit_length() + 1), key=lambda b: k * b + ((d - 1) >> b))


def read_positions(reader, d, k, kind):
    if k in (0, d):
        return list(range(k))
    low = elias_fano_low(d, k)
    high = k + ((d - 1) >> low)
    forms = [((k * low + 7) // 8 + (high + 7) // 8, 1), ((d + 7) // 8, 2)]
    if kind["cells"]:
        width = (kind["cells"][0] - 1).bit_length()
        forms.append(((k * width + 7) // 8, 0))
    form = min(forms)[1]
    if form == 0:
        length, count = kind["cells"]
        return [p + i // count * length for i, p in enumerate(reader.numbers(k, width))]
    if form == 2:
        return ones(reader.bits(d))
    lows = reader.numbers(k, low)
    return [((p - i) << low) + lows[i] for i, p in enumerate(ones(reader.bits(high)))]


def read_adaptive(reader, d, k, kind):
    high = reader.varint()
    if high == 0:
        return read_positions(reader, d, k, kind)
    widths = [b for b in reader.numbers(-(-k // 64), 5) for _ in range(64)][:k]
    bits, lows = reader.bits(sum(widths)), []
    for width in widths:
        lows.append(bits & ((1 << width) - 1))
        bits >>= width
    positions, before, position = [], -1, -1
    for place, width, low in zip(ones(reader.bits(8 * high)), widths, lows, strict=True):
        position += ((place - before - 1) << width) + low + 1
        before = place
        positions.append(position)
    return positions


def ones(bits):
    return [i for i in range(bits.bit_length()) if bits >> i & 1]


def read_codes(reader, k, symbols, window, levels):
    base = 0
    if window:
        base = int.from_bytes(reader.bytes(max(1, ((levels - window).bit_length() + 7) // 8)), "little")
    width = (symbols - 1).bit_length()
    shared = 1
    while symbols ** (shared + 1) <= 256:
        shared += 1
    if shared > 1 and shared * width > 8:
        digits = [
            byte // symbols**j % symbols for byte in reader.bytes(-(-k // shared)) for j in range(shared)
        ][:k]
    else:
        digits = reader.numbers(k, width)
    for symbol in digits:
        assert symbol < symbols
        if symbols % 2:
            m = (symbol + 1) // 2 + base
            yield 0 if symbol == 0 else m if symbol % 2 else -m
        else:
            m = symbol // 2 + 1
            yield -m if symbol % 2 else m


def grid(kind, fl):
    """Levels, number of symbols, and levels that a row spans (0: all)."""
    tag, p = kind["tag"], kind["parameters"]
    if tag in (1, 6):
        levels = geometric(p if tag == 1 else (1.0, 2.0), kind["dtype"], fl)
        window = 2 ** int(p[0]) - 1 if tag == 6 else 2 ** ((len(levels) + 1).bit_length() - 1) - 1
        return levels, 2 * window + 1, window
    if tag == 2:
        levels = [1.0]
        while len(levels) < p[1]:
            levels.append(levels[-1] / p[0])
        return [fl(level) for level in reversed(levels)], 2 * len(levels) + 1, 0
    if tag == 3:
        return [fl(j / p[0]) for j in range(1, int(p[0]) + 1)], 2 * int(p[0]) + 1, 0
    if tag == 4:
        return [1.0], 2, 0
    steps = 2 ** (int(p[0]) - 1) - 1
    return [fl(j / steps) for j in range(steps + 1)], 2 ** int(p[0]), 0


def geometric(period, dtype, fl):
    largest, smallest = (1.7976931348623157e308, 0.0) if dtype == 1 else (3.4028234663852886e38, 2.0**-150)
    ratio, found = period[-1] / period[0], set()
    for first in period[:-1]:
        level = first
        while level <= largest:
            found.add(fl(level))
            level *= ratio
        level = first / ratio
        while level >= smallest and level > 0:
            if level <= largest:
                found.add(fl(level))
            level /= ratio
    return sorted(found - {0.0})


def philox(counter, key):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = b >> 32 ^ c1 ^ k0, b & 0xFFFFFFFF, a >> 32 ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def seeded(d, k, seed, round_, node, segment):
    rows = next(r for r in range(int(d**0.5), d + 2) if r * r >= d)
    columns = -(-d // rows)
    keys = [philox((3, step, 0, 0), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))[:2] for step in range(20)]

    def word(half, step):
        a, b, _, _ = philox((half, segment, node, round_), keys[step])
        return (a >> 1 << 31) | b >> 1

    def image(p):
        left, right = divmod(p, columns)
        for step in range(20):
            if step % 2 == 0:
                left = (left + word(right, step)) % rows
            else:
                right = (right + word(left, step)) % columns
        return left * columns + right

    positions = []
    for number in range(k):
        position = image(number)
        while position >= d:
            position = image(position)
        positions.append(position)
    return sorted(positions)
