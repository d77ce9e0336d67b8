"""Message formats, known to both ends before there is data: columns, groups of segments, sizes."""

from laconic.formats._groups import GroupFormat as GroupFormat
from laconic.formats._groups import SegmentFormat as SegmentFormat
from laconic.formats._groups import group_formats as group_formats
from laconic.formats._kinds import DTYPES as DTYPES
from laconic.formats._kinds import Kind as Kind
from laconic.formats._messages import MessageFormat as MessageFormat
from laconic.kernels.tables import accumulation_dtype as accumulation_dtype
