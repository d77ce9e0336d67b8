"""Counts of Python calls into the library and of calls into PyTorch, on all threads that start inside."""

import sys
import threading
from collections import Counter
from contextlib import contextmanager

import torch

# What only reads a tensor's description or address, and makes no tensor.
_READS = {
    "data_ptr", "numel", "dim", "size", "stride", "is_contiguous", "element_size", "storage_offset",
    "is_floating_point", "promote_types", "finfo", "iinfo", "get_num_threads", "is_grad_enabled",
    "set_grad_enabled", "requires_grad_", "record_function", "_set_grad_enabled",
}  # fmt: skip


class Counting:
    """Counts while it is on.

    Attributes:
        calls: of Python functions of ``laconic``, by module.
        operations: of PyTorch's compiled functions and tensor methods, by name.
    """

    def __init__(self):
        self.calls = Counter()
        self.operations = Counter()
        self._on = False

    @contextmanager
    def on(self):
        """Count inside."""
        self.calls.clear()
        self.operations.clear()
        self._on = True
        try:
            yield self
        finally:
            self._on = False

    def __call__(self, frame, event, arg):
        if not self._on:
            return
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            if module.startswith("laconic."):
                self.calls[module] += 1
        elif event == "c_call" and frame.f_globals.get("__name__", "").startswith("laconic."):
            owner = getattr(arg, "__self__", None)
            name = getattr(arg, "__name__", "")
            module = getattr(arg, "__module__", "") or ""
            tensor = isinstance(owner, torch.Tensor)
            if (tensor or module.startswith("torch") or owner is torch._C._VariableFunctions) and (
                name not in _READS
            ):
                self.operations[name] += 1


@contextmanager
def counting():
    """A counter for this thread and for those that start inside; switch it on with ``with counter.on():``."""
    counter = Counting()
    threading.setprofile(counter)
    sys.setprofile(counter)
    try:
        yield counter
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
