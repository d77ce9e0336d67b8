"""CommState without other processes: settings, names, schedules, statistics."""

import pytest
import torch
from ddp_runs import network
from states import segments_of
from torch import nn

import laconic
from laconic.ddp import CommState, hook
from laconic.ddp._model import DDPModel
from laconic.session import make_schedule, vectors_and_small, with_density

EF21 = laconic.EF21(laconic.TopK(0.1))


class Bucket:
    """What DDP hands to hooks."""

    def __init__(self, parameters, index, last):
        self._parameters, self._index, self._last = parameters, index, last
        self._buffer = torch.cat([p.grad.reshape(-1) for p in parameters])

    def parameters(self):
        return self._parameters

    def buffer(self):
        return self._buffer

    def index(self):
        return self._index

    def is_last(self):
        return self._last


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topology": "ring"}, "one of .* or an object, got 'ring'"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"start_iter": -1}, "start_iter must be at least 0"),
        ({"start_iter": 3, "density": {5: 0.1}}, "start_iter or density"),
        ({"density": {-1: 0.1}}, "an iteration in density must be at least 0"),
        ({"density": {0: None}}, "never compresses"),
        ({"density": {0: 0.1, 5: None}}, "cannot go back to dense"),
        ({"density": {5: laconic.EF14(laconic.TopK(0.1))}}, "alike in all but their compressors"),
        ({"density": {5: laconic.EF21(laconic.TopK(0.1), init="zero")}}, "alike in all but"),
        ({"feedback": laconic.EF21(laconic.ScaledSign()), "density": {5: 0.1}}, "has no k to set to 0.1"),
        ({"feedback": laconic.EF21(laconic.RandK(0.1)), "model": network()}, "contractive"),
        ({"model": network().requires_grad_(False)}, "nothing to train"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        CommState(**{"feedback": EF21, **settings})


def test_models_are_checked():
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got list"):
        CommState(EF21, model=[])
    with pytest.raises(TypeError, match=r"'weight' is torch.complex64"):
        CommState(EF21, model=nn.Linear(2, 2, dtype=torch.complex64))
    state = CommState(EF21, model=network())
    with pytest.raises(RuntimeError, match="has a model already"):
        state.attach(network())
    state.close()


def test_the_hook_knows_what_it_is_given():
    with pytest.raises(TypeError, match="python_reducer"):
        hook(CommState(EF21), (torch.ones(2), torch.ones(2)))
    with pytest.raises(TypeError, match="not dict"):
        hook({}, None)
    for call in ("stats", "state_dict", "resync", "check_replicas"):
        with pytest.raises(RuntimeError, match="has no model"):
            getattr(CommState(EF21), call)()
    assert hook.__code__.co_varnames[1] == "bucket"


def test_names_are_those_inside_all_wrappers():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.submodule = nn.Linear(2, 3)
            self.module = torch.compile(nn.Linear(3, 2), backend="eager")
            self.tied = self.submodule

    model = Nested()
    model._ddp_params_and_buffers_to_ignore = ["submodule.bias"]
    model.module.bias.requires_grad_(False)
    named = DDPModel(torch.compile(model, backend="eager"))
    assert list(named.parameters.by_name) == ["submodule.weight", "module.weight"]


def test_exempt_parameters_and_their_rules():
    mixed = nn.ModuleDict({"a": nn.Linear(40, 40), "b": nn.Linear(4, 4, dtype=torch.float64)})
    rules = lambda layout: {s.name: s.rule for s in layout.segments}  # noqa: E731
    default = DDPModel(mixed).parameters.layout(vectors_and_small, False)
    assert rules(default) == {
        "a.weight": "compress",
        "a.bias": "bfloat16",
        "b.weight": "exact",
        "b.bias": "exact",
    }
    chosen = DDPModel(mixed).parameters.layout(lambda name, parameter: name.startswith("a.w"), True)
    assert rules(chosen) == {"a.weight": "exact"} | dict.fromkeys(
        ["a.bias", "b.weight", "b.bias"], "compress"
    )


def test_schedules():
    schedule = make_schedule(EF21, 0, {0: None, 3: 0.5, 8: 2})
    chosen = [schedule.at(i) for i in (0, 2, 3, 7, 8, 99)]
    half, two = (laconic.EF21(laconic.TopK(k)) for k in (0.5, 2))
    assert chosen == [None, None, half, half, two, two]
    assert make_schedule(EF21, 4, None).at(3) is None
    assert make_schedule(EF21, 4, None).at(4) == EF21
    nested = laconic.EF14((laconic.RandK(0.1) >> laconic.NaturalCompression()).contractive())
    assert with_density(nested, 0.3).compressor.inner.first == laconic.RandK(0.3)


class Writer(dict):
    def add_scalar(self, tag, value, step):
        self[tag] = value, step


def step_of(state, model, parameters_of_buckets, fill):
    for p in model.parameters():
        p.grad = torch.full_like(p, fill)
    buckets = [Bucket(p, i, i == len(parameters_of_buckets) - 1) for i, p in enumerate(parameters_of_buckets)]
    return [state.reduce(bucket) for bucket in buckets]


def test_statistics_and_their_log(monkeypatch):
    # Outside a backward pass nothing can be queued for its end.
    monkeypatch.setattr("laconic.ddp._backward.wait_at_end_of_backward", lambda wait: None)
    model = nn.Linear(30, 30)
    state = CommState(EF21, model=model, measure_error_every=1)
    for fill in (1.0, 2.0):
        for future in step_of(state, model, [[model.bias], [model.weight]], fill):
            future.wait()
    assert state.iteration == 2
    # The second step sends 10 % of the weight's ones, which are all new, and the whole bias.
    assert state.stats().relative_error == pytest.approx(0.9 * 900 / (4 * 930))
    writer = Writer()
    state.log_to(writer, 17)
    assert writer["laconic/steps"] == (2.0, 17)
    assert {"laconic/hidden", "laconic/seconds_select", "laconic/bytes_sent"} < set(writer)
    # A pass that broke off: the next one must not be taken for its rest.
    state.reduce(Bucket([model.bias], 0, False))
    with pytest.raises(RuntimeError, match="ended in the middle of a step"):
        state.reduce(Bucket([model.bias], 0, False))
    with pytest.raises(ValueError, match="version 1"):
        state.load_state_dict({})
    state.close()


def test_an_estimate_that_float16_cannot_hold_makes_the_step_void():
    exchange = laconic.Exchange(laconic.Layout.flat(4), laconic.EF14(laconic.TopK(1)))
    exchange.submit(["x"], torch.full((4,), 6e4, dtype=torch.float16), last=True).wait()
    before = exchange.state_dict()
    assert exchange.submit(["x"], torch.full((4,), 6e4, dtype=torch.float16), last=True).wait().isnan().all()
    after = exchange.state_dict()
    residuals = [segments_of(s)["x"]["sender"]["residual"] for s in (before, after)]
    assert torch.equal(*residuals)
    assert exchange.stats().skipped == 1
    exchange.close()
    with pytest.raises(laconic.ExchangeError, match="closed"):
        exchange.gather(torch.ones(1), "ones")


def test_an_exchange_keeps_its_memories_only_for_the_same_method():
    exchange = laconic.Exchange(laconic.Layout.flat(4), EF21)
    exchange.reduce_({"x": torch.arange(4.0)})
    with pytest.raises(ValueError, match="memories of ef21 mean nothing to ef14"):
        exchange.switch(laconic.EF14(laconic.TopK(1)))
    with pytest.raises(ValueError, match="contractive"):
        exchange.switch(laconic.EF21(laconic.RandK(2)))
    exchange.switch(laconic.EF21(laconic.TopK(2)))
    numbers = {"x": torch.tensor([5.0, 6.0, 2.5, 3.5])}
    exchange.reduce_(numbers)
    assert numbers["x"].tolist() == [5.0, 6.0, 2.0, 3.0]
    exchange.reset()
    exchange.reduce_(numbers := {"x": torch.tensor([1.0, 1.5, 2.0, 2.5])})
    assert numbers["x"].tolist() == [1.0, 1.5, 2.0, 2.5]
    exchange.close()
