"""Coverage-guided fuzzing of ``laconic.unpack``, by hand: ``pip install atheris``, then

    python tests/wire/fuzz_atheris.py -max_total_time=600

The first byte of an input says what is expected and whether length and checksum are computed anew.
"""

import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Start from one message of every kind."""
    import atheris

    with atheris.instrument_imports(include=["laconic"]):
        from corpus import corpus
        from mutants import FRAME, MAX_D, check_again, sealed

        import laconic as lc

    samples = corpus()
    expected = [None] + [sample.expect for sample in samples if sample.expect is not None]

    def one_input(data: bytes) -> None:
        """Refused with WireError, or a message."""
        if not data:
            return
        expect = expected[(data[0] >> 1) % len(expected)]
        packed = sealed(data[1:]) if data[0] & 1 and len(data) > FRAME else data[1:]
        try:
            message = lc.unpack(packed, expect=expect, max_d=MAX_D)
        except lc.WireError:
            return
        check_again(message, packed)

    with tempfile.TemporaryDirectory() as folder:
        for number, sample in enumerate(samples):
            known = expected.index(sample.expect) << 1 & 0xFF
            (Path(folder) / str(number)).write_bytes(bytes([known | 1]) + sample.packed)
        atheris.Setup([*sys.argv, folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
