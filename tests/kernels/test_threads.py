"""Our own threads: several callers, forked children, an end without waiting, errors."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from laconic.kernels import SelectionTable, get_threads, set_threads, top_k_segments
from laconic.kernels.cpu import selection
from laconic.kernels.cpu.threads import in_threads
from laconic.kernels.reference.selection import top_k_segments_reference


@pytest.fixture(autouse=True)
def default_again():
    yield
    set_threads(None)


def test_the_number_of_threads(monkeypatch):
    monkeypatch.delenv("LACONIC_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert get_threads() == 3
        torch.set_num_threads(40)
        assert get_threads() == 16
    finally:
        torch.set_num_threads(before)
    monkeypatch.setenv("LACONIC_THREADS", "5")
    assert get_threads() == 5
    set_threads(2)
    assert get_threads() == 2
    set_threads(None)
    monkeypatch.setenv("LACONIC_THREADS", "many")
    with pytest.raises(ValueError, match="LACONIC_THREADS must be an integer >= 1, got 'many'"):
        get_threads()


@pytest.mark.parametrize("count", [0, -1, 1.5, "x", True])
def test_other_numbers_are_refused(count):
    with pytest.raises(ValueError, match="number of threads must be an integer"):
        set_threads(count)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_task_is_done_once(count):
    done = []
    in_threads(done.append, count)
    assert sorted(done) == list(range(count))


def test_tasks_run_side_by_side():
    meeting = threading.Barrier(3)
    in_threads(lambda _: meeting.wait(30), 3)


def test_the_first_error_reaches_the_caller_after_all_have_stopped():
    running = []

    def task(number):
        if number == 1:
            raise KeyError("one")
        running.append(number)
        time.sleep(0.05)
        running.remove(number)

    for _ in range(5):
        with pytest.raises(KeyError, match="one"):
            in_threads(task, 4)
        assert running == []
    in_threads(running.append, 2)
    assert sorted(running) == [0, 1]


def problem(seed):
    generator = torch.Generator().manual_seed(seed)
    x, memory = torch.randn(2, 30_000, generator=generator)
    return x, memory, SelectionTable.of([0, 20_000], [20_000, 10_000], [200, 100])


def test_callers_in_several_threads(monkeypatch):
    monkeypatch.setattr(selection, "_WORTH", 1 << 8)
    monkeypatch.setattr(selection, "_CUT", 1 << 10)
    set_threads(2)
    problems = [problem(seed) for seed in range(6)]
    expected = [top_k_segments_reference(*each) for each in problems]

    def work(caller):
        for _ in range(30):
            for each, (positions, values) in zip(problems, expected, strict=True):
                found = top_k_segments(*each, salt=caller)
                assert torch.equal(found[0], positions)
                assert torch.equal(found[1], values)

    with ThreadPoolExecutor(4) as callers:
        for ended in [callers.submit(work, caller) for caller in range(4)]:
            ended.result(timeout=120)


IN_A_PROCESS = """
import os, signal, sys, threading
import torch
import laconic
from laconic.kernels import SelectionTable, set_threads, top_k_segments
from laconic.kernels.reference.selection import top_k_segments_reference
from laconic.kernels.cpu import selection

signal.alarm(100)
torch.set_num_threads(1)
selection._WORTH, selection._CUT = 1 << 8, 1 << 10
set_threads(2)
x, memory = torch.randn(2, 30_000)
cuts = SelectionTable.of([0], [30_000], 300)

def right():
    found, expected = top_k_segments(x, memory, cuts), top_k_segments_reference(x, memory, cuts)
    return torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])

assert right()
"""


def run(script, **environment):
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child


def test_the_interpreter_ends_while_helpers_wait():
    assert run(IN_A_PROCESS + "print('end')").stdout == "end\n"


FORKS = """
# Another thread keeps the helpers busy while children are forked.
stop = threading.Event()
def busy():
    while not stop.is_set():
        right()
other = threading.Thread(target=busy)
other.start()
try:
    for attempt in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            # PyTorch makes its own pool anew at the first use after a fork, and two threads that come
            # first together break it: one comes before them.
            torch.set_num_threads(1)
            import concurrent.futures
            with concurrent.futures.ThreadPoolExecutor(2) as callers:
                fine = all(callers.map(lambda _: right(), range(4)))
            names = [thread.name for thread in threading.enumerate()]
            os._exit(0 if fine and "laconic-0" in names else 1)
        assert os.waitpid(child, 0)[1] == 0, attempt
        assert right()
finally:
    stop.set()
    other.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_children_start_their_own_helpers():
    run(IN_A_PROCESS + FORKS)
