"""Reading bytes that cannot be trusted: WireError, and a cursor that never leaves its buffer."""

import struct

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


class WireError(ValueError):
    """Bytes are not the message that was expected; the text says what is wrong with them."""


def varint(number: int) -> bytes:
    """A non-negative number, seven bits a byte, lowest first; the top bit says that more follow."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Cursor:
    """Takes stretches of a buffer one after another."""

    def __init__(self, data: Bytes, start: int) -> None:
        """Start at a byte."""
        self._data = data
        self.at = start

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return self._data.size - self.at

    def rest(self) -> Bytes:
        """All bytes that are left; the cursor stays."""
        return self._data[self.at :]

    def take(self, size: int, what: str) -> Bytes:
        """The next ``size`` bytes; WireError, naming what was sought, where there are fewer."""
        if size > self.left:
            raise WireError(f"{what} takes {size} bytes, but only {self.left} are left")
        taken = self._data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, layout: str, what: str) -> tuple[int | float, ...]:
        """The next numbers in the notation of :mod:`struct`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout), what).tobytes())

    def varint(self, what: str) -> int:
        """The next number of seven bits a byte, at most 63 bits in its shortest form."""
        number: int = 0
        for shift in range(0, 63, 7):
            (byte,) = self.take(1, what).tolist()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise WireError(f"{what} is written with more bytes than it needs")
                return number
        raise WireError(f"{what} is a number of more than 63 bits")
