"""How ``checkpoint_v1.pt`` was made, by the library's last version whose exchange saved version 1.

Run as ``python tests/comm/make_checkpoint_v1.py tests/comm/checkpoint_v1.pt`` with that version; the file is
never made anew.
"""

import sys

import torch

import laconic
from laconic.comm import Exchange

SHAPES = {"a": (4, 5), "b": (7,), "c": (30,), "d": (3,)}
BEFORE, AFTER = 4, 2
METHODS = {
    "ef14": laconic.EF14(laconic.TopK(0.3) >> laconic.RandomDithering(8, 2)),
    "ef21": laconic.EF21(laconic.TopK(0.1)),
    "ef21-random": laconic.EF21(laconic.RandK(3).contractive(), init="bfloat16"),
    "ef21+": laconic.EF21Plus(laconic.TopK(0.1)),
    "ef21-sgdm": laconic.EF21SGDM(laconic.TopK(0.1) >> laconic.NaturalCompression(), eta=0.2),
}


def layout():
    return laconic.Layout.of(SHAPES, exact=["d"])


def gradient(round_):
    """Small integers over 8: the same on every machine."""
    place = torch.arange(sum(torch.Size(shape).numel() for shape in SHAPES.values()))
    return ((place * 37 + round_ * 101) % 61 - 30).to(torch.float32) / 8


def walk(exchange, rounds):
    """The estimates of these rounds: (rounds, d)."""
    found = []
    for round_ in rounds:
        numbers = gradient(round_).split([torch.Size(shape).numel() for shape in SHAPES.values()])
        tensors = {n: x.view(s).clone() for (n, s), x in zip(SHAPES.items(), numbers, strict=True)}
        assert exchange.reduce_(tensors)
        found.append(torch.cat([tensor.reshape(-1) for tensor in tensors.values()]))
    return torch.stack(found)


def main(path):
    saved = {}
    for name, method in METHODS.items():
        exchange = Exchange(layout(), method, seed=9)
        walk(exchange, range(BEFORE))
        state = exchange.state_dict()
        saved[name] = {"state": state, "after": walk(exchange, range(BEFORE, BEFORE + AFTER))}
        exchange.close()
    exchange = Exchange(layout(), METHODS["ef21"], seed=9)
    bad = {name: torch.full(shape, torch.inf) for name, shape in SHAPES.items()}
    assert not exchange.reduce_(bad)
    saved["before the first round"] = {"state": exchange.state_dict(), "after": walk(exchange, range(AFTER))}
    exchange.close()
    torch.save(saved, path)


if __name__ == "__main__":
    main(sys.argv[1])
