"""Arguments out of their kind or range: each is refused where it is given, by its name."""

import pytest
import torch

import laconic
from laconic.lab import train

LAYOUT = laconic.Layout.of({"a": (20, 30), "b": (40,)})
METHOD = laconic.EF14(laconic.TopK(0.1))


def exchange(**settings):
    return laconic.Exchange(**{"layout": LAYOUT, "feedback": METHOD} | settings)


def state(**settings):
    return laconic.ddp.CommState(**{"feedback": METHOD, "model": torch.nn.Linear(30, 20)} | settings)


def adamw(**settings):
    return laconic.optim.CompressedAdamW(torch.nn.Linear(30, 20).parameters(), **{"lr": 0.1} | settings)


def sgd(**settings):
    return laconic.optim.CompressedSGD(torch.nn.Linear(30, 20).parameters(), **{"lr": 0.1} | settings)


def training(**settings):
    model = torch.nn.Linear(4, 2)
    chosen = {"nodes": 2, "steps": 1, "data": lambda *_: torch.ones(1, 4), "loss": lambda m, x: m(x).sum()}
    return train(model, torch.optim.SGD(model.parameters(), lr=0.1), **chosen | settings)


COMMON = [
    ("seed", "0", "seed must be an integer"),
    ("seed", 1.5, "seed must be an integer"),
    ("seed", -1, "seed must be at least 0"),
    ("timeout_s", "long", "timeout_s must be a number"),
    ("timeout_s", 0, "timeout_s must be positive"),
    ("timeout_s", float("inf"), "timeout_s must lie in"),
    ("timeout_s", float("nan"), "timeout_s must lie in"),
    ("timeout_s", True, "timeout_s must be a number"),
    ("process_group", 3, "process_group must be a group"),
    ("topology", 3, "topology"),
    ("topology", "ring", "topology"),
    ("adaptive", "yes", "adaptive must be True or False"),
]
TRAINED = [
    ("exempt", ["bias"], "exempt must be a function"),
    ("exact", 1, "exact must be True or False"),
    ("check_replicas_every", 0.5, "check_replicas_every must be an integer"),
    ("check_replicas_every", -1, "check_replicas_every must be at least 0"),
]
CASES = [
    *((make, *case) for make in (exchange, state, adamw, sgd) for case in COMMON),
    *((make, *case) for make in (state, adamw, sgd) for case in TRAINED),
    (exchange, "layout", {"a": (2, 3)}, "layout must be a Layout"),
    (exchange, "feedback", laconic.TopK(0.1), "feedback must be a Feedback"),
    (exchange, "measure_error_every", "often", "measure_error_every must be an integer"),
    (state, "feedback", "ef21", "feedback must be a Feedback"),
    (state, "start_iter", 1.5, "start_iter must be an integer"),
    (state, "start_iter", -1, "start_iter must be at least 0"),
    (state, "density", 0.1, "density must be a Mapping"),
    (state, "density", {"0": 0.1}, "an iteration in density must be an integer"),
    (state, "density", {0: "much"}, "the density at iteration 0 must be a number"),
    (state, "density", {0: 0.0}, "the density at iteration 0 must be positive"),
    (state, "clip", "norm", "clip must be a number"),
    (state, "clip", 0, "clip must be positive"),
    (adamw, "lr", "fast", "lr must be a number"),
    (adamw, "lr", float("nan"), "lr must lie in"),
    (adamw, "weight_decay", None, "weight_decay must be a number"),
    (adamw, "eps", 0.0, "eps must be positive"),
    (adamw, "betas", (0.0, 1.0), r"betas\[1\] must lie in"),
    (adamw, "betas", (0.0, "big"), r"betas\[1\] must be a number"),
    (adamw, "clip", -1.0, "clip must be positive"),
    (adamw, "bucket_cap_mb", "25", "bucket_cap_mb must be a number"),
    (adamw, "bucket_cap_mb", 0, "bucket_cap_mb must be positive"),
    (sgd, "momentum", 1.0, "momentum must lie in"),
    (sgd, "momentum", "0.9", "momentum must be a number"),
    (training, "nodes", 0, "nodes must be at least 1"),
    (training, "nodes", 2.0, "nodes must be an integer"),
    (training, "steps", -1, "steps must be at least 0"),
    (training, "clip", 0.0, "clip must be"),
]


@pytest.mark.parametrize(
    ("make", "name", "value", "words"), CASES, ids=[f"{m.__name__}-{n}-{v}" for m, n, v, _ in CASES]
)
def test_an_argument_is_refused_by_its_name(make, name, value, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(**{name: value})


def test_numbers_of_other_libraries_are_numbers():
    optimizer = adamw(lr=torch.tensor(0.1), eps=torch.tensor(1e-8).numpy())
    optimizer.close()


TENSORS = {"a": torch.ones(20, 30), "b": torch.ones(40)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("b", None, "missing or unknown"),
        ("b", [1.0] * 40, "needs a tensor, got list"),
        ("b", torch.ones(41), "has shape"),
        ("b", torch.ones(40, dtype=torch.int64), "real floating-point numbers"),
        ("b", torch.ones(40, dtype=torch.complex64), "real floating-point numbers"),
        ("b", torch.ones(40).to_sparse(), "real floating-point numbers"),
        ("b", torch.ones(40, dtype=torch.float64), "one dtype and device"),
        ("b", torch.ones(40, device="meta"), "one dtype and device"),
        ("b", torch.ones(40, requires_grad=True), "pass its .grad"),
    ],
)
def test_reduce_refuses_before_it_commits(name, value, words):
    own, other = exchange(buckets=[["a"], ["b"]]), exchange(buckets=[["a"], ["b"]])
    try:
        for each in (own, other):
            each.reduce_({key: tensor.clone() for key, tensor in TENSORS.items()})
        given = {key: tensor.clone() for key, tensor in TENSORS.items()} | {name: value}
        if value is None:
            del given[name]
        with pytest.raises((TypeError, ValueError), match=words):
            own.reduce_(given)
        assert torch.equal(given["a"], TENSORS["a"])
        # It goes on as if nothing had been asked.
        results = []
        for each in (own, other):
            tensors = {key: 2 * tensor for key, tensor in TENSORS.items()}
            assert each.reduce_(tensors)
            results.append(tensors)
        assert all(torch.equal(results[0][key], results[1][key]) for key in TENSORS)
    finally:
        own.close()
        other.close()
