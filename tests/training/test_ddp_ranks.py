"""CommState under DDP over real processes: values, DDP's options, schedules, clipping."""

import pytest
import torch
from ddp_runs import FEEDBACKS, network, same, simulate, start, train, weights
from processes import run_ranks

import laconic

STEPS = 10
EXACT = ("ef14", "ef21-random")


def _values(rank):
    found = {}
    for name, feedback in FEEDBACKS.items():
        found[name] = [
            train(rank, feedback, STEPS, cap=cap, micro=2, seed=7, exact=name in EXACT)
            for cap in (0.05, 1.0, 25.0)
        ]
    return found


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return run_ranks(_values, 2, tmp_path_factory.mktemp("values"), timeout=120)


@pytest.mark.parametrize("name", FEEDBACKS)
def test_buckets_do_not_influence_values(name, values):
    for rank in values:
        small, *larger = rank[name]
        assert small[2] > larger[-1][2] >= 1, "the caps make the same buckets, so nothing is tested"
        for other in larger:
            assert torch.equal(small[0], other[0])
            assert same(small[1], other[1])
        assert torch.equal(small[0], values[0][name][0][0]), "the replicas differ"


@pytest.mark.parametrize("name", FEEDBACKS)
def test_equal_to_senders_and_receivers_in_one_process(name, values):
    expected = simulate(FEEDBACKS[name], STEPS, 2, micro=2, seed=7, exact=name in EXACT)
    assert torch.equal(values[0][name][0][0], expected)


DTYPES = (torch.bfloat16, torch.float16)
STAGES = {0: None, 3: 0.5, 6: laconic.EF21(laconic.TopK(0.1))}


def _options(rank):
    feedback = FEEDBACKS["ef21"]
    compiled = lambda model: torch.compile(model, backend="eager")  # noqa: E731
    found = {
        "plain": train(rank, feedback, 6, cap=0.05),
        "view": train(rank, feedback, 6, cap=0.05, ddp={"gradient_as_bucket_view": True}),
        "unused": train(rank, feedback, 6, cap=0.05, ddp={"find_unused_parameters": True}),
        "static": train(rank, feedback, 6, cap=0.05, ddp={"static_graph": True}),
        "compiled": train(rank, feedback, 6, wrap=compiled),
        "density": train(rank, feedback, 9, density=STAGES, cap=0.05),
        "start": train(rank, FEEDBACKS["ef14"], 5, start_iter=2),
        "clip": [train(rank, feedback, 5, clip=0.1, cap=cap) for cap in (0.05, 25.0)],
        "double": [train(rank, feedback, 4, dtype=torch.float64, cap=cap) for cap in (0.05, 25.0)],
        "long clip": train(rank, feedback, 6, clip=1e9),
    }
    for dtype in DTYPES:
        found[dtype] = train(rank, feedback, 6, dtype=dtype, cap=0.02)
    return found


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return run_ranks(_options, 2, tmp_path_factory.mktemp("options"), timeout=120)


@pytest.mark.parametrize("option", ["view", "unused", "static", "compiled", "long clip"])
def test_options_of_ddp_do_not_influence_values(option, options):
    for rank in options:
        assert torch.equal(rank["plain"][0], rank[option][0])
        assert same(rank["plain"][1], rank[option][1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_narrow_gradients_have_float32_memories(dtype, options):
    assert torch.equal(options[0][dtype][0], simulate(FEEDBACKS["ef21"], 6, 2, dtype=dtype))
    assert options[1][dtype][1]["0.weight"]["sender"]["memory"].dtype == torch.float32


def test_float64_stays_float64(options):
    small, large = options[0]["double"]
    assert torch.equal(small[0], large[0])
    assert same(small[1], large[1])
    for name in ("0.weight", "0.bias"):
        for end in ("sender", "receiver"):
            memory = small[1][name][end]["memory"]
            assert memory.dtype == torch.float64
            assert not torch.equal(memory, memory.bfloat16().double())


def test_density_goes_down_with_the_memories_it_had(options):
    k = laconic.TopK
    methods = [None] * 3 + [laconic.EF21(k(0.5))] * 3 + [laconic.EF21(k(0.1))] * 3
    assert torch.equal(options[0]["density"][0], simulate(None, 9, 2, methods=methods))
    assert options[0]["density"][1]["0.weight"]["sender"]["round"] == 6


def test_start_iter_is_dense(options):
    methods = [None] * 2 + [FEEDBACKS["ef14"]] * 3
    assert torch.equal(options[0]["start"][0], simulate(None, 5, 2, methods=methods))


def test_each_rank_clips_its_own_gradient(options):
    expected = simulate(FEEDBACKS["ef21"], 5, 2, clip=0.1)
    assert not torch.equal(expected, simulate(FEEDBACKS["ef21"], 5, 2))
    for weights_, memory, _ in options[0]["clip"]:
        assert torch.equal(weights_, expected)
        assert same(memory, options[0]["clip"][0][1])


class Sometimes(torch.nn.Module):
    """A branch that some ranks leave out in some steps."""

    def __init__(self):
        super().__init__()
        self.trunk, self.branch = network(), network()

    def forward(self, x, both):
        return self.trunk(x) + self.branch(x) if both else self.trunk(x)


def _unused(rank):
    results = []
    for cap in (0.05, 25.0):
        model, _, _ = start(Sometimes(), FEEDBACKS["ef21"], cap, {"find_unused_parameters": True})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            both = (step + rank) % 2 == 0 or step == 0
            x = torch.randn(4, 64, generator=torch.Generator().manual_seed(9 * step + rank))
            model(x, both).square().mean().backward()
            optimizer.step()
        results.append(weights(model))
    dense = [train(rank, FEEDBACKS["ef14"], 3, start_iter=9, cap=cap)[0] for cap in (0.02, 25.0)]
    return results, dense


def test_unused_parameters_and_dense_steps_on_three_ranks(tmp_path):
    found = run_ranks(_unused, 3, tmp_path)
    for results, dense in found:
        for other in results:
            assert torch.equal(other, found[0][0][0])
        for other in dense:
            assert torch.equal(other, simulate(None, 3, 3, methods=[None] * 3))
