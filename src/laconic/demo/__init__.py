"""``laconic demo``: training of a small transformer by several processes that exchange packed messages."""

from laconic.demo._launch import run_all as run_all
from laconic.demo._methods import METHODS as METHODS
from laconic.demo._methods import Method as Method
from laconic.demo._report import LINKS as LINKS
from laconic.demo._report import Row as Row
from laconic.demo._report import make_row as make_row
from laconic.demo._report import verdict as verdict
from laconic.demo._worker import DemoSettings as DemoSettings
from laconic.demo._worker import Run as Run
