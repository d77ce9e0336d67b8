"""JIT compilation once per machine: a lock between processes, and progress on standard error."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LINE = "laconic: compiling its loops (once per machine; `laconic warmup` does it ahead)"
WAIT_S = 300.0
"""How long a process waits for another one that compiles, before it compiles for itself."""
_TICK_S = 0.5
_BAR = 24

Say = Callable[[str], None]


class Compilation:
    """What happens when a warm-up finds loops that have to be compiled.

    The first process that misses one takes the lock beside numba's cache and keeps it until its warm-up ends.
    Others wait where they miss theirs, and find it. The system frees the lock of a process that is killed.

    Args:
        total: steps of the warm-up.
        speaks: whether this process says so even without the lock, where nothing can be kept.
    """

    def __init__(self, total: int, speaks: bool) -> None:
        """Say nothing before a loop is missing."""
        self._total, self._done = total, 0
        self._speaks = speaks
        self._lock: FileLock | None = None
        self._alone = self._collects = False
        self._loops = 0
        self._start = 0.0
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def step(self) -> None:
        """One step of the warm-up is done."""
        self._done += 1

    def wait(self, folder: str | None) -> bool:
        """Wait for the lock of a cache; whether another process may have kept something meanwhile.

        Args:
            folder: of the cache; None where nothing is kept.
        """
        if self._lock is not None or self._alone:
            return False
        self._lock = taken(folder)
        self._alone = self._lock is None
        return True

    def let_go(self) -> None:
        """Another process has compiled what is needed."""
        if self._loops == 0:
            self._release()

    def begin(self) -> None:
        """A loop is compiled now."""
        global _said  # noqa: PLW0603
        self._loops += 1
        if gc.isenabled():
            # A compiler makes millions of objects that stay: looking for garbage takes a tenth of its time.
            gc.disable()
            self._collects = True
        if self._loops == 1 and (self._speaks or self._lock is not None):
            self._start = time.monotonic()
            if not _said:
                (_say or _print_line)(LINE)
            _said = True
            if _say is not None or sys.stderr.isatty():
                self._ticker = threading.Thread(target=self._tick, daemon=True)
                self._ticker.start()

    def end(self) -> None:
        """The warm-up is over."""
        if self._collects:
            gc.enable()
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
            if _say is None:
                sys.stderr.write("\n")
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tick(self) -> None:
        while True:
            ended = self._ended.wait(_TICK_S)
            filled = _BAR * self._done // max(1, self._total)
            seconds = time.monotonic() - self._start
            bar = f"[{'#' * filled:<{_BAR}}] {self._loops} loops, {seconds:.0f} s"
            (_say or _rewrite)(bar)
            if ended:
                return


def tell_not_kept(folder: str, error: OSError) -> None:
    """Say once in a process that the cache on disk cannot be written, and what to do."""
    global _told  # noqa: PLW0603
    if not _told:
        _told = True
        (_say or _print_line)(
            f"laconic: compiled loops cannot be kept in {folder} ({error.strerror or error}), so every "
            "process compiles anew; free some space there, or set NUMBA_CACHE_DIR to another folder"
        )


def _print_line(text: str) -> None:
    sys.stderr.write(text + "\n")


def _rewrite(text: str) -> None:
    sys.stderr.write(f"\r{text} ")
    sys.stderr.flush()


_say: Say | None = None
_current: Compilation | None = None
_silenced = False
_said = _told = False


def say_with(say: Say | None) -> None:
    """Give the line and the progress to a function instead of standard error; None: no more."""
    global _say  # noqa: PLW0603
    _say = say


@contextmanager
def silence() -> Iterator[None]:
    """Inside, warm-ups neither wait nor speak: they compile for a process that holds the lock."""
    global _silenced  # noqa: PLW0603
    _silenced = True
    try:
        yield
    finally:
        _silenced = False


def current() -> Compilation | None:
    """The warm-up that runs in this process."""
    return _current


@contextmanager
def compilation(total: int, *, speaks: bool = True) -> Iterator[Compilation]:
    """A warm-up; no collective may be made inside, for other ranks may wait for its lock.

    Args:
        total: how often ``step`` will be called.
        speaks: as for :class:`Compilation`.
    """
    global _current  # noqa: PLW0603
    if _current is not None or _silenced:
        yield _current or Compilation(total, False)
        return
    _current = Compilation(total, speaks)
    try:
        yield _current
    finally:
        ended, _current = _current, None
        ended.end()


def taken(folder: str | None) -> FileLock | None:
    """The lock of a cache, held; None where there is no cache, no lock, or none to be had in time."""
    if folder is None:
        return None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Loops may be missed on one thread and the warm-up end on another.
        lock = FileLock(Path(folder) / "laconic.lock", timeout=WAIT_S, thread_local=False)
        lock.acquire()
    except (OSError, NotImplementedError, Timeout):
        return None
    return lock
