"""Statistics as totals and as rates a step."""

import math

import torch

import laconic
from laconic.comm._stats import Counter


def test_rates_are_of_all_steps_or_of_those_since():
    counter = Counter(steps=3, skipped=1, bytes_sent=400, exposed=2.0, waited_for=[0.0, 8.0])
    counter.seconds["pack"] = 4.0
    first = counter.stats()
    scalars = first.scalars()
    assert (scalars["bytes_sent"], scalars["bytes_sent_per_step"]) == (400.0, 100.0)
    assert (scalars["exposed_per_step"], scalars["waited_per_step"]) == (0.5, 2.0)
    assert (scalars["seconds_pack"], scalars["seconds_per_step_pack"]) == (4.0, 1.0)
    counter.steps, counter.bytes_sent = 5, 1000
    counter.seconds["pack"] = 10.0
    later = counter.stats().scalars(since=first)
    assert (later["bytes_sent"], later["bytes_sent_per_step"]) == (1000.0, 300.0)
    assert (later["seconds_pack"], later["seconds_per_step_pack"]) == (10.0, 3.0)
    assert later["waited_per_step"] == 0.0
    assert math.isnan(counter.stats().scalars(since=counter.stats())["bytes_sent_per_step"])
    assert math.isnan(Counter().stats().scalars()["seconds_per_step_pack"])
    assert all(isinstance(value, float) for value in (scalars | later).values())


def test_log_to_writes_rates_since_the_last_call():
    model = torch.nn.Linear(4, 3)
    state = laconic.ddp.CommState(laconic.EF14(laconic.TopK(1)), model=model)
    written = []

    class Writer:
        def add_scalar(self, tag, value, step):
            written.append((tag, value, step))

    counter = state._require()[1].exchange._counter
    counter.steps, counter.bytes_sent = 2, 20
    state.log_to(Writer(), 2)
    counter.steps, counter.bytes_sent = 3, 50
    state.log_to(Writer(), 3)
    state.close()
    found = [(value, step) for tag, value, step in written if tag == "laconic/bytes_sent_per_step"]
    assert found == [(10.0, 2), (30.0, 3)]


def test_gathering_a_checkpoint_is_not_counted():
    counter = Counter(bytes_sent=7, waited_for=[0.0, 1.0])
    with counter.uncounted():
        counter.bytes_sent += 5
        counter.bytes_received += 5
        counter.waited_for[1] += 5
    assert (counter.bytes_sent, counter.bytes_received, counter.waited_for) == (7, 0, [0.0, 1.0])
