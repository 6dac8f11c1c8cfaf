"""How many auctions a second Gavel holds: five bidders a lead, half a second to bid, the best three get it.

A backlog would say little here, since a bid that waits behind it comes too late. So leads come at a fixed rate, which
is raised until bids come too late or leads pile up: the highest rate that was held counts.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.amounts import Amounts
from bench.bidders import BIDDERS
from bench.figures import Run
from bench.gavel import Gavel
from bench.measurement import Bench, UnfinishedError, Watch
from bench.processes import Worker, peak_memory_mib
from bench.stage import Stage, Started

NAME = "auctions"
BUYERS_PER_LEAD = 3
SOLD_IN_FULL = 0.99
"""The share of leads that must be sold to three: the others' bids came too late."""

DRAINED_WITHIN_S = 2.0
"""How long after the last lead was sent all must be closed; half a second of it is the bidders'."""

_RAISE = 1.3
_STEPS_MAX = 20
_RATE_MIN = 5.0
_FIRST_WITHIN_S = 60.0
_CLOSED_WITHIN_S = 60.0
_LATE_AT_MOST_S = 0.5


class Auctions(Gavel):
    """Gavel with the market of auctions, and its bidders."""

    market = Path(__file__).parent / "market-auctions.yaml"
    buyers = BIDDERS

    def start(self) -> None:
        """Start the bidders and the workers."""
        site = self._site
        Worker.start_on(
            self._workers,
            "bidders",
            ["-m", "bench.bidders"],
            environment={"GAVEL_KAFKA": site.kafka, "GAVEL_NAMESPACE": site.namespace},
            log_file=site.folder / "bidders.log",
        )
        super().start()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some seconds at one rate. `sold_in_full` is a share of the leads, `drained_s` when the last was closed."""

    rate_per_s: float
    leads: int
    sold_in_full: float
    drained_s: float
    sent_late_s: float
    elsewhere: float
    cpu_us_per_lead: dict[str, float]

    @property
    def is_held(self) -> bool:
        """Tell whether the rate was held."""
        in_time = self.drained_s <= DRAINED_WITHIN_S and self.sent_late_s <= _LATE_AT_MOST_S
        return in_time and self.sold_in_full >= SOLD_IN_FULL


@dataclass(slots=True)
class Climb:
    """Raises the rate until it is no longer held."""

    started: Started[Auctions]
    amounts: Amounts
    steps: list[Step] = field(default_factory=list)

    def settle(self) -> None:
        """Hold the first rate for as long as that of a latency is held before it counts, for the same reason."""
        bench, amounts = self._bench, self.amounts
        rate_per_s = amounts.auction_start_rate
        bench.load.open_loop(bench.submissions(round(rate_per_s * amounts.settle_s)), rate_per_s)
        self._await_closed()

    def highest(self) -> Step:
        """Find the highest step that is held; raise `UnfinishedError` where none is."""
        held = self._climb()
        failed = [step.rate_per_s for step in self.steps if step.rate_per_s > held.rate_per_s]
        if failed:
            between = self._step((held.rate_per_s * min(failed)) ** 0.5)
            held = between if between.is_held else held
        return held

    def await_first(self) -> None:
        """Send single leads until one is sold to three, when all workers and bidders are there."""
        bench, until_s = self._bench, time.monotonic() + _FIRST_WITHIN_S
        while not bench.deliveries.completed:
            if time.monotonic() > until_s:
                raise UnfinishedError(f"no lead was sold to three bidders within {_FIRST_WITHIN_S:.0f} s")
            bench.load.burst(bench.submissions(1))
            bench.wait(lambda: bench.deliveries.completed > 0, 1.0)

    def check(self) -> None:
        """Raise `UnfinishedError` unless every lead was closed, and every delivery billed once."""
        bench, pipeline = self._bench, self.started.pipeline
        self._await_closed()
        bench.wait(lambda: pipeline.billed_sales() == bench.deliveries.delivered, _FIRST_WITHIN_S)
        if pipeline.billed_sales() != bench.deliveries.delivered:
            raise UnfinishedError(
                f"{bench.deliveries.delivered} leads delivered, {pipeline.billed_sales()} sales billed"
            )

    @property
    def _bench(self) -> Bench:
        return self.started.bench

    def _climb(self) -> Step:
        step, held = self._step(self.amounts.auction_start_rate), None
        while len(self.steps) < _STEPS_MAX:
            if step.is_held:
                held = step
                step = self._step(step.rate_per_s * _RAISE)
            elif held is not None:
                return held
            elif step.rate_per_s < _RATE_MIN:
                break
            else:
                step = self._step(step.rate_per_s / 2)
        if held is not None:
            return held
        raise UnfinishedError(f"no rate of auctions was held: {self.steps[-1]}")

    def _step(self, rate_per_s: float) -> Step:
        bench = self._bench
        submissions = bench.submissions(max(round(rate_per_s * self.amounts.auction_step_s), 1))
        before, watch = bench.deliveries.completed, Watch(bench.cpu_s)
        bench.load.open_loop(submissions, rate_per_s)
        sent_s = time.monotonic()
        self._await_closed()
        drained_s = time.monotonic() - sent_s
        bench.wait(lambda: bench.deliveries.completed - before >= len(submissions), 0.5)
        _, cpu_s, elsewhere = watch.read()
        step = Step(
            rate_per_s=rate_per_s,
            leads=len(submissions),
            sold_in_full=(bench.deliveries.completed - before) / len(submissions),
            drained_s=drained_s,
            sent_late_s=bench.load.late_s,
            elsewhere=elsewhere,
            cpu_us_per_lead={name: 1e6 * used_s / len(submissions) for name, used_s in cpu_s.items()},
        )
        self.steps.append(step)
        return step

    def _await_closed(self) -> None:
        bench, pipeline = self._bench, self.started.pipeline
        if not bench.wait(lambda: pipeline.closed_leads() >= bench.next_number, _CLOSED_WITHIN_S):
            raise UnfinishedError(
                f"only {pipeline.closed_leads()} of {bench.next_number} leads were closed in time"
            )


def measure(stage: Stage) -> list[Run]:
    """Measure it."""
    with stage.started(Auctions, buyers_per_lead=BUYERS_PER_LEAD, is_warmed_up=False) as started:
        climb = Climb(started, stage.amounts)
        climb.await_first()
        climb.settle()
        held = climb.highest()
        climb.check()
        memory = {worker.name: peak_memory_mib(worker.pid) for worker in started.pipeline.workers}
        return [
            Run(
                measurement=NAME,
                figures={"leads_per_s": held.rate_per_s, "sold_in_full": held.sold_in_full},
                cpu_us_per_lead=held.cpu_us_per_lead,
                peak_memory_mib=memory,
                elsewhere=held.elsewhere,
                notes={
                    "steps": [{**asdict(step), "is_held": step.is_held} for step in climb.steps],
                    "evictions": started.pipeline.evictions(),
                },
            )
        ]
