"""``laconic plan``: the prediction's formulas, its advice, the probe on two ranks, the command."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from processes import run_ranks

import laconic
from laconic.cli._group import laconic as cli
from laconic.comm.topologies import all_gather_bytes, choose_topology, ring_bytes
from laconic.comm.transport.collectives import DIRECT_BYTES
from laconic.network import Isolation
from laconic.optim import CompressedAdamW
from laconic.plan import (
    Compute,
    LinkCosts,
    Method,
    advice,
    choose,
    load_workload,
    measure_compute,
    measure_methods,
    predict,
    validate,
    workload_of_size,
)

SLOW = LinkCosts(latency=1e-4, all_gather=1.25e7, all_reduce=1.25e7, all_reduce_bf16=1.25e7)
FAST = LinkCosts(latency=1e-5, all_gather=1e10, all_reduce=1e10, all_reduce_bf16=1e10)
METHODS = [
    Method("fp32", "fp32", 40_000_000, loss_gap=0.0),
    Method("bf16", "bf16", 20_000_000, own=0.01, loss_gap=0.0),
    Method("close", "messages", 120_000, own=0.04, each=0.001, loss_gap=0.1),
    Method("unknown", "messages", 60_000, own=0.03, each=0.001),
    Method("lossy", "messages", 10_000, own=0.01, each=0.001, loss_gap=4.6),
]
COMPUTE = Compute(forward=0.05, backward=0.1, optimizer=0.01)


def predictions(link, compute=COMPUTE, nodes=4):
    return [predict(method, link, compute, nodes) for method in METHODS]


def test_a_ring_sends_2_n_minus_1_over_n_vectors_and_hides_behind_backward():
    found = predict(Method("x", "fp32", 2 * 25 * 2**20), SLOW, COMPUTE, 4)
    assert found.sent == pytest.approx(1.5 * 2 * 25 * 2**20)
    assert found.communicate == pytest.approx(found.sent / 1.25e7 + 2 * 6 * 1e-4)
    assert found.step == pytest.approx(COMPUTE.step + found.communicate - 0.1 / 2)
    hidden = predict(Method("x", "fp32", 2 * 25 * 2**20), FAST, Compute(backward=100.0), 4)
    assert hidden.step == pytest.approx(100.0 + hidden.communicate / 2)


def test_a_message_goes_to_every_other_rank_after_backward():
    found = predict(METHODS[2], SLOW, COMPUTE, 5)
    assert found.sent == 4 * 120_000
    assert found.codec == pytest.approx(0.04 + 4 * 0.001)
    assert found.step == pytest.approx(COMPUTE.step + found.codec + found.sent / 1.25e7 + 4e-4)


def test_messages_travel_in_buckets_as_the_optimisers_send_them():
    bucket = 25 * 2**20
    for size, hops in ((3 * DIRECT_BYTES, 3 * 2), (3 * DIRECT_BYTES + 1, 3 * 4)):
        found = predict(Method("x", "messages", size, vector_bytes=3 * bucket), SLOW, COMPUTE, 5)
        assert found.communicate == pytest.approx(found.sent / 1.25e7 + hops * 1e-4)
    parameters = [torch.nn.Parameter(torch.zeros(bucket // 8)) for _ in range(6)]
    optimizer = CompressedAdamW(parameters, 0.0)
    assert len(optimizer.parameter_buckets) == 3
    optimizer.close()


@pytest.mark.parametrize("nodes", [2, 64, 256, 1024])
def test_where_auto_takes_the_exact_mean_so_does_the_prediction(nodes):
    layout = workload_of_size(3_000_000).layout
    feedback = laconic.EF14(laconic.BlockTopK(41, 4096) >> laconic.ScaledSign())
    message = feedback.format(layout, torch.float32, 1).sections_nbytes
    method = Method("x", "messages", message, own=0.04, each=0.001, vector_bytes=4 * layout.d)
    found = predict(method, SLOW, COMPUTE, nodes)
    dense = choose_topology("auto", layout, feedback, nodes).name == "dense"
    assert dense == (nodes == 1024)
    ring = ring_bytes(nodes, 4 * layout.d)
    assert found.sent == pytest.approx(ring if dense else all_gather_bytes(nodes, message))


def test_local_steps_share_one_exchange():
    one = predict(METHODS[2], SLOW, COMPUTE, 4)
    four = predict(Method("x", "messages", 120_000, own=0.04, each=0.001, every=4), SLOW, COMPUTE, 4)
    assert four.step - COMPUTE.step == pytest.approx((one.step - COMPUTE.step) / 4)


@given(
    st.sampled_from(METHODS),
    st.integers(2, 1023),
    st.floats(1e5, 1e10),
    st.floats(0, 1e-1),
    st.floats(1e-3, 10),
)
def test_more_ranks_and_slower_links_never_make_a_step_shorter(method, nodes, rate, latency, backward):
    link, compute = LinkCosts(latency, rate, rate, rate), Compute(0.01, backward, 0.01)
    step = predict(method, link, compute, nodes).step
    assert step >= compute.step
    assert predict(method, link, compute, nodes + 1).step >= step
    half = LinkCosts(2 * latency, rate / 2, rate / 2, rate / 2)
    assert predict(method, half, compute, nodes).step >= step


@pytest.mark.parametrize(("size", "hops"), [(DIRECT_BYTES, 2), (DIRECT_BYTES + 1, 7)])
def test_short_messages_go_to_all_ranks_at_once(size, hops):
    slow, near = (LinkCosts(latency, 1e8, 1e8, 1e8) for latency in (0.02, 0.0))
    method = Method("x", "messages", size)
    far, at_once = (predict(method, link, COMPUTE, 8).communicate for link in (slow, near))
    assert far - at_once == pytest.approx(hops * 0.02)


def test_advice_names_what_keeps_the_loss_and_what_is_faster():
    words = advice(predictions(SLOW), COMPUTE)
    assert words.startswith("Use close:")
    assert "Faster, but its loss was 4.6 % worse: lossy" in words


def test_advice_is_not_to_compress_where_the_link_is_fast():
    words = advice(predictions(FAST), COMPUTE)
    assert words.startswith("Do not compress: fp32 takes ")
    assert "close would take" in words


def test_a_sample_is_a_share_of_the_model():
    workload = workload_of_size(5_000_000)
    assert 5_000_000 <= workload.numel < 5_010_000
    layout, share = workload.sample(2_000_000)
    assert 0.9 * 2_000_000 <= layout.d <= 2_000_000
    assert share == layout.d / workload.numel
    whole, one = workload.sample(10**9)
    assert (whole.d, one) == (workload.numel, 1.0)


MODEL = """
import torch
def build():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32))
    return model, lambda model: model(torch.ones(4, 64)).square().mean()
def module_only():
    return build()[0]
def nothing():
    return 3
def sized(width):
    return torch.nn.Linear(width, width)
model = torch.nn.Linear(8, 8)
def loss_of_batch():
    return build()[0], lambda model, batch: model(batch).mean()
def loss_of_vector():
    return build()[0], lambda model: model(torch.ones(4, 64))
def loss_without_model():
    return build()[0], lambda model: 1.5
def failing():
    raise ValueError("of my own")
def failing_loss():
    def loss(model):
        raise ValueError("of my own")
    return build()[0], loss
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"planned_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("laconic.plan._probe.REPEATS", 2)
    return name


def test_a_model_is_measured_with_its_loss(module):
    workload = load_workload(f"{module}:build")
    assert workload.numel == 64 * 64 + 64 + 64 * 32 + 32
    assert workload.numel_exempt == 64 + 32
    before = [parameter.clone() for parameter in workload.model.parameters()]
    compute = measure_compute(workload, lambda note: None)
    assert min(compute.forward, compute.backward, compute.optimizer) > 0
    assert all(map(torch.equal, workload.model.parameters(), before))  # the probe does not train
    assert measure_compute(load_workload(f"{module}:module_only"), lambda note: None) == Compute()


def test_methods_are_measured_on_the_model(module):
    methods = {
        each.name: each for each in measure_methods(load_workload(f"{module}:build"), lambda note: None)
    }
    assert methods["fp32"].message_bytes == 4 * 6240
    assert methods["bf16"].message_bytes == 2 * 6240
    message = methods["EF14, 1 %, 1 bit"].message_bytes
    assert 2 * 96 < message < 2 * 96 + 6144 // 8 + 200
    assert all(each.own >= 0 and each.each >= 0 for each in methods.values())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("train", "module:function"),
        ("no_such_module:build", "no_such_module"),
        ("{}:no_such_function", "no_such_function"),
        ("{}:nothing", "returned int"),
        ("{}:sized", "missing a required argument: 'width': name a function that needs none"),
        ("{}:model", "is a Linear, not a function: .*def build"),
        ("{}:torch", "is a module, not a function: .*def build"),
        ("{}:loss_of_batch", "missing a required argument: 'batch': return .*lambda model: loss"),
    ],
)
def test_other_models_are_refused(module, target, words):
    with pytest.raises(ValueError, match=words):
        load_workload(target.format(module))


@pytest.mark.parametrize(
    ("function", "got"), [("loss_of_vector", r"shape \(4, 32\)"), ("loss_without_model", "float")]
)
def test_losses_without_a_backward_are_refused(module, function, got):
    workload = load_workload(f"{module}:{function}")
    with pytest.raises(ValueError, match=f"a tensor of one number that depends on the model, got {got}"):
        measure_compute(workload, lambda note: None)


@pytest.mark.parametrize("function", ["failing", "failing_loss"])
def test_what_the_users_function_raises_keeps_its_traceback(module, function):
    command = ["plan", "--model", f"{module}:{function}", "--nodes", "4", "--link", "1gbit"]
    error = CliRunner().invoke(cli, command).exception
    assert isinstance(error, RuntimeError)
    assert "ValueError: of my own" in str(error)
    assert isinstance(error.__cause__, ValueError)


def test_what_importing_raises_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "planned_badly.py").write_text("import os\nos.no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="importing planned_badly failed: AttributeError"):
        load_workload("planned_badly:build")


def _probe(rank):
    from laconic.plan import measure_link

    return measure_link(lambda note: None)


def test_two_ranks_agree_on_the_costs_of_their_link(tmp_path):
    first, second = run_ranks(_probe, 2, tmp_path)
    assert first.costs == second.costs
    assert min(first.costs.latency, first.costs.all_gather, first.costs.all_reduce, first.up, first.down) > 0
    assert (first.up, first.down) == (second.down, second.up)
    assert first.interface == second.interface


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model or --parameters"),
        (["--parameters", "1e6", "--model", "a:b"], "--model or --parameters"),
        (["--parameters", "1e6"], "give --link and --nodes"),
        (["--parameters", "many", "--nodes", "4", "--link", "1gbit"], "125e6"),
        (["--parameters", "1e6", "--nodes", "4", "--link", "fast"], "100mbit or 1gbit"),
        (["--model", "nowhere", "--nodes", "4", "--link", "1gbit"], "module:function"),
    ],
)
def test_the_command_says_what_it_needs(arguments, words):
    done = CliRunner().invoke(cli, ["plan", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_a_single_rank_of_torchrun_has_no_link(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli, ["plan", "--parameters", "1e6"])
    assert result.exit_code == 2
    assert "start two or more" in " ".join(result.output.split())


def test_the_command_fits_80_columns_and_writes_json(module):
    command = ["plan", "--parameters", "2e5", "--nodes", "4", "--link", "10mbit", "--compute-ms", "5"]
    done = CliRunner().invoke(cli, command, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert done.output.rstrip().splitlines()[-2].startswith("Use ") or "Use " in done.output
    record = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert record["compute"]["forward"] + record["compute"]["backward"] == pytest.approx(5e-3)
    assert record["link"]["all_gather"] == pytest.approx(10e6 / 8)
    assert {each["method"] for each in record["predictions"]} == {each["name"] for each in record["methods"]}
    steps = [each["step"] for each in record["predictions"]]
    assert steps == sorted(steps)
    assert set(record["by_nodes"]) >= {"2", "4", "1024"}


@pytest.mark.slow
def test_under_torchrun_the_link_is_probed(module, tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, "-m", "laconic", "plan", "--model", f"{module}:build"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "COLUMNS": "80"},
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "link: lo, up" in done.stdout
    assert "2 ranks: milliseconds a step" in done.stdout
    assert "computation: " in done.stdout


CELL = {"model": "transformer-0.8m", "rate": None, "delay_ms": 0.0, "nodes": 2}
CELL |= {"step_ms": 100.0, "compute_ms": 90.0}


@pytest.mark.parametrize(
    "methods", [["bf16", "recommended"], ["bf16-adamw"], ["bf16-adamw", "fp32"], ["bf16"]]
)
def test_cells_without_a_choice_are_refused_before_any_probe(tmp_path, monkeypatch, methods):
    monkeypatch.setattr("laconic.plan._validate.Ranks", lambda *_: pytest.fail("probed"))
    rows = [CELL | {"method": name} for name in ("bf16-adamw", "recommended")]
    rows += [CELL | {"method": name, "nodes": 4} for name in methods]
    (tmp_path / "step.json").write_text(json.dumps({"rows": rows}))
    done = CliRunner().invoke(cli, ["bench", "plan", str(tmp_path / "step.json")])
    assert done.exit_code == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("laconic: transformer-0.8m, 4 ranks, unshaped: ")
    assert error.endswith("laconic bench step --methods bf16-adamw,recommended measures them")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"rows": []}', '{"rows": [3]}', '{"rows": [{"method": "bf16"}]}']
    + [
        json.dumps({"rows": [CELL | {"method": "bf16-adamw"} | bad]})
        for bad in ({"model": []}, {"rate": "1"})
    ],
)
def test_other_files_are_no_benchmark(tmp_path, text):
    (tmp_path / "step.json").write_text(text)
    done = CliRunner().invoke(cli, ["bench", "plan", str(tmp_path / "step.json")])
    assert done.exit_code == 2
    assert done.stderr.endswith("laconic bench step --json FILE writes one\n")
    assert len(done.stderr.splitlines()) == 1


def test_the_example_of_bench_step_measures_what_bench_plan_needs(monkeypatch):
    def probe(*_):
        raise RuntimeError("probed")

    monkeypatch.setattr("laconic.plan._validate.Ranks", probe)
    words = CliRunner().invoke(cli, ["bench", "step", "--help"]).output.split()
    methods = words[words.index("--methods") + 1].split(",")
    with pytest.raises(RuntimeError, match="probed"):
        validate([CELL | {"method": name} for name in methods], lambda note: None)


def test_without_a_compressed_method_that_keeps_the_loss_a_dense_one_is_chosen():
    found = [p for p in predictions(SLOW) if p.method != "close"]
    assert choose(found).method == "bf16"
    words = advice(found, COMPUTE)
    assert words.startswith("Do not compress: bf16")
    assert "no other method's measured loss is within 1 %" in words
    with pytest.raises(ValueError, match="a dense method, fp32 or bf16"):
        choose([p for p in found if p.method not in ("fp32", "bf16")])


@pytest.mark.slow
def test_predictions_stand_beside_measured_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.plan._validate.isolation", lambda: Isolation(None, "not asked for"))
    row = {"model": "transformer-0.8m", "rate": None, "delay_ms": 0.0, "nodes": 2, "compute_ms": 90.0}
    rows = [row | {"method": name, "step_ms": 100.0} for name in ("bf16-adamw", "recommended")]
    (tmp_path / "step.json").write_text(json.dumps({"rows": rows}))
    out = tmp_path / "plan.json"
    done = CliRunner().invoke(cli, ["bench", "plan", str(tmp_path / "step.json"), "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "transformer-0.8m, 2 ranks, unshaped" in done.output
    (cell,) = json.loads(out.read_text())["cells"]
    assert set(cell["methods"]) == {"bf16", "CompressedAdamW, 1 %, 1 bit"}
    assert cell["cost"] == 1
    assert cell["probe"]["compute"]["backward"] > 0
