"""Coverage-guided fuzzing of ``laconic.unpack``, by hand: ``pip install atheris``, then

    python tests/wire/fuzz_atheris.py -max_total_time=600

The first byte of an input says what is expected and whether length and checksum are computed anew.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["laconic"]):
    from corpus import corpus
    from mutants import MAX_D, check, sealed

    import laconic as lc

SAMPLES = corpus()
EXPECTED = [None] + [sample.expect for sample in SAMPLES if sample.expect is not None]


def one_input(data: bytes) -> None:
    """Refused with WireError, or a message."""
    if not data:
        return
    expect = EXPECTED[(data[0] >> 1) % len(EXPECTED)]
    packed = sealed(data[1:]) if data[0] & 1 and len(data) > 20 else data[1:]
    try:
        message = lc.unpack(packed, expect=expect, max_d=MAX_D)
    except lc.WireError:
        return
    check(message, packed)


def main() -> None:
    """Start from one message of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(SAMPLES):
            expected = EXPECTED.index(sample.expect)
            (Path(folder) / str(number)).write_bytes(bytes([expected << 1 & 0xFF | 1]) + sample.packed)
        atheris.Setup([*sys.argv, folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
