"""The training session of one model on one rank: its parameters, and the exchange of what it sends."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from laconic._arguments import check_callable, check_count, check_flag
from laconic.comm import Alike, Exchange, OnMismatch, RanksDifferError, Stats, Topology
from laconic.comm.topologies import named_topology
from laconic.kernels import warm_up_norms
from laconic.layout import Layout
from laconic.session._handshake import create_exchange, first_mismatch
from laconic.session._parameters import Exempt, TrainedParameters
from laconic.session._schedule import Schedule


class Session:
    """What the DDP hook and the optimisers share: agreement of the ranks, schedule, checkpoints, statistics.

    Every rank makes one, at the same point of its program.

    Args:
        parameters: what is trained.
        schedule: from which iteration on which method is used.
        exempt: which parameters are sent whole.
        exact: whether these are sent exactly.
        process_group: the ranks; None is all of them.
        settings: whatever else must be alike on all ranks, by name.
        clips: whether gradients are clipped.
        dtypes: of what is sent of each parameter, by name; by default the parameters' own.
        check_replicas_every: committed steps between comparisons of the replicas; 0 makes none.
        topology, seed, timeout_s, adaptive, measure_error_every: as for the exchange.

    Raises:
        ValueError: where a method does not suit the parameters.
        RanksDifferError: an ExchangeError and ValueError, where the ranks differ.
    """

    def __init__(
        self,
        parameters: TrainedParameters,
        schedule: Schedule,
        *,
        exempt: Exempt,
        exact: bool,
        process_group: dist.ProcessGroup | None,
        topology: str | Topology,
        settings: Mapping[str, object],
        clips: bool,
        dtypes: Mapping[str, torch.dtype] | None = None,
        seed: int,
        timeout_s: float,
        adaptive: bool,
        measure_error_every: int = 0,
        check_replicas_every: int = 0,
    ) -> None:
        """Compare parameters and settings with the other ranks', and start the exchange."""
        check_callable("exempt", exempt, "of name and parameter that returns True or False")
        check_flag("exact", exact)
        check_count("check_replicas_every", check_replicas_every)
        self.parameters = parameters
        self.schedule = schedule
        self.topology = named_topology(topology)
        self.seed = seed
        self._process_group = process_group
        if clips:
            warm_up_norms(parameters.dtypes_in_main_memory)
        self.exchange: Exchange = create_exchange(
            parameters.layout(exempt, exact),
            schedule,
            process_group,
            self.topology,
            dtypes=parameters.dtypes if dtypes is None else dtypes,
            settings={"check_replicas_every": check_replicas_every, **settings},
            seed=seed,
            timeout_s=timeout_s,
            adaptive=adaptive,
            device=parameters.device,
            measure_error_every=measure_error_every,
        )
        self._base = 0
        self._check_every = check_replicas_every
        self._checked = 0
        self._compared = False

    @property
    def layout(self) -> Layout:
        """A segment for each parameter."""
        return self.exchange.layout

    @property
    def iteration(self) -> int:
        """Steps committed so far; those that were void do not count."""
        return self._base + self.exchange.stats().steps

    def begin_step(self) -> bool:
        """Go on with the method that the schedule has for this iteration; whether the step is dense."""
        method = self.schedule.at(self.iteration)
        if method is not None and method != self.exchange.feedback:
            self.exchange.switch(method)
        return method is None

    def leave_out(self, steps: int) -> None:
        """Do not count the last steps among the iterations."""
        self._base -= steps

    def broadcast_parameters(self) -> None:
        """Replace every rank's parameters by those of rank 0, as DDP does: frozen ones, too."""
        if self.exchange.size == 1:
            return
        frozen = self.parameters.frozen
        self.exchange.compare(
            {
                "operation": "sending of the parameters from rank 0",
                **{f"frozen parameter {name!r}": (tuple(p.shape), p.dtype) for name, p in frozen.items()},
            }
        )
        for parameter in (*self.parameters.by_name.values(), *frozen.values()):
            sent = parameter.detach().contiguous()
            # As bytes: backends know fewer dtypes than frozen parameters have.
            dist.broadcast(sent.view(-1).view(torch.uint8), group=self._process_group, group_src=0)
            parameter.detach().copy_(sent)

    def agree(self, fields: Mapping[str, object]) -> Alike:
        """Settings of the next step that must be alike on all ranks, to travel with its buckets.

        Before the first step, and the first after a load, the parameters' bits are compared.

        Args:
            fields: what multiplies an estimate on each replica, by name. The iteration and the names of
                frozen parameters are added.

        Raises:
            RanksDifferError: where the parameters differ.
        """
        if not self._compared:
            self.check_replicas("at the first step after construction or load_state_dict")
            self._compared = True
        return self.alike(fields)

    def alike(self, fields: Mapping[str, object]) -> Alike:
        """As :meth:`agree`, where the parameters differ by design."""
        frozen = [name for name, p in self.parameters.by_name.items() if not p.requires_grad]
        return Alike({"iteration": self.iteration, "frozen parameters": frozen, **fields})

    def check_replicas_in_turn(self) -> None:
        """Compare the parameters over ranks where this iteration is one of ``check_replicas_every``."""
        iteration = self.iteration
        if self._check_every and iteration % self._check_every == 0 and iteration != self._checked:
            self.check_replicas()
            self._checked = iteration

    def compare_replicas_at_next_step(self) -> None:
        """This rank has loaded a checkpoint."""
        self._compared = False

    def check_replicas(self, when: str = "") -> None:
        """Compare the parameters' bits over ranks; all call it together.

        Args:
            when: for the error of ranks that do something else.

        Raises:
            RanksDifferError: an ExchangeError, naming the first parameter that differs.
        """
        if self.exchange.size == 1:
            return
        fingerprints = self.parameters.fingerprints()
        mismatch = first_mismatch(
            self.exchange.gather(fingerprints, f"the checksums of the parameters {when}".strip())
        )
        if mismatch is not None:
            place, rank = mismatch
            raise RanksDifferError(
                f"the replicas are not equal any more before iteration {self.iteration}: "
                f"{list(self.parameters.by_name)[place]!r} is the first parameter that differs, on rank "
                f"{rank} from rank 0. Did a rank change its parameters alone, or take a step that others "
                "skipped?"
            )

    def stats(self) -> Stats:
        """What this rank has sent, received and spent so far."""
        return self.exchange.stats()

    def state_dict(self, gather: bool = False) -> dict[str, Any]:
        """Memories by parameter name, of this rank or gathered, and the iteration."""
        return {"version": 1, "iteration": self.iteration, "exchange": self.exchange.state_dict(gather)}

    def load_state_dict(self, state: Mapping[str, Any], on_mismatch: OnMismatch = "error") -> None:
        """Take over memories and iteration.

        Args:
            state: as it was saved, by this rank or gathered.
            on_mismatch: as for the exchange; the iteration is kept.

        Raises:
            ValueError: for the state of another rank, number of ranks, method or model.
        """
        self.exchange.load_state_dict(state["exchange"], on_mismatch)
        iteration = int(state["iteration"])
        if on_mismatch == "resync":
            found = self.exchange.gather(
                torch.tensor([iteration], device="cpu"), "the iterations of the saved states"
            )
            if len({int(each) for each in found}) > 1:
                raise ValueError(
                    f"the ranks have loaded states of different iterations {[int(each) for each in found]}: "
                    "load those of one checkpoint"
                )
        self.resume_at(iteration)

    def resume_at(self, iteration: int) -> None:
        """Count the steps that follow from here."""
        self._base = iteration - self.exchange.stats().steps
        self._checked = iteration
        self.compare_replicas_at_next_step()

    def close(self) -> None:
        """End the exchange's thread and process group."""
        self.exchange.close()
