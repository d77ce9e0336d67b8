"""torch.set_default_device() changes nothing: what is meant for main memory is made there by name."""

import ast
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic

PACKAGE = Path(laconic.__file__).parent
LIBRARY = (
    "_host.py",
    "comm",
    "compressors",
    "ddp",
    "feedback",
    "formats",
    "kernels",
    "layout.py",
    "messages",
)
LIBRARY += ("optim", "session", "testing", "wire")
MAKERS = {
    *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace"),
    *("normal", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices"),
    *("triu_indices", "zeros", "sparse_coo_tensor", "sparse_csr_tensor"),
}
"""Functions of torch whose result lies on the default device unless they are told where."""


def unplaced(path):
    """Lines of a module that make a tensor without saying where."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    placed = {
        id(node.func)
        for node in nodes
        if isinstance(node, ast.Call) and any(keyword.arg == "device" for keyword in node.keywords)
    }
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: torch.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "torch"
        and node.attr in MAKERS
        and id(node) not in placed
    ]


def test_the_library_says_where_each_tensor_lies():
    paths = [PACKAGE / name for name in LIBRARY]
    modules = [module for path in paths for module in ([path] if path.is_file() else path.rglob("*.py"))]
    assert len(modules) > 100
    found = [line for module in modules for line in unplaced(module)]
    assert not found, "device= is missing in\n" + "\n".join(found)


def gradients(step, rank):
    generator = torch.Generator().manual_seed(10 * step + rank)
    return {
        name: torch.randn(shape, generator=generator, device="cpu")
        for name, shape in {"weight": (30, 20), "bias": (20,)}.items()
    }


def exchanged(rank):
    layout = laconic.Layout.of({"weight": (30, 20), "bias": (20,)}, bfloat16=["bias"])
    found = []
    for feedback in (
        laconic.EF14(laconic.TopK(0.1) >> laconic.ScaledSign()),
        laconic.EF21Plus(laconic.TopK(5)),
    ):
        exchange = laconic.Exchange(layout, feedback, timeout_s=60)
        for step in range(2):
            own = gradients(step, rank)
            exchange.reduce_(own)
            found += own.values()
        exchange.load_state_dict(exchange.state_dict(gather=True))
        own = gradients(2, rank)
        exchange.reduce_(own)
        found += own.values()
        exchange.close()
    return found


def model_of():
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(30, 20, device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, device="cpu"))
    return model


def backward(model, step, rank):
    generator = torch.Generator().manual_seed(100 * step + rank)
    model(torch.randn(8, 30, generator=generator, device="cpu")).square().mean().backward()


def optimized(rank):
    model = model_of()
    optimizer = laconic.optim.CompressedAdamW(model.parameters(), lr=1e-2, clip=1.0, timeout_s=60)
    for step in range(2):
        optimizer.zero_grad()
        backward(model, step, rank)
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    backward(model, 2, rank)
    optimizer.step()
    optimizer.close()
    return [parameter.detach().clone() for parameter in model.parameters()]


def hooked(rank):
    model = DistributedDataParallel(model_of())
    state = laconic.ddp.CommState(laconic.EF14(laconic.TopK(0.1)), model=model, timeout_s=60)
    model.register_comm_hook(state, laconic.ddp.hook)
    for step in range(2):
        model.zero_grad()
        backward(model, step, rank)
    state.close()
    return [parameter.grad.clone() for parameter in model.parameters()]


USES = {use.__name__: use for use in (exchanged, optimized, hooked)}


def both(rank, use):
    expected = USES[use](rank)
    # On "meta" a number that the library looks at, or a tensor of main memory beside it, is an error.
    torch.set_default_device("meta")
    try:
        found = USES[use](rank)
    finally:
        torch.set_default_device(None)
    return all(map(torch.equal, found, expected))


@pytest.mark.parametrize("use", USES)
def test_two_ranks_under_a_default_device(use, tmp_path):
    assert run_ranks(both, 2, tmp_path, use) == [True, True]


@pytest.mark.parametrize(
    "compressor",
    [laconic.RandK(0.1), laconic.NaturalCompression(), laconic.BlockQuantizer(4, block=16), laconic.TopK(3)],
    ids=repr,
)
def test_messages_under_a_default_device(compressor):
    x = torch.linspace(-1.0, 1.0, 64)
    expected = compressor.compress(x, torch.Generator().manual_seed(0))
    with torch.device("meta"):
        message = compressor.compress(x, torch.Generator().manual_seed(0))
        assert torch.equal(laconic.unpack(laconic.pack(message)).dense(), expected.dense())
        assert int(message.bits("entropy")) == int(expected.bits("entropy"))
