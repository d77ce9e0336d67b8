"""What is kept: stateless maps from a tensor to a message, with the constants that the theory needs."""

from laconic.compressors._base import Compressor as Compressor
from laconic.compressors._base import Scaled as Scaled
from laconic.compressors._block_quantizer import BlockQuantizer as BlockQuantizer
from laconic.compressors._block_top_k import BlockTopK as BlockTopK
from laconic.compressors._chain import Chain as Chain
from laconic.compressors._clipped import ClippedExponent as ClippedExponent
from laconic.compressors._constants import Constants as Constants
from laconic.compressors._dithering import ExponentialDithering as ExponentialDithering
from laconic.compressors._dithering import NaturalDithering as NaturalDithering
from laconic.compressors._dithering import RandomDithering as RandomDithering
from laconic.compressors._dithering import ScaledSign as ScaledSign
from laconic.compressors._dithering import Ternary as Ternary
from laconic.compressors._names import NAMES as NAMES
from laconic.compressors._names import parse_compressor as parse_compressor
from laconic.compressors._rounding import BiasedRounding as BiasedRounding
from laconic.compressors._rounding import Cast as Cast
from laconic.compressors._rounding import NaturalCompression as NaturalCompression
from laconic.compressors._rounding import UnbiasedRounding as UnbiasedRounding
from laconic.compressors._rules import for_rule as for_rule
from laconic.compressors._sparsifier import Sparsifier as Sparsifier
from laconic.compressors._sparsify import AdaptiveRandom as AdaptiveRandom
from laconic.compressors._sparsify import Identity as Identity
from laconic.compressors._sparsify import RandK as RandK
from laconic.compressors._sparsify import RandomSparsification as RandomSparsification
from laconic.compressors._sparsify import TopK as TopK
