"""Description of the machine: processor, cores, versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe_machine(device: torch.device | None = None) -> dict[str, str]:
    """Processor, cores, threads and versions; the GPU where one is measured.

    Example:
        >>> sorted(describe_machine())[:3]
        ['cores', 'laconic', 'numba']
    """
    found = {"processor": _processor(), "cores": str(os.cpu_count())}
    if device is not None and device.type == "cuda":
        found["GPU"] = torch.cuda.get_device_name(device)
    found["threads"] = str(torch.get_num_threads())
    found["python"] = platform.python_version()
    return found | {name: _version(name) for name in ("torch", "numba", "numpy", "laconic")}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
