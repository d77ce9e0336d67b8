"""The hot loops under the mathematics: counter-based randomness, canonical sums, exact selection.

This room knows tensors only: no compressor, no method, no process. What stands here in plain PyTorch
is the definition; a faster form must equal it bit for bit.
"""

from laconic.kernels.blocks import dequantize_blocks as dequantize_blocks
from laconic.kernels.blocks import quantize_blocks as quantize_blocks
from laconic.kernels.philox import SHARED as SHARED
from laconic.kernels.philox import Purpose as Purpose
from laconic.kernels.philox import Stream as Stream
from laconic.kernels.scatter import scatter_add_ as scatter_add_
from laconic.kernels.selection import top_k_positions as top_k_positions
from laconic.kernels.sums import canonical_prefix_sums as canonical_prefix_sums
from laconic.kernels.sums import canonical_sum as canonical_sum
from laconic.kernels.sums import norm as norm
from laconic.kernels.sums import shifted as shifted
from laconic.kernels.sums import squared_norm as squared_norm
