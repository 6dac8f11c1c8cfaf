"""How long it takes until another router delivers again what a killed one was to deliver.

Two routers share the partitions; under load, one is killed (SIGKILL) and says no word to anybody. Counted is the time
from the kill until a lead that was sent after it has been delivered, in every partition that the dead one had.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bench.figures import Run
from bench.gavel import Gavel, events_of
from bench.leads import Submission
from bench.measurement import UnfinishedError, lead_id
from bench.processes import Worker
from bench.stage import Stage, Started
from services.contract.ids import partition_of

NAME = "takeover"
PARTITIONS = 12
_KILL_AFTER_S = 2.0
_LOAD_S = 11.0
_SHARED_WITHIN_S = 30.0
_DELIVERED_WITHIN_S = 30.0


class LoadThread(threading.Thread):
    """Sends leads at a fixed rate while the measurement goes on; `scheduled_s` tells afterwards when each was due."""

    def __init__(self, started: Started[Gavel], submissions: Sequence[Submission], rate_per_s: float) -> None:
        """Begin with `start`."""
        super().__init__(name="load", daemon=True)
        self._load = started.bench.load
        self._submissions = submissions
        self._rate_per_s = rate_per_s
        self._error: Exception | None = None
        self.scheduled_s: list[float] = []

    def run(self) -> None:
        """Send."""
        try:
            self.scheduled_s = self._load.open_loop(self._submissions, self._rate_per_s)
        except Exception as error:  # noqa: BLE001  (raised again by `end`, in the thread that waits)
            self._error = error

    def end(self) -> None:
        """Wait until all is sent; raise what went wrong."""
        self.join()
        if self._error is not None:
            raise self._error


@dataclass(slots=True, kw_only=True)
class Drill:
    """Kills one router after the other, each with a successor."""

    started: Started[Gavel]
    rate_per_s: float
    routers: list[Worker]
    _started_ever: int = 2

    def kill_one(self) -> Run:
        """Kill the older of the two routers, and measure."""
        shares = self._shared()
        victim, survivor = self.routers
        submissions = self.started.bench.submissions(round(self.rate_per_s * _LOAD_S))
        load = LoadThread(self.started, submissions, self.rate_per_s)
        load.start()
        time.sleep(_KILL_AFTER_S)
        killed_s, killed_at = time.monotonic(), time.time()
        victim.kill()
        self.started.pipeline.drop_worker(victim)
        load.end()
        self._await_delivered()
        sent = dict(zip(map(lead_id, submissions), load.scheduled_s, strict=True))
        back_s = self._back_s(sent, killed_s, shares[victim.name])
        notice_s = _noticed_at(survivor, killed_at) - killed_at
        self._replace(victim)
        return Run(
            measurement=NAME,
            figures={
                "takeover_s": max(back_s.values()),
                "first_lead_s": min(back_s.values()),
                "notice_s": notice_s,
                "after_notice_s": max(back_s.values()) - notice_s,
            },
            notes={"partitions": len(back_s), "rate_per_s": self.rate_per_s},
        )

    def _shared(self) -> dict[str, set[int]]:
        """Wait until both routers have partitions, and all are had; say who has which."""
        gavel = self.started.pipeline

        def is_shared() -> bool:
            return gavel.is_shared("router") and sum(map(len, gavel.shares("router").values())) == PARTITIONS

        if not self.started.bench.wait(is_shared, _SHARED_WITHIN_S):
            raise UnfinishedError(
                f"the routers did not share the partitions in time: {gavel.shares('router')}"
            )
        return {name: {partition for _, partition in owned} for name, owned in gavel.shares("router").items()}

    def _await_delivered(self) -> None:
        bench = self.started.bench
        if not bench.wait(lambda: bench.deliveries.completed >= bench.next_number, _DELIVERED_WITHIN_S):
            raise UnfinishedError(
                f"after a kill, only {bench.deliveries.completed} of {bench.next_number} leads were delivered"
            )

    def _back_s(self, sent_s: Mapping[str, float], killed_s: float, partitions: set[int]) -> dict[int, float]:
        """Say of each partition how long after the kill the first lead that was sent after it had been delivered."""
        found: dict[int, float] = {}
        for lead, at_s in sent_s.items():
            partition = partition_of(lead, PARTITIONS)
            completed_s = self.started.bench.deliveries.completed_at_s(lead)
            if partition in partitions and at_s > killed_s and completed_s is not None:
                found[partition] = min(found.get(partition, float("inf")), completed_s - killed_s)
        if found.keys() != partitions:
            raise UnfinishedError(f"no lead was sent to partitions {sorted(partitions - found.keys())}")
        return found

    def _replace(self, victim: Worker) -> None:
        self._started_ever += 1
        self.routers.remove(victim)
        self.routers.append(self.started.pipeline.add_worker("router", self._started_ever))


def _noticed_at(survivor: Worker, killed_at: float) -> float:
    """Say when the group gave the survivor more, in seconds of the epoch."""
    assigned = [
        datetime.fromisoformat(str(event["at"])).timestamp()
        for event in events_of(survivor.log_file)
        if event.get("event") == "assigned"
    ]
    later = [at for at in assigned if at >= killed_at]
    if not later:
        raise UnfinishedError(f"{survivor.name} was assigned nothing after the kill")
    return later[0]


def measure(stage: Stage) -> list[Run]:
    """Measure some kills, one after the other."""
    with stage.started(lambda site: Gavel(site, {"router": 2})) as started:
        routers = [worker for worker in started.pipeline.workers if worker.name.startswith("router")]
        drill = Drill(started=started, rate_per_s=stage.amounts.takeover_rate, routers=routers)
        runs = [drill.kill_one() for _ in range(stage.amounts.kills)]
        started.bench.check_bills()
        last = runs.pop()
        notes = {**last.notes, "evictions": started.pipeline.evictions()}
        return [*runs, dataclasses.replace(last, notes=notes)]
