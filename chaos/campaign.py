"""One campaign: load, faults in their order, rest, and judgement. What it runs against is a `Subject`.

Whatever is waited for has a deadline, and what is missing then is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from chaos.crew import Crew, Ended, start_all
from chaos.faults import Injector, Told
from chaos.plan import OF_SERVERS, Fault
from chaos.positions import Unreachable, Watch, await_progress
from chaos.servers import Servers
from chaos.source import Load
from chaos.subject import Judgement, Site, Subject

_ALL_STARTED_WITHIN_S = 120.0
_LOOK_EVERY_S = 1.0
_FAULTS_MAY_TAKE = 3.0
_FAULTS_MAY_TAKE_MORE_S = 180.0
_LOAD_ENDS_WITHIN_S = 300.0
_MISSING_SHOWN = 10
_LOOKS_AT_REST = 3
_OVERLAPS_AFTER_S = 0.5

Say = Callable[[str], None]
Trouble = Callable[[Crew, Watch, Load], None]


class CampaignError(Exception):
    """The campaign could not be carried out as planned; the message says what was missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How much load, for how long, and how patient."""

    leads: int
    seconds: float
    rate_per_s: float
    waiting_max: int
    recovers_within_s: float
    rests_within_s: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a campaign was like."""

    subject: str
    sent: int
    acknowledged: int
    refused: Sequence[str]
    held_back_s: float
    seconds: float
    rest_s: float | None
    missing: Sequence[str]
    faults: Sequence[Told]
    left_out: int
    ended: Sequence[Ended]
    starts: int
    judgement: Judgement | None = None

    @property
    def unrecovered(self) -> Sequence[Told]:
        """Faults after which not everything went on in time."""
        return [fault for fault in self.faults if not fault.is_recovered]

    @property
    def is_well(self) -> bool:
        """Tell whether all was carried out, all came to rest, and nothing is broken."""
        return (
            self.judgement is not None
            and not self.judgement.violations
            and not self.missing
            and not self.unrecovered
            and not self.left_out
            and not self.refused
        )


@dataclass(slots=True, kw_only=True)
class Campaign:
    """A subject, its servers and its plan."""

    subject: Subject
    site: Site
    servers: Servers
    plan: Sequence[Fault]
    terms: Terms
    say: Say
    trouble: Trouble | None = None
    """What is done under load instead of a plan's faults."""

    over: threading.Event = field(default_factory=threading.Event)
    threads: list[Future[None]] = field(default_factory=list)

    def run(self) -> Outcome:
        """Carry it out; raise `CampaignError` where that is not possible."""
        self.say("Making topics and tables ...")
        self.subject.prepare()
        crew = Crew(self.subject.command, self.site.folder, self.subject.explain, self.servers.guard)
        watch = Watch(self.subject.read)
        load = Load(
            kafka=self.site.kafka,
            submission=self.subject.submission,
            leads=self.terms.leads,
            rate_per_s=self.terms.rate_per_s,
            waiting_max=self.terms.waiting_max,
            watch=watch,
            may_end=threading.Event(),
            over=self.over,
        )
        with ExitStack() as ending:
            ending.callback(self.subject.close)
            ending.enter_context(crew)
            ending.enter_context(self._thread(watch.run, watch.stop))
            ending.callback(self.subject.end)
            ending.callback(self.over.set)
            return self._carried_out(crew, watch, load)

    def _carried_out(self, crew: Crew, watch: Watch, load: Load) -> Outcome:
        start_all(crew, self.subject.steps, self.subject.workers_a_step)
        self.say(f"Starting {len(crew.names)} workers ...")
        with self._thread(load.run, self.over.set):
            start_s = time.monotonic()
            self.subject.begin(load, every_s=max(self.terms.seconds / 100, 1.0))
            self._await_all_working(crew, watch)
            faults: list[Told] = []
            if self.trouble is None:
                faults = self._strike(crew, watch, load)
            else:
                self.trouble(crew, watch, load)
            load.may_end.set()
            self._await_load(load)
            loaded_s = time.monotonic() - start_s
            rest_s, missing = self._rest(crew)
        outcome = Outcome(
            subject=self.subject.name,
            sent=load.sent,
            acknowledged=load.acknowledgements,
            refused=load.refused,
            held_back_s=load.held_back_s,
            seconds=loaded_s,
            rest_s=rest_s,
            missing=missing,
            faults=faults,
            left_out=len(self.plan) - len(faults),
            ended=list(crew.ended),
            starts=crew.starts,
        )
        self.say("Judging ...")
        outcome.judgement = self.subject.judge(load, at_rest=not missing)
        return outcome

    def _await_all_working(self, crew: Crew, watch: Watch) -> None:
        """See every step work in every partition before the first fault, so that recovery means something."""
        found = await_progress(watch, time.monotonic(), _ALL_STARTED_WITHIN_S)
        if found.seconds is None:
            said = "\n".join(f"{name}: {crew.last_words(name)}" for name in crew.names)
            raise CampaignError(f"Not every step has begun to work ({', '.join(found.standing)}).\n{said}")
        self.say(f"Every step works in every partition, after {found.seconds:.1f} s.")

    def _strike(self, crew: Crew, watch: Watch, load: Load) -> list[Told]:
        """Carry out the faults in their order, each at its time or as soon as the one before is over."""
        start_s = time.monotonic()
        give_up_s = start_s + self.terms.seconds * _FAULTS_MAY_TAKE + _FAULTS_MAY_TAKE_MORE_S
        injector = Injector(
            crew=crew,
            servers=self.servers,
            watch=watch,
            start_s=start_s,
            recovers_within_s=self.terms.recovers_within_s,
            over=self.over,
        )
        done: list[Future[Told]] = []
        with ThreadPoolExecutor(8, thread_name_prefix="fault") as pool, self._ending_faults(watch):
            under_way: dict[Future[Told], Fault] = {}
            for fault in self.plan:
                self._sleep_until(start_s + fault.at_s)
                if time.monotonic() > give_up_s:
                    break
                self._await_room(fault, under_way, load)
                future = pool.submit(injector.carry_out, fault)
                under_way[future] = fault
                done.append(future)
                self.say(
                    f"{_clock(time.monotonic() - start_s)}  {fault.number:>3}  {fault.kind}: {fault.target}"
                )
            while any(not future.done() for future in under_way):
                self._await_room(None, under_way, load)
            if not self.plan:
                self._sleep_until(start_s + self.terms.seconds)
        return [future.result() for future in done]

    @contextmanager
    def _ending_faults(self, watch: Watch) -> Iterator[None]:
        """Let what is under way end soon where the campaign is broken off."""
        try:
            yield
        except BaseException:
            self.over.set()
            watch.stop()
            raise

    def _await_room(self, fault: Fault | None, under_way: dict[Future[Told], Fault], load: Load) -> None:
        """Wait until nothing is under way that the next fault (None: the end) must not meet."""
        time_of_overlap_s = time.monotonic() + _OVERLAPS_AFTER_S
        while True:
            self._require_threads()
            for future in [future for future in under_way if future.done()]:
                self._tell(future.result(), load)
                del under_way[future]
            meets = [each for each in under_way.values() if fault is None or not _may_meet(each, fault)]
            if not meets:
                if under_way:
                    self._sleep_until(time_of_overlap_s)
                return
            self._sleep_until(time.monotonic() + 0.1)

    def _tell(self, told: Told, load: Load) -> None:
        if not told.is_recovered:
            self.say(f"     {told.number:>3}  NOT RECOVERED: {', '.join(told.standing[:_MISSING_SHOWN])}")
            return
        outage = f"{told.recovered_s:.1f} s" if told.recovered_s is not None else "not before its end"
        self.say(
            f"     {told.number:>3}  {told.note}; all went on after {outage}, {told.again_s:.1f} s after its end"
            f"  ({load.acknowledgements:,} submissions so far)"
        )

    def _await_load(self, load: Load) -> None:
        """Let the load send what it still has to."""
        self.say(f"The faults are over; {load.sent:,} submissions were sent so far.")
        seconds = max(self.terms.leads - load.sent, 0) / self.terms.rate_per_s * _FAULTS_MAY_TAKE
        ends_at_s = time.monotonic() + seconds + _LOAD_ENDS_WITHIN_S
        while not load.is_done:
            self._require_threads()
            if time.monotonic() > ends_at_s:
                raise CampaignError(
                    f"Only {load.sent:,} of {self.terms.leads:,} submissions were sent in time."
                )
            self._sleep_until(time.monotonic() + 0.1)

    def _rest(self, crew: Crew) -> tuple[float | None, Sequence[str]]:
        """Wait until nothing is missing, several looks in a row; tell how long it took, and what is missing still."""
        self.say("Waiting for everything to come to rest ...")
        start_s = time.monotonic()
        found, missing = self._await_rest(start_s + self.terms.rests_within_s)
        if found is None:
            self.say("Not at rest: " + "; ".join(missing[:_MISSING_SHOWN]))
            self.subject.bring_to_rest(crew)
            found, missing = self._await_rest(time.monotonic() + self.terms.rests_within_s / 2)
        return (None if found is None else found - start_s), missing

    def _await_rest(self, ends_at_s: float) -> tuple[float | None, Sequence[str]]:
        looks, missing, at_rest_s = 0, ["nothing can be read"], 0.0
        while time.monotonic() < ends_at_s:
            self._require_threads()
            try:
                missing = list(self.subject.missing())
            except Unreachable as error:
                missing = [f"a server does not answer: {error}"]
            looks = looks + 1 if not missing else 0
            if looks == 1:
                at_rest_s = time.monotonic()
            if looks == _LOOKS_AT_REST:
                return at_rest_s, ()
            self._sleep_until(time.monotonic() + _LOOK_EVERY_S)
        return None, missing

    def _require_threads(self) -> None:
        for thread in self.threads:
            if thread.done():
                thread.result()

    def _sleep_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            self._require_threads()
            time.sleep(min(left_s, 0.2))

    @contextmanager
    def _thread(self, run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
        pool = ThreadPoolExecutor(1)
        try:
            self.threads.append(pool.submit(run))
            yield
        finally:
            stop()
            pool.shutdown(wait=True)


def _may_meet(under_way: Fault, following: Fault) -> bool:
    """Tell whether a fault may strike while another is not over: never the same step's, nor two of servers."""
    if not under_way.overlaps or (following.kind in OF_SERVERS and under_way.kind in OF_SERVERS):
        return False
    return under_way.target.partition("-")[0] != following.target.partition("-")[0]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
