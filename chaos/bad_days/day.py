"""What a bad day is given, and what it leaves behind: the scene it plays on, and what was done, seen and said.

It knows no particular day, and judges nothing: that is for `playing`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from chaos.bad_days.size import Size
from chaos.campaign import CampaignError, Say
from chaos.crew import Crew
from chaos.gavel import Gavel
from chaos.positions import Offsets, Watch, await_progress
from chaos.servers import Servers
from chaos.source import Load
from chaos.subject import Site

_LOOK_EVERY_S = 0.1
_WRITTEN_WITHIN_S = 30.0
_COMMAND_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One line of a worker's log."""

    worker: str
    level: str
    event: str
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.worker}: {self.event}: {self.words}"

    @property
    def words(self) -> str:
        """What it says besides, an error and its causes as one sentence."""
        error = self.fields.get("error")
        if isinstance(error, dict):
            return " <- ".join(_causes(error))
        told = {name: value for name, value in self.fields.items() if name not in _EVERY_LINE}
        return ", ".join(f"{name}={value}" for name, value in told.items())


_EVERY_LINE = frozenset({"event", "level", "timestamp", "at", "step", "worker", "logger"})


@dataclass(slots=True, kw_only=True)
class Scene:
    """A Gavel at work under load, and what a day notes about it."""

    subject: Gavel
    site: Site
    servers: Servers
    crew: Crew
    watch: Watch
    load: Load
    say: Say
    done: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Words of violations that must be found, because of what somebody did who may do everything."""

    def do(self, what: str) -> None:
        """Note what was done."""
        self.done.append(what)
        self.say(f"  done: {what}")

    def see(self, what: str) -> None:
        """Note what was seen."""
        self.seen.append(what)
        self.say(f"  seen: {what}")

    def quote(self, what: str) -> None:
        """Note what Gavel said of it, to whoever runs it."""
        self.said.append(what)
        self.say(f"  said: {what}")

    def expect_violation(self, words: str) -> None:
        """Have the auditor find a violation that names this, and no other."""
        self.expected.append(words)

    def wait_until(self, what: str, holds: Callable[[], bool], *, within_s: float = 60.0) -> float:
        """Wait for progress and give the seconds it took; raise `CampaignError` with what the workers said."""
        began_s = time.monotonic()
        while not holds():
            if time.monotonic() - began_s > within_s:
                words = "\n".join(map(str, self.lines(level="error")[-5:]))
                raise CampaignError(f"{what}: not within {within_s:.0f} s. Errors in the logs:\n{words}")
            time.sleep(_LOOK_EVERY_S)
        return time.monotonic() - began_s

    def lines(self, *, step: str = "", level: str = "", holding: str = "") -> list[Log]:
        """Read what workers have logged so far."""
        found = []
        for path in sorted(self.site.folder.glob(f"{step}*-*.log")):
            for text in path.read_text(errors="replace").splitlines():
                line = _line(path.stem, text)
                if line is not None and level in ("", line.level) and holding in str(line):
                    found.append(line)
        return found

    def await_said(self, holding: str, *, step: str = "", within_s: float = 60.0) -> Log:
        """Wait until a worker says something of level error that holds these words, and quote it."""
        self.wait_until(
            f"{step or 'a worker'} says {holding!r}",
            lambda: bool(self.lines(step=step, level="error", holding=holding)),
            within_s=within_s,
        )
        line = self.lines(step=step, level="error", holding=holding)[0]
        self.quote(str(line))
        return line

    def gavel(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Gavel, as the one who runs it would."""
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *arguments],
            env={**os.environ, **self.subject.command("", "").environment, **more},
            capture_output=True,
            text=True,
            timeout=_COMMAND_WITHIN_S,
        )

    def await_doctor(self, check: str, holding: str, *, within_s: float = 60.0) -> None:
        """See that `gavel doctor` finds it, and quote what it says and advises."""
        found: list[Mapping[str, Any]] = []

        def finds() -> bool:
            found[:] = [
                each
                for each in self.doctor()
                if each["name"].startswith(check) and not each["ok"] and holding in each["found"]
            ]
            return bool(found)

        self.wait_until(f"gavel doctor finds {holding!r} at {check!r}", finds, within_s=within_s)
        self.quote(f"gavel doctor: {found[0]['name']}: {found[0]['found']}. {found[0]['advice']}")

    def doctor(self) -> Sequence[Mapping[str, Any]]:
        """Ask `gavel doctor`."""
        ran = self.gavel("doctor", "--json")
        try:
            checks: Sequence[Mapping[str, Any]] = json.loads(ran.stdout)["checks"]
        except ValueError as error:
            raise CampaignError(f"gavel doctor told nothing: {ran.stderr[-1_000:]}") from error
        return checks

    def write(self, topic: str, partition: int, values: Iterable[bytes], **more: str | int) -> None:
        """Append records as whoever may write there, each acknowledged; raise `CampaignError`."""
        refused: list[KafkaError] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refused.append(error)

        producer = Producer({"bootstrap.servers": self.site.kafka, "log_level": 0, **more})
        for value in values:
            producer.produce(topic, value, None, partition, on_delivery=note)
        left = producer.flush(_WRITTEN_WITHIN_S)
        if refused or left:
            raise CampaignError(f"{topic}: {refused[0] if refused else f'{left} not acknowledged'}")

    def restart(self, *steps: str) -> None:
        """Have the workers of these steps leave in order, and start them again."""
        for step in steps:
            for name in self.crew.of_step(step):
                self.crew.ask_to_leave(name)
                self.crew.bring_back(name)

    def ends(self, topic: str, partitions: int) -> int:
        """Count the records that were ever written to a topic."""
        return sum(Offsets(self.site.kafka).ends((topic, at) for at in range(partitions)).values())

    def await_leads(self, more: int, *, within_s: float = 60.0) -> float:
        """Wait until so many more submissions are acknowledged, which is the load's doing alone."""
        enough = self.load.acknowledgements + more
        return self.wait_until(
            f"{more} more submissions", lambda: self.load.acknowledgements >= enough, within_s=within_s
        )

    def await_going_on(self, *, within_s: float = 120.0) -> float:
        """Wait until every step has gone on in every partition, and give the seconds it took."""
        found = await_progress(self.watch, time.monotonic(), within_s)
        if found.seconds is None:
            raise CampaignError(f"not all went on within {within_s:.0f} s: {', '.join(found.standing[:5])}")
        return found.seconds

    def waiting(self) -> int:
        """Say how many records wait, by the latest reading."""
        return self.watch.latest.waiting if self.watch.latest is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BadDay:
    """A day by name, what it is, and how it is played; raises `CampaignError` where it does not go as it must.

    `rests_s`: how much longer than after any other day it may take until all is at rest.
    """

    name: str
    what: str
    play: Callable[[Scene, Size], None]
    takes_minutes: bool = False
    rests_s: Callable[[Size], float] = lambda _: 0.0


def _line(worker: str, text: str) -> Log | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return Log(
        worker=worker, level=str(found.get("level", "")), event=str(found.get("event", "")), fields=found
    )


def _causes(error: Mapping[str, Any]) -> list[str]:
    found, cause = [], error
    while isinstance(cause, dict):
        found.append(str(cause.get("message") or cause.get("class")))
        cause = cause.get("cause", None)  # type: ignore[assignment]
    return found
