"""Messages as bytes: a small frame, and sections near the entropy bound.

The format is specified in docs/wire-format.md.
"""

from laconic.formats._cursor import WireError as WireError
from laconic.wire._device import rows_for as rows_for
from laconic.wire._frame import Flags as Flags
from laconic.wire._frame import Frame as Frame
from laconic.wire._frame import pack_non_finite as pack_non_finite
from laconic.wire._frame import read_frame as read_frame
from laconic.wire._frame import says_not_finite as says_not_finite
from laconic.wire._inspect import MessageReport as MessageReport
from laconic.wire._inspect import SegmentReport as SegmentReport
from laconic.wire._inspect import inspect_checkpoint as inspect_checkpoint
from laconic.wire._inspect import inspect_message as inspect_message
from laconic.wire._inspect import is_message as is_message
from laconic.wire._pack import pack as pack
from laconic.wire._pack import pack_into as pack_into
from laconic.wire._pack import packed_size as packed_size
from laconic.wire._rows import UnpackedRows as UnpackedRows
from laconic.wire._rows import pack_row as pack_row
from laconic.wire._rows import row_kernels as row_kernels
from laconic.wire._rows import unpack_rows as unpack_rows
from laconic.wire._unpack import unpack as unpack
