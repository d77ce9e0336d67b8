"""Copies and lives: closing late, forks, Ctrl-C, ranks that die, and the call after an error."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ddp_runs import loss_of, network, start
from processes import run_ranks

import laconic
from laconic.comm.transport._processes import ended, own_record
from laconic.optim import CompressedAdamW

EF21 = laconic.EF21(laconic.TopK(0.1))
LAYOUT = laconic.Layout.of({"x": (20, 30)})


def _late(rank, folder):
    """Everything is closed after the process group that it was made in has gone and another one came."""
    model, state, _ = start(network(), EF21)
    optimizer = CompressedAdamW(network().parameters(), 0.1)
    exchange = laconic.Exchange(LAYOUT, EF21)
    loss_of(model, 0, rank).backward()
    dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{folder}/second", rank=rank, world_size=2)
    for made in (state, optimizer, exchange):
        made.close()
    again = laconic.Exchange(LAYOUT, EF21)
    assert again.reduce_({"x": torch.ones(20, 30)})
    again.close()
    return True


def test_close_after_a_new_init_process_group(tmp_path):
    assert run_ranks(_late, 2, tmp_path, tmp_path) == [True, True]


def forked(function):
    """What a function raises in a fork of this process, which must end within 20 seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            function()
            text = "nothing"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def _forks(rank):
    exchange = laconic.Exchange(LAYOUT, EF21)
    tensors = {"x": torch.randn(20, 30)}
    exchange.reduce_(tensors)
    model = network()
    optimizer = CompressedAdamW(model.parameters(), 0.1)
    loss_of(model, 0, rank).backward()
    optimizer.step()
    hooked, state, _ = start(network(), EF21)
    loss_of(hooked, 0, rank).backward()

    def gather():
        exchange.gather(torch.ones(1), "ones")

    calls = [lambda: exchange.reduce_(tensors), gather, optimizer.step, state.check_replicas]
    told = [forked(call) for call in calls]
    # Closing there does nothing; here all go on.
    quiet = [forked(made.close) for made in (exchange, optimizer, state)]
    exchange.reduce_(tensors)
    optimizer.step()
    loss_of(hooked, 1, rank).backward()
    for made in (exchange, optimizer, state):
        made.close()
    return told, quiet


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_is_told_so(tmp_path):
    for told, quiet in run_ranks(_forks, 2, tmp_path):
        for text in told:
            assert text.startswith("ExchangeError: this process was forked from process "), text
        assert quiet == ["nothing"] * 3


def _interrupted(rank, folder, kind):
    """Rank 0 hears SIGINT while rank 1 makes no step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if kind == "hook":
        model = start(network(), EF21)[0]
    else:
        model = network()
        optimizer = CompressedAdamW(model.parameters(), 0.1, timeout_s=60)
    exchange = laconic.Exchange(LAYOUT, EF21, timeout_s=60)
    done = Path(folder) / f"{kind} done"
    if rank == 1:
        while not done.exists():
            time.sleep(0.05)
        os._exit(0)
    loss = loss_of(model, 0, rank)
    waits = loss.backward
    if kind == "exchange":
        waits = lambda: exchange.reduce_({"x": torch.ones(20, 30)})  # noqa: E731
    elif kind == "optimizer":
        loss.backward()
        waits = optimizer.step
    sent_at = []

    def interrupt():
        sent_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(1.0, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        waits()
    heard = time.monotonic() - sent_at[0]
    if kind == "hook":
        with pytest.raises(RuntimeError, match="was interrupted in the middle of a step"):
            model(torch.ones(2, 64))
    (Path(folder) / f"{kind} result").write_text(str(heard))
    done.touch()
    os._exit(0)


@pytest.mark.parametrize("kind", ["exchange", "optimizer", "hook"])
def test_ctrl_c_is_heard_while_another_rank_hangs(kind, tmp_path):
    with pytest.raises(FileNotFoundError):  # no rank ends in the ordinary way
        run_ranks(_interrupted, 2, tmp_path, tmp_path, kind)
    # Without it the exchange's own timeout ends the wait, after 30 or 60 seconds.
    assert float((tmp_path / f"{kind} result").read_text()) < 15


def _killed(rank, folder):
    model, _, _ = start(network(), EF21)
    loss_of(model, 0, rank).backward()
    loss = loss_of(model, 1, rank)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(laconic.ExchangeError, match="the process of rank 1 has ended") as first:
        loss.backward()
    for _ in range(2):
        with pytest.raises(laconic.ExchangeError) as later:
            loss_of(model, 2, rank).backward()
        assert later.value is first.value
    (Path(folder) / "result").write_text("named")
    os._exit(0)


def test_the_error_names_the_rank_that_died_and_comes_again(tmp_path):
    with pytest.raises(AssertionError, match="rank 1 ended with exit code -9"):
        run_ranks(_killed, 2, tmp_path, tmp_path)
    assert (tmp_path / "result").read_text() == "named"


def test_only_processes_of_this_machine_are_looked_for():
    record = own_record()
    assert ended([record, record]) == []
    child = os.fork()
    if child == 0:
        os._exit(0)
    gone = record.view(torch.int64).clone()
    gone[0] = child  # a zombie, then nothing
    assert ended([record, gone.view(torch.uint8)]) == [1]
    os.waitpid(child, 0)
    assert ended([record, gone.view(torch.uint8)]) == [1]
    elsewhere = gone.clone()
    elsewhere[1] += 1
    assert ended([record, elsewhere.view(torch.uint8)]) == []
