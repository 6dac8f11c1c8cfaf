"""A worker process whose step keeps its positions in files, tells on stdout what happens to it, and fails on request.

Run as `python -m tests.support.hosted_worker '{"store": "...", ...}'`; see `Behaviour`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from itertools import groupby
from pathlib import Path
from typing import Any

from services.bus.hosting import Feed, GavelApp, Membership, Subscription, build_app, run
from services.bus.ports import PassingFault, Record, Stopped, TopicPartition
from services.bus.settings import StepSettings, read_settings
from services.contract.announcements import MarketApplied


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the worker is like.

    `positions`: kept in `files`, in the `group`, or `beginning` each time. `topics_file` lists the subscribed topics.
    `fault` is a planted one; `fault_after` records.
    """

    store: str
    topics: Sequence[str] = ()
    topics_file: str = ""
    partners: Sequence[str] = ()
    positions: str = "files"
    start_at: int = 0
    slow_s: float = 0.0
    fault: str = ""
    fault_after: int = 0


class Recorder:
    """A step that takes each record once, in order, and writes down that it did."""

    def __init__(self, behaviour: Behaviour, membership: Membership, app: list[GavelApp]) -> None:
        """Begin with nothing."""
        self._behaviour = behaviour
        self._membership = membership
        self._store = Path(behaviour.store)
        self._app = app
        self._taken = 0
        self._alive: bool | None = None

    def take_over(self, assigned: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Begin where the files or the group say."""
        wanted = [
            TopicPartition(topic, where.partition)
            for where in assigned
            for topic in (where.topic, *self._behaviour.partners)
        ]
        match self._behaviour.positions:
            case "files":
                starts: Mapping[TopicPartition, int | None] = {at: self._position(at) for at in wanted}
            case "group":
                starts = self._membership.committed(wanted)
            case _:
                starts = dict.fromkeys(wanted)
        tell("take_over", partitions=sorted(assigned), starts=sorted(starts.items()))
        return starts

    def release(self, revoked: Collection[TopicPartition]) -> None:
        """Tell."""
        tell("release", partitions=sorted(revoked))

    def handle(self, records: Sequence[Record]) -> Collection[TopicPartition]:
        """Take what follows on the stored position; what doesn't has to begin again."""
        self._tell_alive()
        again = set()
        for (topic, partition), group in groupby(sorted(records, key=by_partition), key=by_partition):
            if not self._take(TopicPartition(topic, partition), list(group)):
                subscribed = topic if topic not in self._behaviour.partners else self._behaviour.topics[0]
                again.add(TopicPartition(subscribed, partition))
        time.sleep(self._behaviour.slow_s)
        self._taken += len(records)
        tell("handled", records=len(records), again=sorted(again))
        self._fail_if_due(records)
        return again

    def idle(self) -> Collection[TopicPartition]:
        """Tell whether the worker is alive when that changes."""
        self._tell_alive()
        return ()

    def _take(self, where: TopicPartition, records: list[Record]) -> bool:
        with (self._store / f"{where.topic}-{where.partition}.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            position = self._position(where)
            if self._behaviour.positions == "files" and records[0].offset != position:
                return False
            with (self._store / f"{where.topic}-{where.partition}.seen").open("a") as seen:
                seen.writelines(f"{record.offset}\n" for record in records)
            (self._store / f"{where.topic}-{where.partition}.next").unlink(missing_ok=True)
            after = records[-1].offset + 1
            if self._behaviour.positions == "group":
                self._membership.commit({where: after})
            return True

    def _position(self, where: TopicPartition) -> int:
        """Read on behind what was seen last: one file tells both, so that a kill leaves no half of the two.

        A test moves the position by writing it to `.next`, where it stands until it was used.
        """
        moved = self._store / f"{where.topic}-{where.partition}.next"
        if moved.exists():
            return int(moved.read_text())
        file = self._store / f"{where.topic}-{where.partition}.seen"
        if not file.exists():
            return self._behaviour.start_at
        with file.open("rb") as seen:
            seen.seek(max(0, file.stat().st_size - 32))
            offsets = seen.read().split()
        return int(offsets[-1]) + 1 if offsets else self._behaviour.start_at

    def _tell_alive(self) -> None:
        alive = self._membership.liveness.alive()
        if alive is not self._alive:
            self._alive = alive
            tell("alive" if alive else "not alive")

    def _fail_if_due(self, records: Sequence[Record]) -> None:
        if self._behaviour.fault and self._taken >= self._behaviour.fault_after:
            plant(self._behaviour.fault, self._app[0], records)


def plant(fault: str, app: GavelApp, records: Sequence[Record]) -> None:
    """Do what must end the worker, or must not matter."""
    loop = app.loop
    match fault:
        case "raise":
            raise ValueError(records[0].value)
        case "pass":
            raise PassingFault("the database does not answer")
        case "stop":
            raise Stopped("an invariant is broken")
        case "hang":
            time.sleep(3_600)
        case "swallow":
            loop.call_soon_threadsafe(setattr, app.batches, "put", swallow)
        case "unsubscribe":
            loop.call_soon_threadsafe(app.batches._subscribers.clear)
        case "cancel agent":
            loop.call_soon_threadsafe(lambda: next(iter(app.agents.values())).cancel())
        case "cancel feed":
            loop.call_soon_threadsafe(cancel_feed, app)
        case "clear":
            loop.call_soon_threadsafe(app.flow_control.suspend)
            loop.call_soon_threadsafe(app.flow_control.clear)
        case _:
            raise AssertionError(fault)


async def swallow(_batch: Any) -> None:
    """Do as Faust does with a batch when nobody has subscribed."""


def cancel_feed(app: GavelApp) -> None:
    """Cancel the task that feeds the channel."""
    for child in app._children:
        if isinstance(child, Feed):
            for task in child._futures:
                task.cancel()


def by_partition(record: Record) -> tuple[str, int]:
    """Group by partition."""
    return record.topic, record.partition


def tell(event: str, **more: Any) -> None:
    """Write one line for the test."""
    sys.stdout.write(json.dumps({"at_s": time.monotonic(), "event": event, **more}) + "\n")
    sys.stdout.flush()


def main(behaviour: Behaviour) -> None:
    """Run the worker."""
    settings = read_settings(StepSettings)
    app: list[GavelApp] = []

    def topics() -> list[str]:
        return (
            Path(behaviour.topics_file).read_text().split()
            if behaviour.topics_file
            else list(behaviour.topics)
        )

    def announced(market: MarketApplied) -> None:
        tell("announced", version=market.version)

    app.append(
        build_app(
            settings,
            step="recorder",
            factory=lambda membership: Recorder(behaviour, membership, app),
            subscription=Subscription(
                group=f"{settings.namespace}recorder",
                topics=topics,
                partners=tuple(behaviour.partners),
                step_commits=behaviour.positions == "group",
            ),
            announced=announced,
        )
    )
    tell("built")
    run(app[0])


if __name__ == "__main__":
    main(Behaviour(**json.loads(sys.argv[1])))
