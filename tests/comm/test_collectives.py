"""Messages of an all-gather: short ones to every rank directly, long ones around Gloo's ring."""

import pytest
import torch
import torch.distributed as dist
from processes import BARE, TORCHRUN, run_python, run_ranks

from laconic.comm._stats import Counter
from laconic.comm.transport.collectives import DIRECT_BYTES, Collectives

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
