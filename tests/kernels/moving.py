"""Selection in flat vectors that moves the memory, for tests."""

from laconic.kernels import select_segments
from laconic.kernels.tables import Vectors


def move_top_k_(memory, cuts, target=None, salt=0):
    """``h <- h + C(g - h)`` towards a target, or ``e <- e - C(e)`` without one."""
    x = None if target is None else Vectors.flat(target, cuts.starts)
    move = "drain" if target is None else "track"
    return select_segments(x, Vectors.flat(memory, cuts.starts), cuts, salt=salt, move=move)
