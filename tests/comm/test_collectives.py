"""Messages of an all-gather: short ones to every rank directly, long ones around Gloo's ring."""

import pytest
import torch
import torch.distributed as dist
from processes import BARE, TORCHRUN, run_python, run_ranks

import laconic
from laconic.comm import ExchangeError
from laconic.comm._stats import Counter
from laconic.comm.transport.collectives import DIRECT_BYTES, Collectives
from laconic.comm.transport.staging import NoStaging

RANKS = 3


def gathered(rank, size):
    counter, called = Counter(), []
    collectives = Collectives(None, 60.0, counter)
    for name in ("all_gather", "all_to_all_single"):
        original = getattr(dist, name)

        def call(*arguments, name=name, original=original, **settings):
            called.append(name)
            return original(*arguments, **settings)

        setattr(dist, name, call)
    rows = collectives.all_gather(torch.arange(size, dtype=torch.int32) * (rank + 1), "numbers")
    collectives.close()
    return called, [row.tolist() for row in rows], counter.bytes_sent, counter.bytes_received


@pytest.mark.parametrize("direct", [True, False])
def test_short_messages_go_directly_and_long_ones_around_the_ring(direct, tmp_path):
    size = DIRECT_BYTES // 4 - 2 if direct else DIRECT_BYTES // 4 - 1  # 8 bytes stand behind the numbers
    expected = [[factor * i for i in range(size)] for factor in (1, 2, 3)]
    sent = (RANKS - 1) * (4 * size + 8)
    for called, rows, *counted in run_ranks(gathered, RANKS, tmp_path, size):
        assert called == ["all_to_all_single" if direct else "all_gather"]
        assert rows == expected
        assert counted == [sent, sent]


class Full(NoStaging):
    """A device without room, once it is full."""

    full = False

    def to_device(self, host):
        if self.full:
            raise RuntimeError("out of memory")
        return host


def without_room(rank):
    staging, found = Full(), []
    collectives = Collectives(None, 5.0, Counter(), staging)
    staging.full = True
    numbers = torch.arange(4)
    for collect in (
        lambda: collectives.all_gather(numbers, "numbers"),
        lambda: collectives.all_to_all([numbers] * 2, [4, 4], "pieces"),
    ):
        try:
            collect()
        except RuntimeError as error:
            found.append((isinstance(error, ExchangeError), str(error)))
    return found


def test_what_fails_on_this_rank_before_a_collective_is_not_laid_on_another(tmp_path):
    assert run_ranks(without_room, 2, tmp_path) == [[(False, "out of memory")] * 2] * 2


ALONE = """
import warnings
import laconic, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    laconic.Exchange(laconic.Layout.of({"x": (8,)}), laconic.EF14(laconic.TopK(1))).close()
print(*(str(each.message) for each in caught), flush=True)
"""


def test_processes_of_torchrun_without_a_process_group_are_warned(tmp_path):
    (tmp_path / "alone.py").write_text(ALONE)
    printed = run_python(*TORCHRUN, tmp_path / "alone.py", env=BARE)
    assert printed.count("although torchrun started 2: call torch.distributed.init_process_group") == 2


def among_groups(rank):
    first, second = dist.new_group([0, 1]), dist.new_group([1, 2])  # rank 1 knows one group more
    found = []
    for ranks, group in (((0, 1), first), ((1, 2), second), ((0, 1), first)):
        if rank not in ranks:
            continue
        layout = laconic.Layout.of({"x": (4,)})
        exchange = laconic.Exchange(layout, laconic.EF14(laconic.TopK(4)), group, timeout_s=30)
        tensors = {"x": torch.arange(4.0) + rank}
        exchange.reduce_(tensors)
        found.append((ranks, tensors["x"].tolist()))
        exchange.close()
    return found


def test_ranks_that_know_unlike_numbers_of_groups_make_one(tmp_path):
    found = run_ranks(among_groups, 3, tmp_path)
    low, high = [0.5, 1.5, 2.5, 3.5], [1.5, 2.5, 3.5, 4.5]
    assert found[0] == [((0, 1), low)] * 2
    assert found[1] == [((0, 1), low), ((1, 2), high), ((0, 1), low)]
    assert found[2] == [((1, 2), high)]


def construct_alone(rank):
    if rank == 0:
        with pytest.raises(ExchangeError, match=r"waited for the ranks \[0, 1\] to make a process group"):
            Collectives(None, 2.0, Counter())
    dist.get_rank()


def test_a_rank_that_does_not_construct_is_named(tmp_path):
    run_ranks(construct_alone, 2, tmp_path)
