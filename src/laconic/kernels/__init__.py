"""Kernels: counter-based randomness, canonical sums, exact selection, rounding, bit packing, receiving.

They know tensors only: no compressor, no method, no process. ``reference`` defines each in plain PyTorch or
NumPy; ``cpu`` (numba) and ``gpu`` (Triton) hold faster forms, equal bit for bit, and the modules here check
arguments and dispatch to one of them.
"""

from laconic.kernels._compiling import compilation as compilation
from laconic.kernels._compiling import say_with as say_with
from laconic.kernels._dispatch import kernel_counts as kernel_counts
from laconic.kernels._selection_table import SelectionTable as SelectionTable
from laconic.kernels._warm import Arithmetic as Arithmetic
from laconic.kernels._warm import compiled_folder as compiled_folder
from laconic.kernels._warm import keeps_compiled as keeps_compiled
from laconic.kernels._warm import sharing_threads as sharing_threads
from laconic.kernels._warm import warm_up as warm_up
from laconic.kernels._warm import warm_up_adaptive as warm_up_adaptive
from laconic.kernels._warm import warm_up_norms as warm_up_norms
from laconic.kernels._warm import warm_up_optimizer as warm_up_optimizer
from laconic.kernels._warm import warm_up_packing as warm_up_packing
from laconic.kernels.blocks import dequantize_blocks as dequantize_blocks
from laconic.kernels.blocks import quantize_block_segments as quantize_block_segments
from laconic.kernels.blocks import quantize_blocks as quantize_blocks
from laconic.kernels.casting import cast_segments as cast_segments
from laconic.kernels.cpu.threads import get_threads as get_threads
from laconic.kernels.cpu.threads import set_threads as set_threads
from laconic.kernels.draws import chosen_segments as chosen_segments
from laconic.kernels.draws import gather_segments as gather_segments
from laconic.kernels.draws import permuted_segments as permuted_segments
from laconic.kernels.levels import Levels as Levels
from laconic.kernels.magnitudes import all_finite as all_finite
from laconic.kernels.magnitudes import largest_magnitude as largest_magnitude
from laconic.kernels.magnitudes import largest_magnitudes as largest_magnitudes
from laconic.kernels.optimizer import adamw_advance as adamw_advance
from laconic.kernels.optimizer import adamw_update as adamw_update
from laconic.kernels.optimizer import apply_steps as apply_steps
from laconic.kernels.optimizer import momentum_update as momentum_update
from laconic.kernels.optimizer import scale_segments as scale_segments
from laconic.kernels.philox import SHARED as SHARED
from laconic.kernels.philox import Purpose as Purpose
from laconic.kernels.philox import Stream as Stream
from laconic.kernels.reference.sums import canonical_prefix_sums as canonical_prefix_sums
from laconic.kernels.reference.sums import shifted as shifted
from laconic.kernels.rounding import round_segments as round_segments
from laconic.kernels.rounding import round_to_levels as round_to_levels
from laconic.kernels.rounding import round_to_signs as round_to_signs
from laconic.kernels.rounding import sign_segments as sign_segments
from laconic.kernels.scatter import scatter_add_ as scatter_add_
from laconic.kernels.segmented import SegmentedInput as SegmentedInput
from laconic.kernels.segments import add_segments as add_segments
from laconic.kernels.segments import copy_segments as copy_segments
from laconic.kernels.selection import Selected as Selected
from laconic.kernels.selection import select_segments as select_segments
from laconic.kernels.selection import top_k_positions as top_k_positions
from laconic.kernels.selection import top_k_segments as top_k_segments
from laconic.kernels.sums import canonical_sum as canonical_sum
from laconic.kernels.sums import mean_magnitude as mean_magnitude
from laconic.kernels.sums import mean_magnitudes as mean_magnitudes
from laconic.kernels.sums import norm as norm
from laconic.kernels.sums import norms as norms
from laconic.kernels.sums import squared_norm as squared_norm
from laconic.kernels.sums import squared_norms as squared_norms
from laconic.kernels.updates import AdamWUpdate as AdamWUpdate
