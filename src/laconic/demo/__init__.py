"""``laconic demo``: training of a small transformer by several processes that exchange packed messages."""

from laconic.demo._launch import FAST as FAST
from laconic.demo._launch import SLOW as SLOW
from laconic.demo._launch import Results as Results
from laconic.demo._launch import run_all as run_all
from laconic.demo._methods import METHODS as METHODS
from laconic.demo._methods import Method as Method
from laconic.demo._report import Row as Row
from laconic.demo._report import make_rows as make_rows
from laconic.demo._report import verdict as verdict
from laconic.demo._worker import DemoSettings as DemoSettings
from laconic.demo._worker import Run as Run
