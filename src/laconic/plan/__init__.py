"""``laconic plan``: predicted step times of dense and compressed averaging, from a short probe."""

from laconic.plan._predict import Compute as Compute
from laconic.plan._predict import LinkCosts as LinkCosts
from laconic.plan._predict import Method as Method
from laconic.plan._predict import Prediction as Prediction
from laconic.plan._predict import advice as advice
from laconic.plan._predict import choose as choose
from laconic.plan._predict import predict as predict
from laconic.plan._probe import measure_compute as measure_compute
from laconic.plan._probe import measure_link as measure_link
from laconic.plan._probe import measure_methods as measure_methods
from laconic.plan._validate import compare as compare
from laconic.plan._validate import read_rows as read_rows
from laconic.plan._validate import validate as validate
from laconic.plan._workload import Workload as Workload
from laconic.plan._workload import load_workload as load_workload
from laconic.plan._workload import workload_of_size as workload_of_size
