"""Part 4: the DDP hook and CompressedAdamW, in two processes over Gloo on one GPU, and in one over NCCL."""

import hashlib
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ends import Ends
from torch import nn

import laconic
from laconic.comm._stats import Counter
from laconic.comm.topologies import AllGather, BucketContext
from laconic.comm.transport.collectives import Collectives

STEPS = 4
FEEDBACKS = {
    "EF21": laconic.EF21(laconic.TopK(0.05) >> laconic.Cast(torch.bfloat16)),
    "EF14": laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign()),
}


def main(settings):
    """A row for each number of processes, backend and way."""
    cuda = settings.mode != "rehearse"
    settings.device(stand_in=False)
    ways = [("gloo", 2)] + ([("nccl", 1)] if cuda and dist.is_nccl_available() else [])
    for backend, ranks in ways:
        with tempfile.TemporaryDirectory() as folder:
            limit = min(120.0, settings.left)
            found = _in_processes(backend, ranks, cuda, settings.choose(256, 256, 32), Path(folder), limit)
        for way, equal in found[0].pop("rows", {}).items():
            settings.report(way=way, backend=backend, processes=ranks, equal_to_cpu=equal, ok=equal)
        for way in found[0]:
            alike = len({rank[way] for rank in found}) == 1
            settings.report(way=way, backend=backend, processes=ranks, replicas_equal=alike, ok=alike)
        if cuda and ranks == 2:
            for way in ("exchange, EF21", "exchange, EF14"):
                equal = found[0][way] == found[0][f"{way}, on the CPU"]
                settings.report(way=way, backend=backend, processes=ranks, equal_to_cpu=equal, ok=equal)


def _in_processes(backend, ranks, cuda, width, folder, limit):
    context = mp.get_context("spawn")
    children = [
        context.Process(target=_child, args=(rank, ranks, backend, cuda, width, folder), daemon=True)
        for rank in range(ranks)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(limit)
        if child.exitcode is None:
            child.kill()
    errors = [file.read_text() for file in folder.glob("*.error")]
    if errors or any(child.exitcode for child in children):
        raise SystemExit("\n".join(errors) or f"the processes ended with {[c.exitcode for c in children]}")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _child(rank, ranks, backend, cuda, width, folder):
    try:
        torch.set_num_threads(1)
        if cuda:
            torch.cuda.set_device(0)
        dist.init_process_group(
            backend,
            init_method=f"file://{folder}/meeting",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=90),
        )
        device = torch.device("cuda", 0) if cuda else torch.device("cpu")
        found = {"hook": hooked(rank, device, width), "CompressedAdamW": stepped(rank, device, width)}
        for where in dict.fromkeys((device, torch.device("cpu"))) if backend == "gloo" else (device,):
            tail = "" if where == device else ", on the CPU"
            for name, feedback in FEEDBACKS.items():
                found[f"exchange, {name}{tail}"] = exchanged(rank, where, width, feedback)
        if backend == "nccl":
            collectives = Collectives(None, 60.0, Counter())
            collectives._group = dist.group.WORLD  # which a single rank does without
            found["rows"] = {
                f"frames that stay on the GPU, {name}": equal_to_cpu(collectives, device, width, feedback)
                for name, feedback in FEEDBACKS.items()
            }
        torch.save(found, folder / f"{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise


def model_of(device, width):
    """A small network, alike on all ranks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(), nn.LayerNorm(4 * width), nn.Linear(4 * width, width)
    ).to(device)


def data_of(rank, step, device, width):
    """A batch of this rank's own."""
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return torch.randn(16, width, generator=generator).to(device)


def hooked(rank, device, width):
    """The parameters' hash after some steps of DDP with the hook."""
    model = model_of(device, width)
    parallel = nn.parallel.DistributedDataParallel(model, device_ids=[0] if device.type == "cuda" else None)
    state = laconic.ddp.CommState(
        laconic.EF21(laconic.TopK(0.05) >> laconic.Cast(torch.bfloat16)), model=parallel
    )
    parallel.register_comm_hook(state, laconic.ddp.hook)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        parallel(data_of(rank, step, device, width)).square().mean().backward()
        optimizer.step()
    state.close()
    return digest(model.parameters())


def stepped(rank, device, width):
    """The parameters' hash after some steps of CompressedAdamW."""
    model = model_of(device, width)
    feedback = laconic.EF14(laconic.TopK(0.05) >> laconic.ScaledSign())
    optimizer = laconic.optim.CompressedAdamW(model.parameters(), lr=1e-3, feedback=feedback)
    for step in range(STEPS):
        optimizer.zero_grad()
        model(data_of(rank, step, device, width)).square().mean().backward()
        optimizer.step()
    optimizer.close()
    return digest(model.parameters())


def exchanged(rank, device, width, feedback):
    """The hash of what some steps of an exchange make of given gradients."""
    layout = layout_of(width)
    exchange = laconic.Exchange(layout, feedback, device=device)
    seen = []
    for step in range(STEPS):
        flat = numbers_of(rank, step, layout.d)
        tensors = {
            one.name: flat[one.offset : one.end].clone().view(one.shape).to(device) for one in layout.segments
        }
        exchange.reduce_(tensors)
        seen += tensors.values()
    exchange.close()
    return digest(seen)


def equal_to_cpu(collectives, device, width, feedback):
    """Whether a single rank's frames that stay on the device give the bits of main memory."""
    layout, like = layout_of(width), torch.empty(0, device=device)
    bucket = AllGather().make_bucket(BucketContext(layout, feedback, like, 0, collectives, Counter()))
    here, equal = Ends(layout, feedback, "cpu", 1), True
    for step in range(STEPS):
        flat, out = numbers_of(0, step, layout.d), torch.empty(layout.d, device=device)
        equal &= bucket.stage(flat.to(device), out, 1.0)
        bucket.commit()
        expected = here.stage([flat], 0)[1]
        here.commit(0)
        equal &= digest([out]) == digest([expected])
    return equal


def layout_of(width):
    """A matrix and a vector that is exempt."""
    return laconic.Layout.of({"weight": (width, width), "bias": (width,)}, bfloat16=["bias"])


def numbers_of(rank, step, d):
    """A gradient of this rank's own."""
    return torch.randn(d, generator=torch.Generator().manual_seed(1000 * rank + step))


def digest(tensors):
    """A hash of tensors' bits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
