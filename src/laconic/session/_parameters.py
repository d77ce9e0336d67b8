"""The trained parameters of a model by name: which ones count, which are exempt, and their layout."""

import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from laconic.comm import crc32_of
from laconic.layout import Layout

Exempt = Callable[[str, Tensor], bool]
"""Called with a parameter's name and the parameter; True where it is sent whole."""

SMALL = 512
"""Parameters with fewer numbers are sent whole: compressing them would save next to nothing."""


def vectors_and_small(name: str, parameter: Tensor) -> bool:  # noqa: ARG001
    """Biases, gains and whatever else has at most one dimension, and tensors of fewer than 512 numbers.

    They are some per mille of a model and sensitive: a bias that waits for its turn is a shift of every
    output until then.

    Example:
        >>> import torch
        >>> vectors_and_small("bias", torch.zeros(4096)), vectors_and_small("weight", torch.zeros(64, 64))
        (True, False)
    """
    return parameter.dim() <= 1 or parameter.numel() < SMALL


class TrainedParameters:
    """Parameters by name: which ones the DDP hook and the optimisers send, and which they refuse.

    Those that are frozen, of whatever type, and those without a number are left out.

    Args:
        named: names and parameters; ``torch.compile``'s additions to the names are removed.

    Raises:
        TypeError: for trained parameters that are complex, sparse, integers, or sharded over ranks.
        ValueError: where nothing is trained, two parameters have one name, or one has no values yet.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 3)
        >>> found = TrainedParameters(layer.named_parameters())
        >>> list(found.by_name), found.name_of[layer.bias]
        (['weight', 'bias'], 'bias')
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Check the parameters."""
        self.by_name: dict[str, Tensor] = {}
        self.name_of: dict[Tensor, str] = {}
        self._frozen: dict[str, Tensor] = {}
        for name, parameter in ((plain_name(name), parameter) for name, parameter in named):
            if not parameter.requires_grad:
                self._frozen[name] = parameter
                continue
            check_parameter(parameter, name)
            if parameter.numel() == 0 or parameter in self.name_of:
                continue
            if name in self.by_name:
                raise ValueError(
                    f"two parameters have the name {name!r}, as where one optimiser is given two models, and "
                    "memories are kept by name: put each model's name before it, as in [(f'decoder.{name}', "
                    "p) for name, p in decoder.named_parameters()]"
                )
            self.by_name[name] = parameter
            self.name_of[parameter] = name
        if not self.by_name:
            raise ValueError("no parameter requires a gradient; there is nothing to train")

    @property
    def frozen(self) -> dict[str, Tensor]:
        """Frozen parameters that lie whole on this rank, by name, of any dtype."""
        return {
            name: parameter
            for name, parameter in self._frozen.items()
            if not torch.nn.parameter.is_lazy(parameter)
            and not is_sharded(parameter)
            and parameter.layout == torch.strided
            and not parameter.is_meta
            and parameter.numel() > 0
        }

    def refuse_unfrozen(self) -> None:
        """Refuse to go on once a parameter is trained that was frozen when the ranks agreed.

        Raises:
            RuntimeError: naming the first.
        """
        # A list: a generator would be resumed for every parameter.
        if any([parameter.requires_grad for parameter in self._frozen.values()]):  # noqa: C419
            name = next(name for name, parameter in self._frozen.items() if parameter.requires_grad)
            raise RuntimeError(
                f"{name!r} was frozen when the ranks agreed on the parameters and requires a gradient now: "
                "DDP would not send its gradient, and the replicas would drift apart. Unfreeze first, then "
                "make DDP and CommState anew"
            )

    def names(self, parameters: Sequence[Tensor]) -> tuple[str, ...]:
        """The names of some parameters.

        Raises:
            RuntimeError: for one that is not among the trained ones.
        """
        try:
            return tuple([self.name_of[parameter] for parameter in parameters])
        except KeyError:
            unknown = next(p for p in parameters if p not in self.name_of)
            raise RuntimeError(
                f"there is a gradient of a parameter of shape {tuple(unknown.shape)} that was frozen, or not "
                "yet part of the model, when the ranks agreed on the parameters. Freeze, unfreeze and add "
                "parameters first, then make DDP and CommState, or the optimiser, anew"
            ) from None

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """Of each parameter, by name."""
        return {name: parameter.dtype for name, parameter in self.by_name.items()}

    @property
    def dtypes_in_main_memory(self) -> set[torch.dtype]:
        """Of the parameters on which compiled loops run."""
        return {parameter.dtype for parameter in self.by_name.values() if parameter.device.type == "cpu"}

    @property
    def device(self) -> torch.device | None:
        """Where all parameters lie; None: on several devices."""
        devices = {parameter.device for parameter in self.by_name.values()}
        return devices.pop() if len(devices) == 1 else None

    def layout(self, exempt: Exempt, exact: bool) -> Layout:
        """A segment for each parameter.

        Args:
            exempt: which are sent whole: in bfloat16, float64 ones exactly.
            exact: whether all of these are sent exactly.
        """
        chosen = [name for name, parameter in self.by_name.items() if exempt(name, parameter)]
        double = {name for name in chosen if self.by_name[name].dtype == torch.float64}
        whole = set(chosen) if exact else double
        return Layout.of(self.by_name, exact=whole, bfloat16=[name for name in chosen if name not in whole])

    def buckets(self, numel: int) -> list[list[Tensor]]:
        """The parameters in reverse order, cut into buckets of one dtype and device.

        Gradients mostly become ready in that order.

        Args:
            numel: a bucket is closed when it holds so many numbers or more.
        """
        full: list[list[Tensor]] = []
        open_: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for parameter in reversed(self.by_name.values()):
            key = parameter.dtype, parameter.device
            bucket = open_.setdefault(key, [])
            bucket.append(parameter)
            if sum(p.numel() for p in bucket) >= numel:
                full.append(open_.pop(key))
        return full + list(open_.values())

    def fingerprints(self) -> Tensor:
        """A checksum of each parameter's bits: int64 (parameters,) on the CPU."""
        return torch.tensor([crc32_of(parameter) for parameter in self.by_name.values()], device="cpu")


def check_parameter(parameter: Tensor, name: str) -> None:
    """Refuse a trained parameter that is not a whole, dense, real tensor with values.

    Raises:
        TypeError: for complex, sparse, integer and sharded parameters.
        ValueError: for one without values yet.
    """
    if torch.nn.parameter.is_lazy(parameter):
        raise ValueError(
            f"the parameter {name!r} has no shape yet, as those of lazy modules: run the model once on a "
            "batch first"
        )
    if is_sharded(parameter):
        raise TypeError(
            f"the parameter {name!r} belongs to a sharded model (fully_shard, FSDP or tensor parallelism), "
            "and laconic compresses what replicas of a whole model send each other. Use "
            "DistributedDataParallel with laconic.ddp, or a laconic.optim optimiser without either"
        )
    check_dense(parameter, f"the parameter {name!r}")
    if parameter.is_meta:
        raise ValueError(
            f"the parameter {name!r} is on the meta device and has no values: load the weights first"
        )


def is_sharded(parameter: Tensor) -> bool:
    """Whether it is a DTensor, or FSDP's flat parameter."""
    # Nobody has made one where its module has not been imported, which takes long.
    known = (("torch.distributed.tensor", "DTensor"), ("torch.distributed.fsdp", "FlatParameter"))
    kinds = [getattr(sys.modules[module], name) for module, name in known if module in sys.modules]
    return isinstance(parameter, tuple(kinds))


def check_dense(tensor: Tensor, what: str) -> None:
    """Refuse sparse, complex and integer tensors with TypeError."""
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{what} is sparse: build the embedding with sparse=False; compressing it is laconic's own work"
        )
    if not tensor.is_floating_point():
        raise TypeError(
            f"{what} is {tensor.dtype}: laconic compresses real floating-point numbers only; "
            "view_as_real() makes a complex parameter real"
        )


def plain_name(name: str) -> str:
    """The name without what ``torch.compile`` puts into it, so that a checkpoint fits with and without it.

    Example:
        >>> plain_name("_orig_mod.layer.weight")
        'layer.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
