"""``laconic bench step``: the emulated network, traffic counters, methods in turns, rows."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest
from click.testing import CliRunner

from laconic.bench.step import StepSettings, count_notes, measure
from laconic.bench.step_methods import METHODS, RECOMMENDED
from laconic.bench.step_rank import StepRow
from laconic.cli._group import laconic as cli
from laconic.network import HEADERS, Link, Traffic, isolation, parse_rate
from laconic.optim import CompressedAdamW

ISOLATION = isolation()
needs_namespaces = pytest.mark.skipif(ISOLATION.prefix is None, reason=ISOLATION.reason or "isolated")

IN_NETWORK = """
import json, subprocess, sys
from laconic.network import Link, Network, die_with_parent
SERVE = '''
import socket, time
with socket.create_server(("10.77.0.1", 5000)) as server:
    print("ready", flush=True)
    peer, _ = server.accept()
    count = 0
    while block := peer.recv(1 << 16):
        count += len(block)
    peer.sendall(b"x")
'''
SEND = '''
import json, socket, time
from laconic.network import Traffic
begin = time.perf_counter()
with socket.create_connection(("10.77.0.1", 5000), timeout=20) as peer:
    connected = time.perf_counter() - begin
    before, begin = Traffic.sent("eth0"), time.perf_counter()
    peer.sendall(bytes(1_500_000))
    peer.shutdown(socket.SHUT_WR)
    peer.recv(1)
    took = time.perf_counter() - begin
    print(json.dumps([connected, took, (Traffic.sent("eth0") - before).payload]))
'''
die_with_parent()
with Network(2, Link(*json.loads(sys.argv[1]))) as network:
    start = [*network.command(0), sys.executable, "-c", SERVE]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as server:
        server.stdout.readline()
        subprocess.run([*network.command(1), sys.executable, "-c", SEND], check=True, timeout=60)
        server.kill()
"""


@pytest.mark.parametrize(
    ("text", "bits"), [("100mbit", 1e8), ("2.5 Gbit", 2.5e9), ("none", None), ("9bit", 9.0)]
)
def test_rates_are_read(text, bits):
    assert parse_rate(text) == bits


@pytest.mark.parametrize("text", ["fast", "100", "0mbit", "-1mbit"])
def test_other_rates_are_refused(text):
    with pytest.raises(ValueError, match="100mbit or 1gbit"):
        parse_rate(text)


def test_the_optimiser_is_measured_with_its_default_feedback():
    default = inspect.signature(CompressedAdamW).parameters["feedback"].default
    assert default == RECOMMENDED


def test_links_are_named():
    assert [Link(1e8).label, Link(1e9, 20).label, Link(None).label] == [
        "100 Mbit/s",
        "1 Gbit/s, 20 ms",
        "unshaped",
    ]


def test_payload_leaves_out_the_headers_of_each_packet():
    assert (Traffic(5000, 3) - Traffic(1000, 1)).payload == 4000 - 2 * HEADERS
    assert Traffic.sent("lo").bytes >= 0
    with pytest.raises(RuntimeError, match="nowhere0"):
        Traffic.sent("nowhere0")


@needs_namespaces
@pytest.mark.parametrize("delay_ms", [0.0, 30.0])
def test_a_link_has_its_rate_and_its_delay(delay_ms):
    if delay_ms and not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("a delay needs netem or TAP devices")
    command = [*ISOLATION.prefix, sys.executable, "-c", IN_NETWORK, json.dumps([50e6, delay_ms])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    connected, took, payload = json.loads(done.stdout)
    # Never faster than the link: 1.5 MB less what waits in buffers, and a round trip.
    assert took > 0.5 * 1.5e6 * 8 / 50e6
    assert connected >= 2e-3 * delay_ms
    assert payload == pytest.approx(1_500_000, rel=0.01)


@needs_namespaces
def test_ranks_train_in_turns_on_a_shaped_network_and_bytes_agree():
    settings = StepSettings(
        "transformer-0.8m",
        (Link(1e9),),
        nodes=2,
        methods=("bf16", "recommended-hook", "recommended", "local-4"),
        turns=1,
        steps=2,
    )
    notes = []
    found = measure(settings, notes.append)
    assert found["network"] == "shaped"
    assert len(notes) == count_notes(settings)
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == list(settings.methods)
    assert {field.name for field in fields(StepRow)} < set(rows["bf16"])
    for name, row in rows.items():
        assert (row["rate"], row["nodes"], row["model"]) == (1e9, 2, "transformer-0.8m")
        assert row["step_ms"] > 0
        assert row["compute_ms"] > 0
        # Whole rounds of local steps.
        assert row["steps"] == (4 if name == "local-4" else 2)
        assert row["turns_ms"] == [row["step_ms"]]
        assert {"forward", "backward", "optimizer"} <= set(row["parts_ms"])
        assert (row["counted_bytes"] is None) == (name == "bf16")
        if name != "bf16":
            # Gloo adds some tens of bytes to each message, which only a small model's show.
            assert row["payload_bytes"] == pytest.approx(row["counted_bytes"], rel=0.03, abs=1000)
            assert {"select", "pack", "communicate", "unpack", "apply", "waited"} <= set(row["parts_ms"])
            assert row["payload_bytes"] < 0.02 * rows["bf16"]["payload_bytes"]
    assert rows["bf16"]["payload_bytes"] == pytest.approx(2 * 860_160, rel=0.03)


@pytest.mark.slow
def test_every_method_trains_on_loopback_and_the_table_fits(tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.bench.step.isolation", lambda: ISOLATION.__class__(None, "not asked for"))
    out = tmp_path / "step.json"
    command = ["bench", "step", "--model", "transformer-0.8m", "--nodes", "2", "--turns", "1", "--steps", "2"]
    done = CliRunner().invoke(cli, [*command, "--json", str(out)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    assert "loopback, unshaped: not asked for" in done.output
    assert max(map(len, done.output.splitlines())) <= 80 + len("processor") + 80  # the machine's own line
    record = json.loads(out.read_text())
    assert record["command"].startswith(
        "laconic bench step --model transformer-0.8m --rates 100mbit,1000mbit,none"
    )
    rows = record["rows"]
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(row["loss"] == row["loss"] for row in rows)


def test_unknown_methods_are_named_with_the_nearest():
    done = CliRunner().invoke(cli, ["bench", "step", "--methods", "recomended"])
    assert done.exit_code == 2
    assert "recommended" in done.output


def test_a_rank_that_fails_is_reported_with_what_it_wrote(monkeypatch):
    monkeypatch.setattr("laconic.bench.step.isolation", lambda: ISOLATION.__class__(None, "not asked for"))
    settings = StepSettings("transformer-0.8m", nodes=2, methods=("bf16",), turns=1, steps=1, threads=0)
    with pytest.raises(RuntimeError, match="rank0"):
        measure(settings, lambda note: None)


def test_on_the_loopback_device_which_all_share_a_rank_is_charged_its_part(monkeypatch):
    monkeypatch.setattr("laconic.bench.step.isolation", lambda: ISOLATION.__class__(None, "not asked for"))
    settings = StepSettings("transformer-0.8m", nodes=2, methods=("bf16",), turns=1, steps=1)
    (row,) = measure(settings, lambda note: None)["rows"]
    assert row["payload_bytes"] == pytest.approx(2 * 860_160, rel=0.03)
