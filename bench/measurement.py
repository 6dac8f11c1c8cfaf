"""Measures one pipeline that runs: how many leads a second it works off, and how long one takes at a fixed rate.

A lead counts when it has been delivered to all three buyers and all three sales are billed. Everything on the way
counts as well: broker, database, and this load and observation, all on the same machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.figures import Latency, Throughput, percentiles_ms
from bench.leads import SOURCE_ID, Submission, submission
from bench.load import Load
from bench.observation import Deliveries
from bench.pipeline import BUYERS, Pipeline
from bench.processes import cpu_s as cpu_s_of
from bench.processes import machine_cpu_s, peak_memory_mib
from bench.servers import Servers
from services.contract.ids import lead_id_of

_POLL_S = 0.05
_DRAIN_WITHIN_S = 15.0
_FIRST_LEAD_WITHIN_S = 60.0


class UnfinishedError(Exception):
    """A pipeline did not do what the measurement needs before it can begin, or did it wrong."""


class NotStartedError(UnfinishedError):
    """A pipeline took no lead at all after its start."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """A pipeline under measurement. Leads are numbered on, so that none comes twice."""

    pipeline: Pipeline
    servers: Servers
    load: Load
    deliveries: Deliveries
    phase_within_s: float
    next_number: int = 0

    def warm_up(self, leads: int) -> None:
        """Take leads through the whole pipeline before anything counts: one until all workers are there, then some."""
        self.load.burst(self.submissions(1))
        if not self._wait_processed(1, _FIRST_LEAD_WITHIN_S):
            raise NotStartedError(f"no lead came through within {_FIRST_LEAD_WITHIN_S:.0f} s of the start")
        self.load.burst(self.submissions(leads))
        if not self._wait_processed(self.next_number, self.phase_within_s):
            raise UnfinishedError(
                f"only {self._processed()} of {self.next_number} leads came through to warm up"
            )

    def throughput(self, leads: int) -> Throughput:
        """Send a backlog at once and work it off."""
        submissions = self.submissions(leads)
        done_before, repeats_before = self.next_number - leads, self.deliveries.repeats
        watch = Watch(self.cpu_s)
        self.load.burst(submissions)
        is_complete = self._wait_processed(self.next_number, self.phase_within_s)
        done = self._processed() - done_before
        seconds, cpu_s, elsewhere = watch.read()
        return Throughput(
            leads=done,
            seconds=seconds,
            repeats=self.deliveries.repeats - repeats_before,
            is_complete=is_complete,
            cpu_us_per_lead={name: 1e6 * used_s / max(done, 1) for name, used_s in cpu_s.items()},
            peak_memory_mib={worker.name: peak_memory_mib(worker.pid) for worker in self.pipeline.workers},
            elsewhere=elsewhere,
        )

    def latency(self, rate_per_s: float, seconds: float, *, settle_s: float = 0.0) -> Latency:
        """Send at a fixed rate, and take the time of each lead from when it was to be sent.

        The rate is held for `settle_s` before: the broker's JVM has to compile anew what batches of this size ask of
        it, and takes most of a processor while it does.
        """
        submissions = self.submissions(round(rate_per_s * (settle_s + seconds)))
        watch = Watch(self.cpu_s)
        scheduled_s = self.load.open_loop(submissions, rate_per_s)
        self.wait(lambda: self.deliveries.completed >= self.next_number, _DRAIN_WITHIN_S)
        settled_at_s = scheduled_s[0] + settle_s
        counted = [
            (sent, at_s) for sent, at_s in zip(submissions, scheduled_s, strict=True) if at_s >= settled_at_s
        ]
        took_s = [
            completed_s - at_s
            for sent, at_s in counted
            if (completed_s := self.deliveries.completed_at_s(lead_id(sent))) is not None
        ]
        lost = len(counted) - len(took_s)
        _, cpu_s, elsewhere = watch.read()
        return Latency(
            rate_per_s=rate_per_s,
            leads=len(counted),
            lost=lost,
            sent_late_ms=1_000 * self.load.late_s,
            percentiles_ms=percentiles_ms(took_s, lost),
            cpu_us_per_lead={name: 1e6 * used_s / len(submissions) for name, used_s in cpu_s.items()},
            elsewhere=elsewhere,
        )

    def check_bills(self) -> None:
        """Raise `UnfinishedError` unless every lead sent is delivered, and every sale billed once."""
        expected = self.next_number * len(BUYERS)
        self._wait_processed(self.next_number, _DRAIN_WITHIN_S)
        billed = self.pipeline.billed_sales()
        if self.deliveries.completed != self.next_number or billed not in (expected, None):
            raise UnfinishedError(
                f"{self.next_number} leads sent, {self.deliveries.completed} delivered to all their buyers; "
                f"{expected} sales expected, {billed} billed"
            )

    def submissions(self, count: int) -> Sequence[Submission]:
        """Write the next leads."""
        first, self.next_number = self.next_number, self.next_number + count
        now_ms = time.time_ns() // 1_000_000
        return [submission(number, now_ms) for number in range(first, first + count)]

    def _processed(self) -> int:
        completed, billed = self.deliveries.completed, self.pipeline.billed_sales()
        return completed if billed is None else min(completed, billed // len(BUYERS))

    def _wait_processed(self, leads: int, within_s: float) -> bool:
        """Wait for deliveries first, so that the database is not asked all the time while it works."""
        return self.wait(
            lambda: self.deliveries.completed >= leads and self._processed() >= leads,
            within_s,
        )

    def wait(self, is_done: Callable[[], bool], within_s: float) -> bool:
        """Wait for progress; tell whether it came in time. Raises `WorkerEndedError` when a worker does not live on."""
        until_s = time.monotonic() + within_s
        while not is_done():
            for worker in self.pipeline.workers:
                worker.check()
            if time.monotonic() > until_s:
                return False
            time.sleep(_POLL_S)
        return True

    def cpu_s(self) -> Mapping[str, float]:
        """Read the CPU time that everything of this measurement has used, by process."""
        workers = {worker.name: cpu_s_of(worker.pid) for worker in self.pipeline.workers}
        return {**workers, **self.servers.cpu_s(), "load": cpu_s_of(os.getpid())}


class Watch:
    """Takes the time and the CPU time of everything from when it is made."""

    def __init__(self, cpu_s: Callable[[], Mapping[str, float]]) -> None:
        """Begin; `cpu_s` reads what the processes that are measured have used so far."""
        self._cpu_s = cpu_s
        self._machine_before_s, self._before_s = machine_cpu_s(), cpu_s()
        self._start_s = time.monotonic()

    def read(self) -> tuple[float, Mapping[str, float], float]:
        """Give the seconds, the CPU seconds by process, and the share of all CPUs that went to anything else."""
        seconds = time.monotonic() - self._start_s
        after_s = self._cpu_s()
        used_s = {name: value_s - self._before_s.get(name, 0.0) for name, value_s in after_s.items()}
        elsewhere_s = machine_cpu_s() - self._machine_before_s - sum(used_s.values())
        return seconds, used_s, max(elsewhere_s, 0.0) / (max(seconds, 1e-9) * (os.cpu_count() or 1))


def lead_id(sent: Submission) -> str:
    """Name the lead that a submission becomes."""
    return lead_id_of(SOURCE_ID, sent.reference)
