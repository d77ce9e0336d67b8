"""Our own threads for the loops, which hold no interpreter's lock while they run.

numba's threads are not used: they abort the process when two threads enter at once, or after a fork. Here
any thread may call at any time. The caller works too, so a call ends even where no helper is free; helpers
are daemons, so they keep no interpreter from ending; a forked child starts helpers of its own.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import torch

_MOST = 16
"""Largest default: memory bandwidth is used up long before that."""


class _Job:
    """Tasks 0 ... n - 1, taken one after another by whoever comes."""

    def __init__(self, task: Callable[[int], None], count: int) -> None:
        self._task = task
        self._waiting = list(range(count - 1, -1, -1))
        self._running = 0
        self._lock = threading.Lock()
        self._ended = threading.Lock()
        self._error: BaseException | None = None
        self._ended.acquire()

    def work(self) -> None:
        """Do tasks until none waits."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                number = self._waiting.pop()
                self._running += 1
            try:
                self._task(number)
            except BaseException as error:
                with self._lock:
                    self._error = self._error or error
                    self._waiting.clear()
            with self._lock:
                self._running -= 1
                if not self._waiting and self._running == 0:
                    self._ended.release()

    def wait(self) -> None:
        """Until all tasks are done; raises what the first failing one raised."""
        self._ended.acquire()
        if self._error is not None:
            raise self._error


class _Pool:
    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._helpers = 0

    def run(self, task: Callable[[int], None], count: int) -> None:
        with self._lock:
            while self._helpers < count - 1:
                name = f"laconic-{self._helpers}"
                threading.Thread(target=self._help, name=name, daemon=True).start()
                self._helpers += 1
        job = _Job(task, count)
        for _ in range(count - 1):
            self._jobs.put(job)
        job.work()
        job.wait()

    def _help(self) -> None:
        while True:
            job = self._jobs.get()
            job.work()
            del job  # or the arrays of the last job would live until the next


_pool = _Pool()
_chosen: int | None = None


def _forget() -> None:
    global _pool  # noqa: PLW0603
    _pool = _Pool()


os.register_at_fork(after_in_child=_forget)


def set_threads(count: int | None) -> None:
    """How many threads the compiled loops may use; no result depends on it.

    Args:
        count: >= 1; None for the default: the environment variable ``LACONIC_THREADS``, else
            ``torch.get_num_threads()``, but at most 16.

    Raises:
        ValueError: for a count < 1.

    Example:
        >>> set_threads(1)
        >>> get_threads()
        1
        >>> set_threads(None)
    """
    global _chosen  # noqa: PLW0603
    _chosen = None if count is None else _checked(count, "the number of threads")


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """As :func:`set_threads`, until the block ends."""
    global _chosen  # noqa: PLW0603
    before, _chosen = _chosen, count
    try:
        yield
    finally:
        _chosen = before


def get_threads() -> int:
    """How many threads the compiled loops may use.

    Raises:
        ValueError: where ``LACONIC_THREADS`` is set to anything but an integer >= 1.
    """
    if _chosen is not None:
        return _chosen
    wish = os.environ.get("LACONIC_THREADS")
    if wish:
        return _checked(wish, "the environment variable LACONIC_THREADS")
    return min(torch.get_num_threads(), _MOST)


def _checked(count: int | str, name: str) -> int:
    try:
        number = int(count)
    except ValueError:
        number = 0
    if isinstance(count, bool | float) or number < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {count!r}")
    return number


def in_threads(task: Callable[[int], None], count: int) -> None:
    """``task(0)``, ..., ``task(count - 1)``, side by side; raises what a failing one raised.

    A task must not wait for another one.
    """
    if count == 1:
        task(0)
    else:
        _pool.run(task, count)
