"""The communication thread of a rank, which makes its collectives in order."""

import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from laconic.comm.errors import ExchangeError

T = TypeVar("T")
Job = Callable[[], None]
_END_S = 2.0
"""How long the end of the process waits for a job that is running."""


class Worker:
    """Runs jobs one after another on a thread of its own; jobs report their own failures.

    On Gloo a second collective must never be started from a callback of the first, nor from two threads:
    the order would differ between ranks. So all collectives of an exchange are made here, in the order in
    which they are asked for.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; it ends with the worker, or with the process."""
        self._pid = os.getpid()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()
        # A daemon thread that has called PyTorch and lives when the interpreter ends aborts the process.
        weakref.finalize(self, _end, self._jobs, self._thread, self._pid)

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made the worker, and has not its thread."""
        return os.getpid() != self._pid

    def submit(self, job: Job) -> None:
        """Run the job after all before it.

        Raises:
            ExchangeError: in a forked process, where it would wait forever.
        """
        if self.forked:
            raise ExchangeError(
                f"this process was forked from process {self._pid}, which made the exchange and has its "
                "thread and connections: exchange there only, or start this one by 'spawn' or torchrun"
            )
        self._jobs.put(job)

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns or raises, run after all jobs before it; waits."""
        future: Future[T] = Future()

        def job() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # it belongs to whoever waits
                future.set_exception(error)

        self.submit(job)
        return future.result()

    def close(self) -> None:
        """Finish the jobs and end the thread."""
        self._jobs.put(None)
        self._thread.join()


def _run(jobs: "queue.SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or the last step's tensors would live until the next


def _end(jobs: "queue.SimpleQueue[Job | None]", thread: threading.Thread, pid: int) -> None:
    if os.getpid() == pid:
        jobs.put(None)
        if thread is not threading.current_thread():
            thread.join(_END_S)
