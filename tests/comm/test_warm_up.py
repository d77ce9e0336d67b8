"""Everything that a run needs is compiled when its exchange is made; once a machine, and with a word."""

import os
import re
import signal
import subprocess
import sys
import time

import torch
from processes import run_ranks
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.comm._warm import warm_up
from laconic.ddp import CommState, hook
from laconic.optim import CompressedAdamW, CompressedSGD

TOP = laconic.TopK(0.01)
ONE_BIT = TOP >> laconic.ScaledSign()
BF16 = TOP >> laconic.Cast(torch.bfloat16)

METHODS = {
    "ef21-bf16": laconic.EF21(BF16),
    "ef21": laconic.EF21(TOP),
    "ef14-1bit": laconic.EF14(ONE_BIT),
    "ef14-dense-signs": laconic.EF14(laconic.ScaledSign()),
    "ef14-blocks": laconic.EF14(laconic.BlockTopK(8, 256) >> laconic.BlockQuantizer(4)),
    "ef21-natural": laconic.EF21(laconic.BiasedRounding(2.0)),
    "dcgd-natural": laconic.DCGD(laconic.NaturalCompression()),
    "dcgd-dithering": laconic.DCGD(laconic.RandomDithering(4)),
    "dcgd-ternary": laconic.DCGD(laconic.Ternary()),
    "dcgd-randk": laconic.DCGD(laconic.RandK(0.01)),
    "sgdm": laconic.EF21SGDM(TOP),
    "plus": laconic.EF21Plus(TOP),
}


def loop_modules():
    """The modules of compiled loops by name, without those that register types."""
    kept = {"_jit", "_simd", "_halves", "_words", "threads"}
    prefix = "laconic.kernels.cpu."
    return {n: m for n, m in sys.modules.items() if n.startswith(prefix) and n[len(prefix) :] not in kept}


def forget_loops():
    """As in a process that has used none: the next use loads them from disk, or compiles them."""
    from laconic.kernels import _dispatch

    for name, module in loop_modules().items():
        del sys.modules[name]
        vars(sys.modules["laconic.kernels.cpu"]).pop(name.rpartition(".")[2], None)
        del module
    _dispatch._cpu_modules.clear()


def compiled():
    """Every loop that is there with its signatures."""
    from numba.core.dispatcher import Dispatcher

    return {
        (name, key, str(signature))
        for name, module in loop_modules().items()
        for key, value in vars(module).items()
        if isinstance(value, Dispatcher) and value.stats.cache_path is not None
        for signature in value.signatures
    }


def layout_and_tensors(dtype):
    layout = laconic.Layout.of(
        {"a": (90, 40), "bias": (40,), "b": (3, 700), "gain": (9,)}, bfloat16=["bias"], exact=["gain"]
    )
    return layout, lambda: {s.name: torch.randn(s.shape).to(dtype) for s in layout.segments}


def model_of(dtype):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(90, 60), torch.nn.ReLU(), torch.nn.Linear(60, 80)).to(dtype)


def loss_of(model, dtype, rank, step):
    x = torch.randn(4, 90, dtype=dtype)
    factor = float("inf") if (rank, step) == (1, 2) else 1.0  # a step that is void
    return (model(x) ** 2).float().mean() * factor


def exchange_steps(rank, method, dtype, adaptive):
    layout, tensors = layout_and_tensors(dtype)
    exchange = laconic.Exchange(
        layout, method, adaptive=adaptive, dtypes=dict.fromkeys([s.name for s in layout.segments], dtype)
    )
    yield
    for step in range(4):
        given = tensors()
        if (rank, step) == (1, 2):
            given["a"][0, 0] = torch.nan
        assert exchange.reduce_(given) == (step != 2)
    exchange.close()


def hook_steps(rank, method, dtype, settings):
    model = DistributedDataParallel(model_of(dtype))
    state = CommState(method, model=model, **settings)
    model.register_comm_hook(state, hook)
    yield
    for step in range(5):
        loss_of(model, dtype, rank, step).backward()
        model.zero_grad()
    assert state.stats().skipped == 1
    state.close()


def optimizer_steps(rank, kind, dtype, settings):
    model = model_of(dtype)
    optimizer = kind(model.named_parameters(), 1e-3, **settings)
    yield
    for step in range(4):
        loss_of(model, dtype, rank, step).backward()
        optimizer.step()
        model.zero_grad()
    assert optimizer.stats().skipped == 1
    optimizer.close()


def all_cases():
    for dtype in (torch.float32, torch.bfloat16):
        for name, method in METHODS.items():
            yield f"exchange {name} {dtype}", exchange_steps, (method, dtype, False)
        for name in ("ef21-bf16", "ef14-1bit"):
            yield f"adaptive {name} {dtype}", exchange_steps, (METHODS[name], dtype, True)
            yield f"hook {name} {dtype}", hook_steps, (METHODS[name], dtype, {})
        clipped = {"clip": 1.0, "measure_error_every": 1}
        yield f"hook clipped {dtype}", hook_steps, (METHODS["ef21-bf16"], dtype, clipped)
        stages = {"density": {0: None, 1: METHODS["ef14-1bit"], 2: laconic.EF14(BF16)}}
        yield f"hook in stages {dtype}", hook_steps, (METHODS["ef14-1bit"], dtype, stages)
        yield f"adamw {dtype}", optimizer_steps, (CompressedAdamW, dtype, {})
        one_bit = {"feedback": METHODS["ef14-1bit"]}
        yield f"adamw 1-bit {dtype}", optimizer_steps, (CompressedAdamW, dtype, one_bit)
        yield f"sgd {dtype}", optimizer_steps, (CompressedSGD, dtype, {})
        early = {"overlap": True, "clip": None}
        yield f"sgd early {dtype}", optimizer_steps, (CompressedSGD, dtype, early)

    for dtype in (torch.float16, torch.float64):
        for name in ("ef21-bf16", "ef14-1bit"):
            yield f"exchange {name} {dtype}", exchange_steps, (METHODS[name], dtype, False)


def late_loops(rank):
    """For every case, the loops that were compiled or loaded after construction."""
    found = {}
    for name, steps, arguments in all_cases():
        forget_loops()
        run = steps(rank, *arguments)
        next(run)
        before = compiled()
        for _ in run:
            pass
        found[name] = (len(before), sorted(compiled() - before))
    return found


def test_no_step_and_no_backward_compiles_or_loads_a_loop(tmp_path):
    for found in run_ranks(late_loops, 2, tmp_path, timeout=280):
        assert {name: late for name, (_, late) in found.items() if late} == {}
        assert all(made > 1 for made, _ in found.values()), found


ONE_PROCESS = """
import os, sys, time
import torch
import laconic
from laconic.comm._warm import warm_up
from numba.core import event

class Compilations(event.Listener):
    count = 0
    def on_start(self, happened):
        Compilations.count += 1
    def on_end(self, happened):
        pass

event.register("numba:compile", Compilations())
print("ready", flush=True)
sys.stdin.readline()
warm_up(laconic.Layout.flat(5000), laconic.DCGD(laconic.ScaledSign()))
print(Compilations.count, flush=True)
"""


def start(folder, script=ONE_PROCESS):
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n", child.stderr.read()
    return child


def ended(child):
    out, err = child.communicate("go\n" if not child.stdin.closed else None, timeout=200)
    assert child.returncode == 0, err
    return int(out), err


def go(child):
    child.stdin.write("go\n")
    child.stdin.flush()


def test_of_several_processes_one_compiles_and_says_so(tmp_path):
    children = [start(tmp_path) for _ in range(3)]
    for child in children:
        go(child)
    found = sorted(ended(child) for child in children)
    assert [count > 0 for count, _ in found] == [False, False, True]
    assert [err.count("laconic: compiling") for _, err in found] == [0, 0, 1]
    assert found[-1][1].count("\n") == 1  # no bar, for this is no terminal
    assert "once per machine" in found[-1][1]
    again, err = ended(start(tmp_path))
    assert (again, err) == (0, "")


def test_a_killed_compiler_keeps_nobody_waiting(tmp_path):
    first, second = start(tmp_path), start(tmp_path)
    go(first)
    while "compiling" not in (line := first.stderr.readline()):
        assert line
    go(second)
    time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    count, err = ended(second)
    assert count > 0
    assert "compiling" in err


def test_where_nothing_can_be_kept_every_process_compiles_for_itself(tmp_path):
    (tmp_path / "blocked").write_text("")
    script = f"""
import numba.core.caching as caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
{ONE_PROCESS}
"""
    count, err = ended(start(tmp_path / "blocked", script))
    assert count > 0
    assert err.count("laconic: compiling") == 1


def test_a_lock_that_cannot_be_had_is_no_error(tmp_path, monkeypatch):
    from laconic.kernels import _compiling

    blocked = tmp_path / "file"
    blocked.write_text("")
    assert _compiling.taken(str(blocked)) is None
    assert _compiling.taken(None) is None
    monkeypatch.setattr(_compiling, "WAIT_S", 0.1)
    held = _compiling.taken(str(tmp_path))
    assert _compiling.taken(str(tmp_path)) is None
    held.release()


def test_the_progress_is_a_line_and_a_bar_on_a_terminal_and_can_be_told_to_others(monkeypatch, capsys):
    from laconic.kernels import _compiling

    monkeypatch.setattr(_compiling, "_TICK_S", 0.01)
    monkeypatch.setattr(_compiling, "_said", False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def compile_two():
        with _compiling.compilation(2) as progress:
            for _ in range(2):
                progress.wait(None)
                progress.begin()
                time.sleep(0.05)
                progress.step()

    compile_two()
    first, *bars = re.split(r"[\r\n]+", capsys.readouterr().err.strip())
    assert first == _compiling.LINE
    assert re.fullmatch(r"\[#{24}\] 2 loops, \d s", bars[-1].strip())
    said = []
    monkeypatch.setattr(_compiling, "_said", False)
    _compiling.say_with(said.append)
    try:
        compile_two()
    finally:
        _compiling.say_with(None)
    assert said[0] == _compiling.LINE
    assert said[-1].startswith("[####")
    assert capsys.readouterr().err == ""


def test_a_process_that_has_all_loops_says_nothing(capsys):
    warm_up(laconic.Layout.flat(5000), METHODS["ef14-1bit"])
    capsys.readouterr()
    warm_up(laconic.Layout.flat(5000), METHODS["ef14-1bit"])
    assert capsys.readouterr().err == ""
