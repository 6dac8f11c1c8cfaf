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


class UnfinishedError(Exception):
    """A pipeline did not do what the measurement needs before it can begin, or did it wrong."""


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
        for count in (1, leads):
            expected = self.next_number + count
            self.load.burst(self._submissions(count))
            if not self._wait_processed(expected, self.phase_within_s):
                raise UnfinishedError(f"only {self._processed()} of {expected} leads came through to warm up")

    def throughput(self, leads: int) -> Throughput:
        """Send a backlog at once and work it off."""
        submissions = self._submissions(leads)
        done_before, repeats_before = self.next_number - leads, self.deliveries.repeats
        machine_before_s, cpu_before_s = machine_cpu_s(), self._cpu_s()
        start_s = time.monotonic()
        self.load.burst(submissions)
        is_complete = self._wait_processed(self.next_number, self.phase_within_s)
        seconds = time.monotonic() - start_s
        done = self._processed() - done_before
        cpu_s = {name: after_s - cpu_before_s[name] for name, after_s in self._cpu_s().items()}
        elsewhere_s = machine_cpu_s() - machine_before_s - sum(cpu_s.values())
        return Throughput(
            leads=done,
            seconds=seconds,
            repeats=self.deliveries.repeats - repeats_before,
            is_complete=is_complete,
            cpu_us_per_lead={name: 1e6 * used_s / max(done, 1) for name, used_s in cpu_s.items()},
            peak_memory_mib={worker.name: peak_memory_mib(worker.pid) for worker in self.pipeline.workers},
            elsewhere=max(elsewhere_s, 0.0) / (seconds * (os.cpu_count() or 1)),
        )

    def latency(self, rate_per_s: float, seconds: float) -> Latency:
        """Send at a fixed rate, and take the time of each lead from when it was to be sent."""
        submissions = self._submissions(round(rate_per_s * seconds))
        scheduled_s = self.load.open_loop(submissions, rate_per_s)
        self._wait(lambda: self.deliveries.completed >= self.next_number, _DRAIN_WITHIN_S)
        took_s = [
            completed_s - at_s
            for sent, at_s in zip(submissions, scheduled_s, strict=True)
            if (completed_s := self.deliveries.completed_at_s(_lead_id(sent))) is not None
        ]
        lost = len(submissions) - len(took_s)
        return Latency(
            rate_per_s=rate_per_s,
            leads=len(submissions),
            lost=lost,
            sent_late_ms=1_000 * self.load.late_s,
            percentiles_ms=percentiles_ms(took_s, lost),
        )

    def check_bills(self) -> None:
        """Raise `UnfinishedError` unless every lead sent is delivered, and every sale billed once."""
        expected = self.next_number * len(BUYERS)
        self._wait_processed(self.next_number, _DRAIN_WITHIN_S)
        billed = self.pipeline.billed_sales()
        if (self.deliveries.completed, billed) != (self.next_number, expected):
            raise UnfinishedError(
                f"{self.next_number} leads sent, {self.deliveries.completed} delivered to all their buyers; "
                f"{expected} sales expected, {billed} billed"
            )

    def _submissions(self, count: int) -> Sequence[Submission]:
        first, self.next_number = self.next_number, self.next_number + count
        now_ms = time.time_ns() // 1_000_000
        return [submission(number, now_ms) for number in range(first, first + count)]

    def _processed(self) -> int:
        return min(self.deliveries.completed, self.pipeline.billed_sales() // len(BUYERS))

    def _wait_processed(self, leads: int, within_s: float) -> bool:
        """Wait for deliveries first, so that the database is not asked all the time while it works."""
        return self._wait(
            lambda: self.deliveries.completed >= leads and self._processed() >= leads,
            within_s,
        )

    def _wait(self, is_done: Callable[[], bool], within_s: float) -> bool:
        """Wait for progress; tell whether it came in time. Raises `WorkerEndedError` when a worker does not live on."""
        until_s = time.monotonic() + within_s
        while not is_done():
            for worker in self.pipeline.workers:
                worker.check()
            if time.monotonic() > until_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _cpu_s(self) -> Mapping[str, float]:
        workers = {worker.name: cpu_s_of(worker.pid) for worker in self.pipeline.workers}
        return {**workers, **self.servers.cpu_s(), "load": cpu_s_of(os.getpid())}


def _lead_id(sent: Submission) -> str:
    return lead_id_of(SOURCE_ID, sent.reference)
