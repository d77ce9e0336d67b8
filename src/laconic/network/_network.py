"""Emulated network on one Linux machine: a namespace for each rank, joined by a bridge or a switch.

Everything is made inside network and mount namespaces of the calling process (:func:`isolation`), so that
nothing of the machine's own network changes, and the kernel removes all of it when the process ends.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ADDRESS = "10.77.0."
DEVICE = "eth0"
HEADERS = 66
"""Bytes of Ethernet, IPv4 and TCP headers (with timestamps), which an interface counts in each packet."""
_MTU = 1500
_QUEUE_S = 0.05
_PLAIN_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit")


@dataclass(frozen=True)
class Link:
    """Each rank's link to the switch, alike in both directions.

    Args:
        rate: bits a second; None without a limit.
        delay_ms: one way from rank to rank, milliseconds.
    """

    rate: float | None
    delay_ms: float = 0.0

    @property
    def label(self) -> str:
        """For example "100 Mbit/s" or "1 Gbit/s, 20 ms"."""
        if self.rate is None:
            rate = "unshaped"
        else:
            scale, unit = (1e9, "Gbit/s") if self.rate >= 1e9 else (1e6, "Mbit/s")
            rate = f"{self.rate / scale:g} {unit}"
        return f"{rate}, {self.delay_ms:g} ms" if self.delay_ms else rate


def parse_rate(text: str) -> float | None:
    """Bits a second of a rate such as "100mbit" or "1gbit"; None for "none".

    Raises:
        ValueError: for anything else.

    Example:
        >>> parse_rate("100mbit"), parse_rate("none")
        (100000000.0, None)
    """
    if text.strip().lower() in ("none", "unshaped"):
        return None
    found = _PLAIN_RATE.fullmatch(text.strip().lower())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"rate {text!r}: give one such as 100mbit or 1gbit, or none")
    return float(found[1]) * {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}[found[2]]


@dataclass(frozen=True)
class Isolation:
    """How a command gets namespaces of its own.

    Args:
        prefix: of the command; None where it cannot be had.
        reason: then why, as a clause.
    """

    prefix: tuple[str, ...] | None
    reason: str = ""


def isolation() -> Isolation:
    """The way to namespaces of one's own: as root, else by an unprivileged user namespace."""
    if sys.platform != "linux":
        return Isolation(None, "network namespaces exist on Linux only")
    missing = [name for name in ("unshare", "ip", "tc", "mount") if shutil.which(name) is None]
    if missing:
        return Isolation(None, f"{', '.join(missing)} not found (packages util-linux and iproute2)")
    for user in ((), ("--user", "--map-root-user")):
        prefix = ("unshare", *user, "--net", "--mount")
        trial = (
            "mount -t tmpfs none /run && ip netns add trial && ip link add type veth && "
            "ip link add switch type bridge && "
            "tc qdisc add dev switch root tbf rate 1mbit burst 66000 limit 100000"
        )
        if subprocess.run([*prefix, "sh", "-c", trial], capture_output=True, check=False).returncode == 0:
            return Isolation(prefix)
    return Isolation(None, "the kernel lacks, or does not allow, network namespaces, bridges or tc tbf")


class Network:
    """Network namespaces of ``nodes`` ranks, for as long as the context lasts.

    To be made inside :func:`isolation`. Rates are limited by ``tc tbf`` on both ends of each link. A delay is
    netem's, or, where the kernel lacks that, of :mod:`laconic.network.switch`.

    Raises:
        RuntimeError: naming the command that failed.
    """

    def __init__(self, nodes: int, link: Link) -> None:
        """Keep the settings."""
        self.nodes, self.link = nodes, link
        self._switch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Build it."""
        _run("mount", "-t", "tmpfs", "none", "/run")
        for rank in range(self.nodes):
            _run("ip", "netns", "add", _space(rank))
            _run("ip", "-n", _space(rank), "link", "set", "lo", "up")
        if self.link.delay_ms and not self._has_netem():
            self._join_by_switch()
        else:
            self._join_by_bridge()
        for rank in range(self.nodes):
            space = _space(rank)
            _run("ip", "-n", space, "addr", "add", f"{ADDRESS}{rank + 1}/24", "dev", DEVICE)
            _run("ip", "-n", space, "link", "set", DEVICE, "up")
            # Permitted to root only; without it the machine's default stays.
            subprocess.run(
                [*self.command(rank), "sysctl", "-qw", "net.ipv4.tcp_congestion_control=cubic"],
                capture_output=True,
                check=False,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the switch; the kernel removes the rest with the process."""
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()
        for rank in range(self.nodes):
            subprocess.run(["ip", "netns", "del", _space(rank)], capture_output=True, check=False)

    def command(self, rank: int) -> list[str]:
        """The prefix of a command that runs on a rank's node."""
        return ["ip", "netns", "exec", _space(rank)]

    def _has_netem(self) -> bool:
        trial = ["tc", "-n", _space(0), "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        found = subprocess.run(trial, capture_output=True, check=False).returncode == 0
        if found:
            _run("tc", "-n", _space(0), "qdisc", "del", "dev", "lo", "root")
        return found

    def _join_by_bridge(self) -> None:
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "link", "set", "switch", "up")
        for rank in range(self.nodes):
            space, port = _space(rank), f"port{rank}"
            names = [port, "mtu", str(_MTU), "type", "veth", "peer", "name", DEVICE, "mtu", str(_MTU)]
            _run("ip", "link", "add", *names, "netns", space)
            _run("ip", "link", "set", port, "master", "switch", "up")
            self._limit(DEVICE, ("-n", space), delayed=True)
            self._limit(port, (), delayed=False)

    def _limit(self, device: str, where: Sequence[str], *, delayed: bool) -> None:
        parent = ["root", "handle", "1:"]
        if self.link.rate is not None:
            bytes_a_second = self.link.rate / 8
            burst = max(int(bytes_a_second * 0.001), 66_000)  # a millisecond, or one packet of 64 KiB
            limit = max(int(bytes_a_second * _QUEUE_S), 256 << 10) + burst
            shape = ["tbf", "rate", f"{self.link.rate:.0f}bit", "burst", str(burst), "limit", str(limit)]
            _run("tc", *where, "qdisc", "add", "dev", device, *parent, *shape)
            parent = ["parent", "1:1", "handle", "10:"]
        if self.link.delay_ms and delayed:
            shape = ["netem", "delay", f"{self.link.delay_ms}ms", "limit", "100000"]
            _run("tc", *where, "qdisc", "add", "dev", device, *parent, *shape)

    def _join_by_switch(self) -> None:
        rate = self.link.rate or 0.0
        settings = [str(self.nodes), str(rate), str(self.link.delay_ms), str(_QUEUE_S)]
        command = [sys.executable, "-m", "laconic.network.switch", *settings]
        self._switch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._switch.stdout is not None
        assert self._switch.stderr is not None
        if self._switch.stdout.readline().strip() != "ready":
            raise RuntimeError(f"a delay needs netem or TAP devices: {self._switch.stderr.read().strip()}")
        for rank in range(self.nodes):
            address = f"02:00:00:00:00:{rank:02x}"
            renamed = ["name", DEVICE, "address", address, "mtu", str(_MTU)]
            _run("ip", "link", "set", f"tap{rank}", "netns", _space(rank), *renamed)


@dataclass(frozen=True)
class Traffic:
    """Bytes and packets that an interface has sent."""

    bytes: int
    packets: int

    @classmethod
    def sent(cls, device: str) -> "Traffic":
        """As counted by the kernel so far, in this process's network namespace."""
        found = cls.by_device()
        if device not in found:
            raise RuntimeError(f"the kernel knows no network device {device!r}")
        return found[device]

    @classmethod
    def by_device(cls) -> "dict[str, Traffic]":
        """Of every device, as counted so far; empty where the system does not tell."""
        path = Path("/proc/net/dev")
        lines = path.read_text().splitlines() if path.exists() else []
        cut = [line.partition(":") for line in lines if ":" in line]
        return {name.strip(): cls(*map(int, numbers.split()[8:10])) for name, _, numbers in cut}

    def __sub__(self, before: "Traffic") -> "Traffic":
        """What was sent since ``before``."""
        return Traffic(self.bytes - before.bytes, self.packets - before.packets)

    def __add__(self, other: "Traffic") -> "Traffic":
        """Both together."""
        return Traffic(self.bytes + other.bytes, self.packets + other.packets)

    @property
    def payload(self) -> int:
        """Bytes without the headers of Ethernet, IP and TCP."""
        return self.bytes - HEADERS * self.packets


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    import ctypes
    import signal

    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _space(rank: int) -> str:
    return f"rank{rank}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
