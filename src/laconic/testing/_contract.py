"""Interface checks for Compressor and Message."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from laconic.compressors import Compressor
from laconic.formats import group_formats
from laconic.kernels import Stream
from laconic.messages import Message, accumulation_dtype
from laconic.testing._report import CompressorError, name_of
from laconic.wire import pack, unpack

_ROWS = 6
_CHOSEN = (
    "Gaussian",
    "zeros",
    "ties",
    "1 beside the smallest",
    "Gaussian, half zeros",
    "1, 2, ..., d",
    "ones",
    "a negative spike in the middle",
    "3/2",
)


class Contract:
    """The promises to one compressor on vectors of one length and dtype.

    Args:
        compressor: what is checked.
        found: named vectors, (d,) each.
        seed: of the draws.
    """

    def __init__(self, compressor: Compressor, found: dict[str, Tensor], seed: int) -> None:
        self.compressor = compressor
        names = [name for name in _CHOSEN if name in found] or list(found)
        self.names = [names[j % len(names)] for j in range(_ROWS)]
        self.rows = torch.stack([found[name] for name in self.names])
        self.d = self.rows.shape[-1]
        self.nodes = torch.arange(_ROWS, device="cpu")
        self.stream = Stream(seed=seed, round=3, node=self.nodes, segment=1)

    def require(self, kept: bool, promise: str, detail: str = "") -> None:
        """Refuse unless the promise is kept."""
        if not kept:
            dtype = str(self.rows.dtype).removeprefix("torch.")
            detail = f": {detail}" if detail else ""
            raise CompressorError(
                f"{name_of(self.compressor)} breaks: {promise} (d = {self.d}, {dtype}){detail}"
            )

    def equal(self, one: Tensor, other: Tensor, promise: str) -> None:
        """Refuse unless two results are the same numbers."""
        if one.shape != other.shape:
            self.require(False, promise, f"shapes {tuple(one.shape)} and {tuple(other.shape)}")
        differ = (one != other).flatten()
        if bool(differ.any()):
            where = int(differ.to(torch.int8).argmax())
            a, b = float(one.flatten()[where]), float(other.flatten()[where])
            self.require(False, promise, f"{a:.9g} against {b:.9g} in {int(differ.sum())} places")

    def check(self) -> None:
        """All of them."""
        x = self.rows.clone()
        message = self.compressor.compress(x, self.stream)
        self.equal(x, self.rows, "compress leaves x as it was")
        self._check_message(message)
        dense = message.dense()
        x.fill_(17.0)
        self.equal(message.dense(), dense, "the message does not change when x does: it must not share x")
        self._check_rows(dense)
        self._check_adding(message, dense)
        self._check_bytes(message)

    def _check_bytes(self, message: Message) -> None:
        (group,) = message.groups
        (part,) = group.parts()
        (structure,) = group_formats([self.compressor.structure(self.d, self.rows.dtype)])
        self.require(
            structure == group.format, "structure() is that of the messages", f"{structure}, {group.format}"
        )
        flat = self.rows.reshape(-1, self.d)
        rows = self.compressor.compress(
            flat, Stream(self.stream.seed, 3, torch.arange(len(flat), device="cpu"), 1)
        )
        for one in rows.unbind()[:3]:
            packed = pack(one)
            self.require(packed.numel() == one.nbytes, "nbytes is what pack() makes")
            self.equal(unpack(packed).dense(), one.dense(), "unpack(pack(message)) is the message")
        if part.seeded and part.positions is not None and part.k < self.d:
            elsewhere = self.compressor.compress(self.rows.flip(-1) + 1, self.stream).parts[0].positions
            assert elsewhere is not None
            self.equal(elsewhere, part.positions, "seeded positions depend on the draws alone, not on x")

    def _check_message(self, message: Message) -> None:
        wide = accumulation_dtype(self.rows.dtype)
        dense = message.dense()
        self.require(
            dense.shape == self.rows.shape,
            "dense() has the shape of x",
            f"{tuple(dense.shape)} for {tuple(self.rows.shape)}",
        )
        self.require(
            torch.promote_types(dense.dtype, wide) == wide,
            "dense() has the accumulation dtype",
            f"{dense.dtype} is wider than {wide}",
        )
        self.require(bool(torch.isfinite(dense).all()), "C(x) is finite")
        zero = self.rows == 0
        if self.compressor.keeps_zeros:
            lost = dense[zero].count_nonzero()
            self.require(not lost, "keeps_zeros: coordinates that are 0 stay 0", f"{int(lost)} do not")
        empty = zero.all(dim=-1)
        self.require(not dense[empty].count_nonzero(), "C(0) = 0")
        bits = message.bits("wire")
        self.require(bits.shape == self.rows.shape[:-1], "one size a row")
        self.require(message.nbytes == int(bits.sum()) // 8, "nbytes is the sum of the rows' bits / 8")
        for part in message.parts:
            if part.positions is None:
                self.require(part.k == part.d, "a part without positions keeps all", f"k = {part.k}")
                continue
            used = part.k if part.count is None else part.count
            place = torch.arange(part.k, device="cpu")
            inside = (part.positions >= 0) & (part.positions < part.d)
            filler = part.positions == part.d
            self.require(
                bool(torch.where(place < used, inside, filler).all()),
                "positions lie in [0, d)",
                f"{int(part.positions.min())} to {int(part.positions.max())}",
            )
            rising = part.positions.diff(dim=-1) > 0
            self.require(
                bool((rising | (place[1:] >= used)).all()), "positions ascend, each once", "some do not"
            )

    def _check_rows(self, dense: Tensor) -> None:
        compress = self.compressor.compress
        again = compress(self.rows.clone(), self.stream).dense()
        self.equal(again, dense, "the same draws give the same message: no state is kept between calls")
        turned = torch.arange(_ROWS, device="cpu").flip(0)
        strided = self.rows[turned].t().contiguous().t()
        permuted = compress(strided, Stream(self.stream.seed, 3, self.nodes[turned], 1)).dense()
        self.equal(permuted, dense[turned], "each row of a batch is compressed on its own: in another order")
        one = _ROWS - 1
        alone = compress(self.rows[one].clone(), Stream(self.stream.seed, 3, one, 1)).dense()
        self.equal(alone, dense[one], "each row of a batch is compressed on its own: a row alone")
        shape = (1, 2, _ROWS // 2)
        stream = Stream(self.stream.seed, 3, self.nodes.reshape(shape[1:]), 1)
        folded = compress(self.rows.reshape(*shape, self.d), stream).dense()
        same = dense.reshape(*shape, self.d)
        self.equal(folded, same, "each row of a batch is compressed on its own: three leading dimensions")

    def _check_adding(self, message: Message, dense: Tensor) -> None:
        for weight in (1.0, 0.3):
            out = torch.linspace(-1, 1, dense.numel(), dtype=dense.dtype, device="cpu").reshape(dense.shape)
            expected = out + weight * dense
            message.add_to(out, weight)
            self.equal(out, expected, f"add_to(out, {weight}) is out + {weight} * dense()")
        for j, single in enumerate(message.unbind()):
            self.equal(single.dense(), dense[j], "unbind() gives the rows")


def check_randomness(contract: Contract, x: Tensor, lossless: bool) -> None:
    """Where draws come from: from the generator or the stream alone, and every place has its own.

    Args:
        contract: what refuses.
        x: (d,), a vector without symmetries.
        lossless: whether the constants say that draws do not matter at this d.
    """
    compressor, batch = contract.compressor, x.expand(64, -1).contiguous()
    require, equal = contract.require, contract.equal

    def by_generator(seed: int) -> Tensor:
        return compressor.compress(batch, torch.Generator().manual_seed(seed)).dense()

    first = by_generator(1)
    equal(by_generator(1), first, "the same generator seed gives the same message")
    _check_global(contract, lambda: by_generator(1), first)
    if not compressor.random:
        equal(by_generator(2), first, "random = False: another generator gives the same message")
        equal(compressor.compress(batch).dense(), first, "random = False: no generator is needed")
        return
    refused = False
    try:
        compressor.compress(batch)
    except ValueError:
        refused = True
    require(refused, "random = True: compress without a generator raises ValueError")
    if lossless:
        return

    def by_place(seed: int | Tensor, round_: int = 0, node: int | Tensor = 0, segment: int = 0) -> Tensor:
        return compressor.compress(batch, Stream(seed, round_, node, segment)).dense()

    many = torch.arange(64, device="cpu")
    place = by_place(many)
    differs = "random = True: another {} gives other draws"
    require(not torch.equal(by_generator(2), first), differs.format("generator seed"))
    require(bool((place != place[0]).any()), differs.format("seed"))
    require(not torch.equal(by_place(many, round_=1), place), differs.format("round"))
    require(not torch.equal(by_place(many, segment=1), place), differs.format("segment"))
    nodes = by_place(7, node=many)
    alike = bool((nodes == nodes[0]).all())
    if _shared(compressor):
        return
    require(not alike, differs.format("node"), "64 nodes draw alike; a compressor that shares says shared")
    require(bool((first != first[0]).any()), differs.format("row of a batch"), "64 equal rows came out equal")


def _shared(compressor: Compressor) -> bool:
    """Whether a compressor, or one inside it, says that all nodes draw alike."""
    if getattr(compressor, "shared", False) is True:
        return True
    inside = vars(compressor).values() if hasattr(compressor, "__dict__") else ()
    return any(_shared(value) for value in inside if isinstance(value, Compressor))


def _check_global(contract: Contract, run: Callable[[], Tensor], expected: Tensor) -> None:
    """That nothing reads or moves the random states of torch, numpy and Python."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            states = _global_states()
            contract.equal(run(), expected, "draws come from the generator, not from a global random state")
            moved = [name for name, state in _global_states().items() if state != states[name]]
            contract.require(
                not moved, "the global random states stay as they are", f"that of {', '.join(moved)} moved"
            )
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _global_states() -> dict[str, bytes]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr((kind, rest)).encode() + np.asarray(keys).tobytes(),
        "Python": repr(random.getstate()).encode(),
    }
