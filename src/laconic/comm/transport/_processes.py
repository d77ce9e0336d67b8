"""Processes behind the ranks: which of those on this machine have ended."""

import os
import socket
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_PATIENCE_S = 0.5
"""A process that ends closes its connections before it is gone."""


def own_record() -> Tensor:
    """uint8 (16,): process id and the machine's checksum, two int64, for the other ranks."""
    return torch.frombuffer(bytearray(struct.pack("<qq", os.getpid(), _machine())), dtype=torch.uint8)


def ended(records: Sequence[Tensor]) -> list[int]:
    """The ranks whose processes were on this machine and are no more; waits a moment for the first.

    Args:
        records: of each rank, as :func:`own_record` makes them.
    """
    machine = _machine()
    found = [struct.unpack("<qq", bytes(record.tolist())) for record in records]
    here = {rank: pid for rank, (pid, where) in enumerate(found) if where == machine}
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        dead = [rank for rank, pid in here.items() if not _runs(pid)]
        if dead or time.monotonic() > deadline:
            return dead
        time.sleep(0.02)


def _machine() -> int:
    # Process ids mean something in one container only.
    namespace = Path("/proc/self/ns/pid")
    number = namespace.stat().st_ino if namespace.exists() else 0
    return zlib.crc32(f"{socket.gethostname()} {number}".encode())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie has ended, too: its parent has not asked for its exit code yet.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:  # of another user, or no /proc
        return True
