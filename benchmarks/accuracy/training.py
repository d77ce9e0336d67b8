"""One run of the accuracy study: a model trained on simulated nodes."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import digits
import text
import torch
from local import LocalNodes, adamw
from stages import Spec
from torch import nn

import laconic
from laconic.lab import train

WARM_UP, FINAL = 0.05, 0.1
TASKS = {"text": text.Task, "digits": digits.Task}


def learning_rate(spec: Spec, step: int) -> float:
    """Linear warm-up, then a cosine."""
    warm = WARM_UP * spec.steps
    if step < warm:
        return spec.lr * (step + 1) / warm
    return spec.lr * (
        FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (spec.steps - warm)))
    )


def _compressor(spec: Spec, density: float) -> Any:
    if spec.selection == "segments":
        return laconic.TopK(density)
    return laconic.BlockTopK(max(1, round(density * 4096)), 4096)


def make_optimizer(spec: Spec, model: nn.Module) -> tuple[Any, dict[str, Any]]:
    """A run's optimiser, and the settings of the averaging before it."""
    one_bit = laconic.ScaledSign()
    decay = {"weight_decay": spec.weight_decay}
    if spec.method == "dense":
        betas = (spec.beta1, spec.beta2)
        optimizer = torch.optim.AdamW(model.parameters(), spec.lr, betas, fused=True, **decay)
        return optimizer, {"feedback": laconic.DCGD(laconic.Identity()), "clip": 0.5}
    if spec.method == "adamw":
        feedback = laconic.EF14(_compressor(spec, spec.density) >> one_bit)
        schedule = None
        if spec.first:
            schedule = {
                0: laconic.EF14(_compressor(spec, 0.01) >> one_bit),
                round(spec.first * spec.steps): feedback,
            }
        betas = (spec.beta1, spec.beta2)
        return laconic.optim.CompressedAdamW(
            model.parameters(), spec.lr, feedback, betas, clip=0.5, density=schedule, **decay
        ), {}
    if spec.method in ("ef14", "ef21"):
        method = laconic.EF14 if spec.method == "ef14" else laconic.EF21
        return torch.optim.SGD(model.parameters(), spec.lr), {"feedback": method(laconic.TopK(spec.density))}
    momentum = 0.0 if spec.method == "ef14-sgd-0" else 0.9
    optimizer = torch.optim.SGD(model.parameters(), spec.lr, momentum=momentum, **decay)
    if spec.method == "sgd":
        return optimizer, {"feedback": laconic.DCGD(laconic.Identity()), "clip": 0.5}
    if spec.method in ("ef14-sgd", "ef14-sgd-0"):
        return optimizer, {"feedback": laconic.EF14(_compressor(spec, spec.density) >> one_bit), "clip": 0.5}
    if spec.method == "ef21-sgdm":
        optimizer = torch.optim.SGD(model.parameters(), spec.lr, **decay)
        compressor = _compressor(spec, spec.density) >> laconic.Cast(torch.bfloat16)
        return optimizer, {"feedback": laconic.EF21SGDM(compressor, eta=0.1), "clip": 0.5}
    raise ValueError(f"unknown method {spec.method!r}")


def _local_nodes(spec: Spec, model: nn.Module) -> LocalNodes:
    compressor = _compressor(spec, spec.density) >> laconic.BlockQuantizer(2)
    make = adamw(spec.lr, (spec.beta1, spec.beta2), spec.weight_decay)
    return LocalNodes(model, spec.nodes, laconic.EF14(compressor, decay=0.95), make, clip=0.5)


def _loss_with(loss: Callable[[nn.Module, Any], Any], batch: Any, model: nn.Module) -> Any:
    return loss(model, batch)


def run(spec: Spec, on_step: Callable[[int], None]) -> dict[str, Any]:
    """Train, and say how it went: losses, bits a parameter and step, seconds of processor time."""
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    task = TASKS[spec.task](spec)
    model = task.model
    nodes = _local_nodes(spec, model) if spec.method == "local" else None
    optimizer, settings = (None, {}) if nodes else make_optimizer(spec, model)
    optimizers = nodes.optimizers if nodes else [optimizer]
    curve: list[tuple[int, float]] = []
    begin = time.process_time()

    def set_rate(step: int) -> None:
        for each in optimizers:
            for group in each.param_groups:
                group["lr"] = learning_rate(spec, step)

    def after(step: int, loss: float) -> None:
        set_rate(step + 1)
        if (step + 1) % 250 == 0:
            curve.append((step + 1, task.validation()))
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        on_step(step)

    set_rate(0)
    if nodes:
        losses = []
        for step in range(spec.steps):
            batches = [task.data(step, node) for node in range(spec.nodes)]
            losses.append(nodes.step([partial(_loss_with, task.loss, batch) for batch in batches]))
            if (step + 1) % spec.every == 0:
                nodes.exchange()
            after(step, losses[-1])
        bits, last = nodes.bits, losses[-100:]
    else:
        result = train(
            model,
            optimizer,
            nodes=spec.nodes,
            data=task.data,
            loss=task.loss,
            steps=spec.steps,
            on_step=after,
            **settings,
        )
        bits, last = float(result.bits[-1]), result.losses[-100:].tolist()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if hasattr(optimizer, "close"):
        optimizer.close()
    return {
        "validation": task.validation(),
        "training": task.whole_training_loss() if spec.task == "digits" else sum(last) / len(last),
        "curve": curve,
        "bits": bits / parameters / spec.steps,
        "parameters": parameters,
        "seconds": time.process_time() - begin,
    }
