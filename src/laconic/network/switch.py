"""User-space Ethernet switch between TAP devices, with a rate and a delay for kernels that lack netem.

Each port has an uplink and a downlink of the same rate. The uplink is paced by not reading the device while
it is busy, so that senders feel back-pressure; the downlink drops what would wait longer than its queue.
Segmentation offload is on: a packet may hold up to 64 KiB, and is charged with the headers of all the
segments that it stands for.
"""

# mypy: ignore-errors
# numba has no types, and keeps no compiled code that holds addresses of C functions.

import ctypes
import fcntl
import os
import struct
import sys

import numpy as np
from numba import njit

from laconic.network._network import die_with_parent

HEADER = 10
"""Bytes of virtio_net_hdr before each packet: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
SLOT = 65_536 + 256
SLOTS = 4096
"""Packets under way at most; the memory of a slot is touched only when it is used."""
BUSY_NS = 200_000
"""An uplink that is busy for longer than this is not read."""

_libc = ctypes.CDLL(None, use_errno=True)


def _function(name, result, *arguments):
    function = getattr(_libc, name)
    function.restype, function.argtypes = result, arguments
    return function


_read = _function("read", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_write = _function("write", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_clock = _function("clock_gettime", ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_ppoll = _function("ppoll", ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)


def run(nodes: int, rate: float, delay_ms: float, queue_s: float) -> None:
    """Switch between ``tap0`` ... until the process is killed; prints "ready" once the devices exist.

    Args:
        nodes: ports; port r has the Ethernet address 02:00:00:00:00:r.
        rate: bits a second, each way; 0 without a limit.
        delay_ms: from the end of the uplink to the beginning of the downlink.
        queue_s: seconds of the downlink's queue.

    Raises:
        OSError: where TAP devices cannot be made.
    """
    die_with_parent()
    _libc.prctl(29, 1000)  # PR_SET_TIMERSLACK: wake within a microsecond
    devices = np.array([_open_tap(f"tap{rank}") for rank in range(nodes)], np.int32)
    state = _new_state(devices)
    settings = 8e9 / rate if rate else 0.0, int(delay_ms * 1e6), int(queue_s * 1e9)
    _run_ports(*state, settings, 0)  # compiled before the first packet comes
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _run_ports(*state, settings, -1)


def _open_tap(name):
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    tap, no_packet_information, header = 0x0002, 0x1000, 0x4000
    fcntl.ioctl(
        device, 0x400454CA, struct.pack("16sH14x", name.encode(), tap | no_packet_information | header)
    )
    checksum, tcp4, tcp6 = 1, 2, 4
    fcntl.ioctl(device, 0x400454D0, checksum | tcp4 | tcp6)  # TUNSETOFFLOAD
    return device


@njit
def _now(buffer):
    _clock(1, buffer.ctypes.data)  # CLOCK_MONOTONIC
    return buffer[0] * 1_000_000_000 + buffer[1]


@njit
def _wire_bytes(packet, length):
    """Bytes of all the segments that a packet stands for, with preamble, checksum and gap."""
    payload = length - HEADER
    if packet[1] == 0:
        return payload + 24
    segment = int(packet[4]) | int(packet[5]) << 8
    headers = int(packet[2]) | int(packet[3]) << 8
    segments = (payload + segment - 1) // segment
    return payload + 24 + (segments - 1) * (headers + 24)


@njit
def _deliver(device, slots, queue, head, tail, due, lengths, t):
    """Write what is due; the new head."""
    while head != tail:
        slot = queue[head % SLOTS]
        if due[slot] > t or _write(device, slots[slot].ctypes.data, lengths[slot]) < 0:
            break
        lengths[slot] = 0
        head += 1
    return head


def _new_state(devices):
    nodes = len(devices)
    free_at = np.zeros((2, nodes), np.int64)
    queues = np.zeros((nodes, SLOTS), np.int64), np.zeros((2, nodes), np.int64)
    slots = np.zeros((SLOTS, SLOT), np.uint8), np.zeros(SLOTS, np.int64), np.zeros(SLOTS, np.int64)
    scratch = np.zeros(SLOT, np.uint8), np.zeros(2, np.int64), np.zeros((nodes, 2), np.int32)
    return devices, free_at, queues, slots, scratch


@njit
def _forward(port, length, arrives, serial, downlink_free, queued, stored, packet, settings, free):
    """Queue a packet for the ports that it is meant for; where to look for the next free slot."""
    queues, ends = queued
    slots, due, lengths = stored
    to_all = packet[HEADER] & 1
    for other in range(len(downlink_free)):
        if other == port or (not to_all and packet[HEADER + 5] != other):
            continue
        # Cut-through: the downlink starts as the first bit arrives.
        starts = max(downlink_free[other], arrives)
        if settings[0] > 0 and starts - arrives > settings[2]:
            continue
        for _ in range(SLOTS):
            if lengths[free] == 0:
                break
            free = (free + 1) % SLOTS
        if lengths[free] != 0:
            continue
        downlink_free[other] = starts + serial
        due[free] = starts + serial
        lengths[free] = length
        slots[free, :length] = packet[:length]
        queues[other, ends[1, other] % SLOTS] = free
        ends[1, other] += 1
    return free


@njit
def _run_ports(devices, free_at, queued, stored, scratch, settings, rounds):
    uplink_free = free_at[0]
    queues, ends = queued
    slots, due, lengths = stored
    packet, clock, polled = scratch
    ns_a_byte, delay, _ = settings
    nodes = len(devices)
    free = 0
    while rounds != 0:
        rounds -= 1
        t = _now(clock)
        wake = t + 1_000_000_000
        for port in range(nodes):
            head = _deliver(devices[port], slots, queues[port], ends[0, port], ends[1, port], due, lengths, t)
            ends[0, port] = head
            if head != ends[1, port]:
                wake = min(wake, max(due[queues[port, head % SLOTS]], t + 20_000))
            busy = uplink_free[port] > t + BUSY_NS
            if busy:
                wake = min(wake, uplink_free[port] - BUSY_NS)
            polled[port, 0] = -1 if busy else devices[port]
            polled[port, 1] = 1  # POLLIN
        wait = max(wake - _now(clock), 0)
        clock[0], clock[1] = wait // 1_000_000_000, wait % 1_000_000_000
        if _ppoll(polled.ctypes.data, nodes, clock.ctypes.data, 0) <= 0:
            continue
        for port in range(nodes):
            if not (polled[port, 1] >> 16) & 1:
                continue
            for _ in range(16):
                t = _now(clock)
                if uplink_free[port] > t + BUSY_NS:
                    break
                length = _read(devices[port], packet.ctypes.data, SLOT)
                if length <= HEADER + 14:
                    break
                serial = int(_wire_bytes(packet, length) * ns_a_byte)
                sent = max(uplink_free[port], t) + serial
                uplink_free[port] = sent
                free = _forward(
                    port,
                    length,
                    sent - serial + delay,
                    serial,
                    free_at[1],
                    queued,
                    stored,
                    packet,
                    settings,
                    free,
                )


if __name__ == "__main__":
    run(int(sys.argv[1]), *map(float, sys.argv[2:]))
