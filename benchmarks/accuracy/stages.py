"""Runs of the accuracy study, in the order in which they are made."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps


@dataclass(frozen=True)
class Spec:
    """One training run.

    Args:
        stage: of the study; not part of what is computed.
        method: "dense" (AdamW on the mean gradient), "sgd" (the same with SGD, momentum 0.9), "adamw"
            (CompressedAdamW), "ef14-sgd" or "ef14-sgd-0" (EF14 on gradients, SGD behind it with momentum 0.9
            or without), "ef21-sgdm" (on gradients, SGD behind it without momentum), "local" (LocalSteps'
            rule around AdamW), "ef14" or "ef21" (Top-k of gradients in float32, SGD behind it without
            momentum).
        lr: the peak learning rate.
        seed: of first weights and batches.
        steps: how many.
        nodes: n.
        batch: sequences or images a node and step; 0: all images of the node.
        density: share of the coordinates that are kept.
        first: the share of the steps in which 1 % is kept, before ``density``.
        selection: "chunks" of 4,096 or "segments".
        beta1, beta2, weight_decay: of AdamW.
        every: local steps to an exchange, of "local".
        split: "same", or "directories": each node sees other files.
        width: of the transformer, which has two layers: 160 makes 0.66 million parameters; of the perceptron.
        task: "text" or "digits".
    """

    stage: int
    method: str
    lr: float
    seed: int = 0
    steps: int = 3000
    nodes: int = 4
    batch: int = 4
    density: float = 0.01
    first: float = 0.0
    selection: str = "chunks"
    beta1: float = 0.0
    beta2: float = 0.99
    weight_decay: float = 0.0
    every: int = 1
    split: str = "same"
    width: int = 160
    task: str = "text"

    @property
    def key(self) -> str:
        """A name for the file, from the settings that are not the defaults: new settings rename no file."""
        defaults = asdict(Spec(0, "", 0.0))
        settings = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        settings.pop("stage", None)
        return f"{self.method}-{sha256(dumps(settings, sort_keys=True).encode()).hexdigest()[:12]}"


DENSE_GRID = (0.001, 0.002, 0.004, 0.008)
DENSE = {"method": "dense", "beta1": 0.7}
LR, LONG_LR = 0.004, 0.002
"""Of dense AdamW, the best of the grids in runs of 1,000 and of 3,000 steps, which are part of the study."""
INNER = {"beta1": 0.9, "beta2": 0.95, "density": 0.03}
"""Of local steps: without momentum inside they end far behind."""
SHARE = 359
"""Images of a node, of four."""
DIGITS = {"task": "digits", "steps": 1000, "batch": 16, "width": 256}


def all_specs() -> Iterator[Spec]:
    """Every run, the most informative first: learning rates, then all stages seed by seed."""
    for lr in DENSE_GRID:
        yield Spec(1, lr=lr, steps=1000, **DENSE)
    for lr in (0.002, 0.004, 0.008, 0.016):
        yield Spec(1, "adamw", lr, steps=1000)
    for lr in (0.03, 0.1, 0.3):
        yield Spec(1, "ef14-sgd", lr, steps=1000)
    for lr in (0.1, 0.3, 1.0, 3.0):
        yield Spec(1, "ef21-sgdm", lr, steps=1000)
    for lr in (0.001, 0.002, 0.004):
        yield Spec(1, lr=lr, **DENSE)
        yield Spec(1, "adamw", 2 * lr)
    yield Spec(1, "dense", LONG_LR, beta1=0.9)
    yield Spec(3, "adamw", 2 * LONG_LR, beta2=0.95)
    for seed in range(5):
        yield Spec(1, lr=LONG_LR, seed=seed, **DENSE)
        yield Spec(1, "adamw", 2 * LONG_LR, seed)
    for seed in range(5):
        yield from _text(seed)
        yield from _digits(seed)
    # Behind by far after 1,000 steps: the least that is to be learnt.
    for lr in (0.1, 0.3, 1.0, 3.0):
        yield Spec(1, "sgd", lr, steps=1000)
        yield Spec(1, "ef14-sgd-0", lr, steps=1000)
    for lr in (10.0, 30.0):
        yield Spec(1, "ef14-sgd-0", lr, steps=1000)
    for seed in range(3):
        yield Spec(1, "sgd", 1.0, seed)
        yield Spec(1, "ef14-sgd-0", 10.0, seed)
    for seed in range(5):
        yield Spec(1, "ef14-sgd", 0.1, seed)
        yield Spec(1, "ef21-sgdm", 1.0, seed)


def _text(seed: int) -> Iterator[Spec]:
    if seed < 3:
        yield Spec(3, lr=LR, seed=seed, steps=1000, **DENSE)
        yield Spec(3, "adamw", 2 * LR, seed, 1000)
        yield Spec(3, "adamw", 2 * LR, seed, 1000, selection="segments")
        for beta2 in (0.95, 0.999):
            yield Spec(3, "adamw", 2 * LR, seed, 1000, beta2=beta2)
    if seed < 2:
        for every in (4, 16):
            for lr in (LR, 2 * LR):
                yield Spec(5, "local", lr, seed, 1000, every=every, **INNER)
        for nodes in (2, 8, 16):
            yield Spec(2, lr=LR, seed=seed, steps=1000, nodes=nodes, batch=16 // nodes, **DENSE)
            for factor in (0.5, 1.0, 2.0):
                yield Spec(2, "adamw", factor * nodes**0.5 * LR, seed, 1000, nodes, 16 // nodes)
    if seed < 3:
        yield Spec(4, lr=LONG_LR, seed=seed, split="directories", **DENSE)
        yield Spec(4, "adamw", 2 * LONG_LR, seed, split="directories")
        for density in (0.0025, 0.001):
            for first in (0.0, 0.2):
                yield Spec(3, "adamw", 2 * LONG_LR, seed, density=density, first=first)
        for decay in (0.01, 0.1):
            yield Spec(3, lr=LR, seed=seed, steps=1000, weight_decay=decay, **DENSE)
            yield Spec(3, "adamw", 2 * LR, seed, 1000, weight_decay=decay)
    if seed < 2:
        for every in (4, 16):
            yield Spec(5, "local", 2 * LONG_LR, seed, every=every, **INNER)


def _digits(seed: int) -> Iterator[Spec]:
    for lr in (0.0005, 0.001, 0.002, 0.004):
        yield Spec(6, lr=lr, seed=seed, **DENSE, **DIGITS)
    for lr in (0.001, 0.002, 0.004, 0.008):
        yield Spec(6, "adamw", lr, seed, **DIGITS)
    for lr in (0.03, 0.1, 0.3):
        yield Spec(6, "ef14-sgd", lr, seed, **DIGITS)
    for lr in (0.3, 1.0, 3.0):
        yield Spec(6, "ef21-sgdm", lr, seed, **DIGITS)
    if seed < 3:
        for batch in (4, 16, 64, 256, 0):
            for method in ("ef14", "ef21"):
                for lr in (0.1, 0.3, 1.0, 3.0):
                    yield Spec(7, method, lr, seed, density=0.01, **{**DIGITS, "batch": batch})
