"""Parts shared by the DDP hook and the optimisers: handshake, exemptions, clipping, schedules, state."""

from laconic.session._clip import clip_factor as clip_factor
from laconic.session._clip import global_norm as global_norm
from laconic.session._clip import squared_norms_of as squared_norms_of
from laconic.session._parameters import Exempt as Exempt
from laconic.session._parameters import TrainedParameters as TrainedParameters
from laconic.session._parameters import check_dense as check_dense
from laconic.session._parameters import plain_name as plain_name
from laconic.session._parameters import vectors_and_small as vectors_and_small
from laconic.session._schedule import Density as Density
from laconic.session._schedule import Schedule as Schedule
from laconic.session._schedule import density_warm_up as density_warm_up
from laconic.session._schedule import make_schedule as make_schedule
from laconic.session._schedule import with_density as with_density
from laconic.session._session import Session as Session
from laconic.session._settings import group_settings as group_settings
