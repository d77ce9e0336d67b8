"""Tests of a compressor against its declared constants, for authors of compressors."""

from laconic.testing._check import check_compressor as check_compressor
from laconic.testing._report import CompressorError as CompressorError
from laconic.testing._report import Report as Report
from laconic.testing._report import Worst as Worst
