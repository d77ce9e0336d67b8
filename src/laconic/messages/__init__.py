"""Messages as tensors: groups of columns, and the views of single segments."""

from laconic.formats import accumulation_dtype as accumulation_dtype
from laconic.messages._bits import Accounting as Accounting
from laconic.messages._choose import choose as choose
from laconic.messages._choose import spread as spread
from laconic.messages._group import Group as Group
from laconic.messages._message import Message as Message
from laconic.messages._nodes import GroupSum as GroupSum
from laconic.messages._nodes import add_group as add_group
from laconic.messages._nodes import add_nodes_ as add_nodes_
from laconic.messages._part import Part as Part
