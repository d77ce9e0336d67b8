"""Tests of a compressor against what it declares, for those who write their own."""

from laconic.testing._check import check_compressor as check_compressor
from laconic.testing._report import CompressorError as CompressorError
from laconic.testing._report import Report as Report
from laconic.testing._report import Worst as Worst
