"""Laconic: compressed gradients with error feedback for PyTorch."""

from importlib import import_module
from types import ModuleType

from laconic import ddp as ddp
from laconic import optim as optim
from laconic.comm import Exchange as Exchange
from laconic.comm import ExchangeError as ExchangeError
from laconic.compressors import AdaptiveRandom as AdaptiveRandom
from laconic.compressors import BiasedRounding as BiasedRounding
from laconic.compressors import BlockQuantizer as BlockQuantizer
from laconic.compressors import BlockTopK as BlockTopK
from laconic.compressors import Cast as Cast
from laconic.compressors import ClippedExponent as ClippedExponent
from laconic.compressors import Compressor as Compressor
from laconic.compressors import Constants as Constants
from laconic.compressors import ExponentialDithering as ExponentialDithering
from laconic.compressors import Identity as Identity
from laconic.compressors import NaturalCompression as NaturalCompression
from laconic.compressors import NaturalDithering as NaturalDithering
from laconic.compressors import RandK as RandK
from laconic.compressors import RandomDithering as RandomDithering
from laconic.compressors import RandomSparsification as RandomSparsification
from laconic.compressors import ScaledSign as ScaledSign
from laconic.compressors import Sparsifier as Sparsifier
from laconic.compressors import Ternary as Ternary
from laconic.compressors import TopK as TopK
from laconic.compressors import UnbiasedRounding as UnbiasedRounding
from laconic.feedback import DCGD as DCGD
from laconic.feedback import EF14 as EF14
from laconic.feedback import EF21 as EF21
from laconic.feedback import EF21SGDM as EF21SGDM
from laconic.feedback import EF21Plus as EF21Plus
from laconic.layout import Layout as Layout
from laconic.layout import Segment as Segment
from laconic.messages import Message as Message
from laconic.wire import WireError as WireError
from laconic.wire import pack as pack
from laconic.wire import unpack as unpack

_LAZY = ("lab", "testing", "theory")


def __getattr__(name: str) -> ModuleType:
    """Import a subpackage with further dependencies at its first use."""
    if name in _LAZY:
        return import_module(f"laconic.{name}")
    raise AttributeError(f"module 'laconic' has no attribute {name!r}")


__version__ = "0.1.0"
