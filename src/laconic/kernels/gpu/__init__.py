"""The hot loops on a GPU, in Triton; every function equals its reference bit for bit.

Importing this package imports Triton, which PyTorch brings where it is built for GPUs; nothing else in
Laconic imports it before a tensor lies on such a device. All kernels are compiled without fused
multiply-add and divide with correct rounding. ``docs/gpu.md`` says what was tested, and how.
"""
# mypy: ignore-errors
# Triton's decorators are not typed.

from laconic.kernels.gpu.blocks import dequantize_blocks as dequantize_blocks
from laconic.kernels.gpu.blocks import quantize_blocks as quantize_blocks
from laconic.kernels.gpu.checksum import crc32_rows as crc32_rows
from laconic.kernels.gpu.codes import pack_codes as pack_codes
from laconic.kernels.gpu.optimizer import adamw_advance as adamw_advance
from laconic.kernels.gpu.optimizer import adamw_both as adamw_both
from laconic.kernels.gpu.optimizer import adamw_update as adamw_update
from laconic.kernels.gpu.optimizer import apply_steps as apply_steps
from laconic.kernels.gpu.optimizer import momentum_update as momentum_update
from laconic.kernels.gpu.optimizer import scale_segments as scale_segments
from laconic.kernels.gpu.philox import words as words
from laconic.kernels.gpu.receive import add_nodes as add_nodes
from laconic.kernels.gpu.receive import undo_nodes as undo_nodes
from laconic.kernels.gpu.rounding import largest_magnitude as largest_magnitude
from laconic.kernels.gpu.rounding import round_to_levels as round_to_levels
from laconic.kernels.gpu.rounding import round_to_signs as round_to_signs
from laconic.kernels.gpu.scatter import scatter_add_ as scatter_add_
from laconic.kernels.gpu.segment_sums import segment_sums as segment_sums
from laconic.kernels.gpu.segments import add_segments as add_segments
from laconic.kernels.gpu.segments import cast_segments as cast_segments
from laconic.kernels.gpu.segments import copy_segments as copy_segments
from laconic.kernels.gpu.segments import sign_segments as sign_segments
from laconic.kernels.gpu.selection import top_k_positions as top_k_positions
from laconic.kernels.gpu.selection import top_k_segments as top_k_segments
from laconic.kernels.gpu.sums import canonical_sum as canonical_sum
from laconic.kernels.gpu.sums import mean_magnitude as mean_magnitude
from laconic.kernels.gpu.sums import norm as norm
from laconic.kernels.gpu.sums import squared_norm as squared_norm
from laconic.kernels.gpu.wire_get import get_codes as get_codes
from laconic.kernels.gpu.wire_get import get_numbers as get_numbers
from laconic.kernels.gpu.wire_get import get_positions as get_positions
from laconic.kernels.gpu.wire_put import put_codes as put_codes
from laconic.kernels.gpu.wire_put import put_numbers as put_numbers
from laconic.kernels.gpu.wire_put import put_positions as put_positions
