"""What lies where in a state dict."""


def segments_of(state, rank=None):
    """The memories of a rank in an exchange's state, by segment; by default of its only rank."""
    if rank is None:
        (found,) = state["ranks"].values()
        return found
    return state["ranks"][str(rank)]


def own_of(state, rank=0):
    """The state of an optimiser's parameters on a rank, by number."""
    return {number: by_rank[f"rank{rank}"] for number, by_rank in state["state"].items()}
