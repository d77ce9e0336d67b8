"""Error feedback: methods, and the senders and receivers that they are made of."""

from laconic.compressors import NotFiniteError as NotFiniteError
from laconic.compressors import deferred_checks as deferred_checks
from laconic.feedback._estimators import Estimator as Estimator
from laconic.feedback._estimators import Momentum as Momentum
from laconic.feedback._method import Feedback as Feedback
from laconic.feedback._methods import DCGD as DCGD
from laconic.feedback._methods import EF14 as EF14
from laconic.feedback._methods import EF21 as EF21
from laconic.feedback._methods import EF21SGDM as EF21SGDM
from laconic.feedback._methods import EF21Plus as EF21Plus
from laconic.feedback._names import METHODS as METHODS
from laconic.feedback._names import make_feedback as make_feedback
from laconic.feedback._protocol import Plan as Plan
from laconic.feedback._protocol import Receiver as Receiver
from laconic.feedback._protocol import Sender as Sender
from laconic.feedback._update_rules import PendingUpdate as PendingUpdate
from laconic.feedback._update_rules import RoundInputs as RoundInputs
