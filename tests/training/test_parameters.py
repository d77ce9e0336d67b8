"""Which parameters count, for the hook and the optimisers: sent, left out, or refused with a remedy."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import laconic
from laconic.ddp._model import DDPModel
from laconic.optim import CompressedAdamW
from laconic.session import TrainedParameters

EF21 = laconic.EF21(laconic.TopK(0.1))


def both(model):
    """What the hook and an optimiser make of a model: the names, or the error."""
    found = []
    for make in (
        lambda: DDPModel(model).parameters,
        lambda: CompressedAdamW(model.named_parameters(), 0.1).session.parameters,
    ):
        try:
            found.append(list(make().by_name))
        except (TypeError, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


def test_frozen_parameters_of_any_type_and_empty_ones_are_left_out():
    model = nn.Linear(4, 4)
    model.quantised = frozen(torch.zeros(3, dtype=torch.int8))
    model.packed = frozen(torch.zeros(8, dtype=torch.uint8))
    model.complex = frozen(torch.zeros(2, dtype=torch.complex64))
    model.sparse = frozen(torch.eye(3).to_sparse())
    model.elsewhere = frozen(torch.zeros(3, device="meta"))
    model.empty = nn.Parameter(torch.zeros(0, 7))
    assert both(model) == [["weight", "bias"]] * 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "TypeError: .*'weight' is torch.complex64"),
        (lambda: nn.Linear(2, 2, device="meta"), "ValueError: .*'weight' is on the meta device"),
        (lambda: nn.LazyLinear(2), "ValueError: .*'weight' has no shape yet"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "ValueError: .*nothing to train"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_refused_parameters(make, words):
    for found in both(make()):
        assert isinstance(found, str)
        assert re.search(words, found), found


def test_two_models_of_one_optimiser_need_names_of_their_own():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    with pytest.raises(ValueError, match="two parameters have the name 'weight'"):
        CompressedAdamW([*a.named_parameters(), *b.named_parameters()], 0.1)
    named = [(f"{m}.{name}", p) for m, model in (("a", a), ("b", b)) for name, p in model.named_parameters()]
    optimizer = CompressedAdamW(named, 0.1)
    assert list(optimizer.session.parameters.by_name) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    optimizer.close()
    # A tied parameter under two names is one, by its first name.
    tied = TrainedParameters([("in", a.weight), ("out", a.weight)])
    assert tied.names([a.weight]) == ("in",)


def test_the_names_of_a_model_inside_ddp_are_refused():
    model = nn.Linear(3, 3)
    for prefix in ("module.", "module._orig_mod.", "_orig_mod.module."):
        named = [(prefix + name, p) for name, p in model.named_parameters()]
        with pytest.raises(ValueError, match=r"begin with 'module.': the model is inside Distributed"):
            CompressedAdamW(named, 0.1)
    # A part of the model may have that name.
    CompressedAdamW([("module.weight", model.weight), ("head.bias", model.bias)], 0.1).close()


@pytest.fixture
def two_pretended_ranks():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("two_pretended_ranks")
@pytest.mark.filterwarnings("ignore")
def test_sharded_models_are_refused():
    mesh = dist.init_device_mesh("cpu", (2,))
    sharded = nn.Sequential(nn.Linear(4, 4))
    fully_shard(sharded, mesh=mesh)
    parallel = nn.Linear(4, 4)
    parallel.weight = nn.Parameter(distribute_tensor(parallel.weight.detach(), mesh))
    for model in (sharded, parallel):
        for found in both(model):
            assert "weight' belongs to a sharded model" in found
    flat = FullyShardedDataParallel(nn.Linear(4, 4), device_id=torch.device("cpu"))
    hook, optimiser = both(flat)
    assert "sharded by FullyShardedDataParallel" in hook
    assert "_flat_param' belongs to a sharded model" in optimiser
