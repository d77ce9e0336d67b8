"""The senders and the receiver of all ranks in one process; frames go from hand to hand in main memory."""

import torch

from laconic.comm._stats import Counter
from laconic.comm.topologies import BucketContext
from laconic.comm.topologies._frames import FrameReceiver, FrameSender
from laconic.wire import row_kernels


class Alone:
    """The rank and the number of ranks, without collectives."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Ends:
    """What n ranks hold of one bucket."""

    def __init__(self, layout, feedback, device, ranks=2, dtype=torch.float32):
        self.device, self.ranks = torch.device(device), ranks
        like = torch.empty(0, dtype=dtype, device=device)
        contexts = [
            BucketContext(layout, feedback, like, 0, Alone(rank, ranks), Counter()) for rank in range(ranks)
        ]
        self.senders = [FrameSender(context) for context in contexts]
        self.receivers = [FrameReceiver(context, ranks) for context in contexts]

    def stage(self, sources, rank):
        """Frames, the estimate at one rank, and whether the step stands there."""
        staged = [
            sender.stage(source.to(self.device)) for sender, source in zip(self.senders, sources, strict=True)
        ]
        frames = [frame.clone() for frame, _ in staged]
        out = torch.empty(sources[0].shape, dtype=sources[0].dtype, device=self.device)
        known = {} if staged[rank][1] is None else {rank: staged[rank][1]}
        return frames, out, self.receivers[rank].stage(frames, out, 1.0, known)

    def stage_rows(self, sources, rank, change=lambda rows: None):
        """As :meth:`stage`, with frames that stay on the device; ``change`` may do something to them."""
        expected = self.senders[0].format
        kernels = row_kernels(expected, torch.empty(0, device=self.device))
        sent = [
            sender.stage_row(kernels, source.to(self.device))
            for sender, source in zip(self.senders, sources, strict=True)
        ]
        # As in a collective, something else stands behind each row.
        rows = torch.cat(
            [torch.stack(sent), torch.ones(self.ranks, 2, dtype=torch.int32, device=self.device)], 1
        )
        rows = rows[:, :-2]
        change(rows)
        out = torch.empty(sources[0].shape, dtype=sources[0].dtype, device=self.device)
        seen = self.receivers[rank].unpack_rows(kernels, rows).cpu()
        return rows, out, self.receivers[rank].stage_rows(seen, out)

    def commit(self, rank):
        """Let the memories move on."""
        for sender in self.senders:
            sender.commit()
        self.receivers[rank].receiver.commit()

    def roll_back(self, rank):
        """Forget the round."""
        for sender in self.senders:
            sender.roll_back()
        self.receivers[rank].receiver.roll_back()

    def states(self, rank):
        """All memories, in main memory."""
        ends = [*(sender.sender for sender in self.senders), self.receivers[rank].receiver]
        return [
            value.cpu()
            for end in ends
            for value in end.state_dict().values()
            if isinstance(value, torch.Tensor)
        ]

    def timed_step(self, source, out, clock):
        """Seconds of rank 0's sender and receiver, with rank 0's own frame from all others."""
        times = [clock()]
        frame, message = self.senders[0].stage(source)
        times.append(clock())
        frames = [frame, *(frame.clone() for _ in range(self.ranks - 1))]
        times.append(clock())
        if not self.receivers[0].stage(frames, out, 1.0, {0: message}):
            raise RuntimeError("the numbers of a benchmark are not finite")
        times.append(clock())
        self.senders[0].commit()
        self.receivers[0].receiver.commit()
        times.append(clock())
        return {"send": times[1] - times[0], "receive": times[3] - times[2], "commit": times[4] - times[3]}
