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
    head = struct.unpack_from("<2sBBHBBIIIQI", data)
    magic, version, extension, flags, stage, zero, digest, round_, length, agreement, checksum = head
    assert (magic, version, extension, stage, zero, agreement) == (b"Lc", 2, 0, 0, 0, 0)
    assert length == len(data)
    assert checksum == zlib.crc32(data[32:], zlib.crc32(data[:28]))
    assert flags & 8
    reader = Reader(data, 32)
    count = reader.varint()
    groups = [read_group(reader, count > 1) for _ in range(count)]
    segments = sorted((one for group in groups for one in group["segments"]), key=lambda one: one["place"])
    assert [one["place"] for one in segments] == list(range(len(segments)))
    names = None
    if flags & 16:
        names = []
        for _ in range(reader.varint()):
            name = reader.bytes(reader.varint()).decode()
            shape = [reader.varint() for _ in range(reader.varint())]
            names.append([name, shape, ("compress", "exact", "bfloat16")[reader.bytes(1)[0]]])
    choices = reader.numbers(len(segments), 1) if flags & 32 else None
    for group in groups:
        read_section(reader, group)
    assert reader.at == len(data)
    parts = [{name: one[name] for name in ("d", "positions", "values")} for one in segments]
    return {"digest": digest, "round": round_, "names": names, "choices": choices, "parts": parts}


def read_group(reader, several):
    bits, dtype, tag = reader.unpack("HBB")
    names = ("listed", "counted", "seeded", "origin", "scales", "lowest", "cells", "factors", "adaptive")
    kind = {name: bool(bits >> i & 1) for i, name in enumerate(names)}
    assert bits >> len(names) == dtype >> 4 == 0
    kind["dtype"], kind["tag"] = dtype, tag
    kind["parameters"] = reader.unpack(f"{reader.varint()}d") if tag else ()
    kind["block"] = reader.varint() if kind["scales"] else 0
    kind["segments"] = []
    place = -1
    for _ in range(reader.varint()):
        place += 1 + (reader.varint() if several else 0)
        d = reader.varint()
        one = {"place": place, "d": d, "k": reader.varint() if kind["listed"] else d}
        one["cells"] = (reader.varint(), reader.varint()) if kind["cells"] else None
        one["factor"] = reader.unpack("d")[0] if kind["factors"] else 1.0
        one["number"] = reader.varint() if kind["origin"] else place
        kind["segments"].append(one)
    return kind


def read_section(reader, group):
    """Give each segment of the group its positions and decoded values."""
    segments = group["segments"]
    # Scales belong to columns, also to those that are not used.
    blocks = [-(-one["k"] // group["block"]) if group["block"] else 1 for one in segments]
    if group["counted"]:
        for one, used in zip(segments, reader.unpack(f"{len(segments)}I"), strict=True):
            assert used <= one["k"]
            one["k"] = used
    origin = reader.unpack("qII") if group["origin"] else None
    if group["listed"] and not origin:
        if group["adaptive"]:
            read_adaptive(reader, segments)
        else:
            read_positions(reader, segments)
    scales, lowest = [], []
    if group["scales"]:
        scales = reader.floats(sum(blocks), group["dtype"])
    if group["lowest"]:
        lowest = reader.floats(sum(blocks), group["dtype"])
    fl = rounder(group["dtype"])
    total = sum(one["k"] for one in segments)
    if group["tag"] == 0:
        numbers = iter(reader.floats(total, group["dtype"]))
    else:
        levels, symbols, window = grid(group, fl)
        codes = read_codes(reader, segments, symbols, window, len(levels))
    first = 0
    for one, count in zip(segments, blocks, strict=True):
        values = []
        for i in range(one["k"]):
            if group["tag"] == 0:
                values.append(next(numbers))
                continue
            code, block = next(codes), first + (i // group["block"] if group["block"] else 0)
            value = levels[abs(code) - 1] if code else 0.0
            value = fl(value * scales[block]) if scales else value
            value = fl(lowest[block] + value) if lowest else value
            values.append(-value if code < 0 else value)
        first += count
        if one["factor"] != 1.0:
            values = [fl(value * fl(one["factor"])) for value in values]
        one["values"] = values
        if origin:
            one["positions"] = seeded(one["d"], one["k"], *origin, one["number"])
        one.setdefault("positions", None)


def elias_fano_low(d, k):
    return min(range(d.bit_length() + 1), key=lambda b: k * b + ((d - 1) >> b))


def form_of(one):
    """(low bits of a position, high bits of all, form)."""
    d, k = one["d"], one["k"]
    if k in (0, d):
        return 0, 0, "implied"
    low = elias_fano_low(d, k)
    high = k + ((d - 1) >> low)
    forms = [(k * low + high, 1, (low, high, "elias-fano")), (d, 2, (0, d, "bitmap"))]
    if one["cells"]:
        width = (one["cells"][0] - 1).bit_length()
        forms.append((k * width, 0, (width, 0, "cells")))
    return min(forms)[2]


def read_positions(reader, segments):
    forms = [form_of(one) for one in segments]
    low_stream = reader.bits(sum(one["k"] * low for one, (low, _, _) in zip(segments, forms, strict=True)))
    high_stream = reader.bits(sum(high for _, high, _ in forms))
    for one, (low, high, form) in zip(segments, forms, strict=True):
        k = one["k"]
        lows = [low_stream >> i * low & ((1 << low) - 1) for i in range(k)]
        places = ones(high_stream & ((1 << high) - 1))
        low_stream >>= k * low
        high_stream >>= high
        if form == "implied":
            one["positions"] = list(range(k))
        elif form == "cells":
            length, count = one["cells"]
            one["positions"] = [p + i // count * length for i, p in enumerate(lows)]
        elif form == "bitmap":
            one["positions"] = places
        else:
            one["positions"] = [((p - i) << low) + lows[i] for i, p in enumerate(places)]
        assert len(one["positions"]) == k


def read_adaptive(reader, segments):
    high = reader.varint()
    if high == 0:
        read_positions(reader, segments)
        return
    k = sum(one["k"] for one in segments)
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
    start = 0
    for one in segments:
        one["positions"] = [positions.pop(0) - start for _ in range(one["k"])]
        assert all(0 <= p < one["d"] for p in one["positions"])
        start += one["d"]


def ones(bits):
    return [i for i in range(bits.bit_length()) if bits >> i & 1]


def read_codes(reader, segments, symbols, window, levels):
    bases = [0] * len(segments)
    if window:
        size = max(1, ((levels - window).bit_length() + 7) // 8)
        bases = [int.from_bytes(reader.bytes(size), "little") for _ in segments]
    k = sum(one["k"] for one in segments)
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
    owners = [base for base, one in zip(bases, segments, strict=True) for _ in range(one["k"])]
    for symbol, base in zip(digits, owners, strict=True):
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
