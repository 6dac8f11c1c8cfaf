"""Commit, relay, take-over, counters and readers, small enough to try every order of events.

Two owners work on one partition, each believing that it is theirs. Its two inputs are lead `one`, which is sold at
once, and lead `two`, whose auction is opened and then closed by the clock, without any input. Lead `three` is decided
in another partition and draws on the same counter, which has one unit. One outsider is told of each entry.

The model's terms, the code that they stand for, and the rule of the protocol:

- `Database.version`, `.next`, `.chain`, `.published`: the head row (`ports.Head`); a chain is all entries so far, as
  the hash of the last one covers them all, so that two chains are equal when seq and hash are (rules 1, 14).
- `Database.rows`: `router.log`; `.used`: the counter; `.auction`: `router.auctions`; `.undelivered`: rule 17.
- `Database.fold`, `.charged`: a reader's stored position and what it made of the entries (rule 20).
- `Worker.place`: DOWN before `Router._take_over`; BEHIND, TABLE and TABLE_MARK in `Router._publish_from_table`; IDLE
  between two calls of `handle` or `idle`; READING in `_read`; DECIDED before `store.commit`; MEMORY from
  `_publish` to `_finish_publishing`, which comes before the next commit; RETRYING in `Relay.retry`; STOPPED after
  `_require_origin` refused (rule 22).
- `Worker.version`, `.published`, `.mark`, `.silent`: `step._Owned` with its mark; `.knows_behind`: `Relay._behind`.
- "takes over" by any owner at any time stands for rebalances; the other owner goes on, which is the zombie.
- "crashes" ends a worker between any two effects. An acknowledgement that is lost after the log took the record ends
  the worker too (`BusFailed`): the step that publishes, and then a crash.
- "loses the answer of COMMIT" is `StartAgain`, with the transaction committed or not (rule 4).
- `Entry.by` stands for all that makes two owners' bytes differ: `decided_at_ms`, the market's version.

The constraints of the tables (rule 8) are left out on purpose: the protocol has to keep the promises without them.
Each rule is a switch (`Off`); without any one of them `test_model.py` is shown how it goes wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from typing import NamedTuple

from tests.model.checking import Model, Step

CAP = 1
LEADS = ("one", "two")
SOLD, UNSOLD, OPENED = "sold", "unsold", "opened"


class Off(StrEnum):
    """A rule that is not kept, or a way in which it is broken."""

    VERSION_COMPARED = "rule 1: the commit compares nothing"
    MORE_THAN_POSITIONS = "rule 1: the commit compares input positions alone"
    HEAD_READ_FIRST = "rule 1: leads are read before the head, which is then taken as it is found"
    SEEK_BACK = "rule 3: an overtaken owner goes on from where it had polled"
    DROP_DECIDED = "rule 3: records queued from before a take-over are decided, wherever the head is"
    UNKNOWN_IS_COMMITTED = "rule 4: a commit without an answer is taken for committed"
    UNKNOWN_BY_POSITION = "rule 4: a commit without an answer is taken for ours when the position has moved"
    LIMIT_CHECKED_AT_COMMIT = "rule 6: the counter is not looked at again in the transaction"
    COUNTER_LOCKED = "rule 6: the counter is compared and written as it was read, without a lock"
    COUNTER_IN_TRANSACTION = "rule 6: the counter is drawn on before the transaction"
    ROOM_FORGOTTEN = "rule 6: what an owner drew in vain stays drawn in its memory"
    PUBLISHED_AFTER_COMMIT = "rule 15: entries are published before their commit"
    TABLE_FIRST = "rule 15: a new owner leaves what it finds unpublished"
    IN_ORDER = "rule 15: entries are published last one first"
    SAME_BYTES = "rule 14: a new owner writes what it finds unpublished anew"
    MARK_COMPARED = "rule 16: the mark is set without comparing it"
    MARK_AFTER_PUBLISHING = "rule 16: the mark moves with the entry's own commit"
    UNDELIVERED_KEPT = "rule 17: what a recipient did not take is not noted"
    LATER_ONES_WAIT = "rule 17: later records overtake those that a recipient did not take"
    NEXT_SEQ_ONLY = "rule 20: a reader takes whatever comes"
    READER_COMPARES = "rule 20: a reader's position is set without comparing it"
    READER_MOVES_WITH_FOLD = "rule 20: a reader's position is stored after what it did"
    READER_MOVES_AFTER_FOLD = "rule 20: a reader's position is stored before what it does"
    ORIGIN_COMPARED = "rule 22: a log that knows more than the database goes unnoticed"


class Place(StrEnum):
    """Where in its program a worker is."""

    DOWN = "down"
    IDLE = "idle"
    BEHIND = "behind"
    TABLE = "table"
    TABLE_MARK = "table mark"
    READING = "reading"
    DECIDED = "decided"
    MEMORY = "memory"
    RETRYING = "retrying"
    STOPPED = "stopped"


class Entry(NamedTuple):
    """An entry of the log: what was decided about a lead, and all else in its bytes."""

    lead: str
    what: str
    by: str


Chain = tuple[Entry, ...]


class Position(NamedTuple):
    """A reader's: the offset to read next, and the last entry taken with all before it."""

    offset: int = 0
    chain: Chain = ()


class Database(NamedTuple):
    """All that survives; `highest_mark` is not stored anywhere, it is there to be compared."""

    version: int = 0
    next: int = 0
    chain: Chain = ()
    published: int = 0
    highest_mark: int = 0
    rows: tuple[Chain, ...] = ()
    used: int = 0
    auction: bool = False
    undelivered: frozenset[Chain] = frozenset()
    third: str = ""
    fold: Position = Position()
    charged: tuple[Entry, ...] = ()


class Draft(NamedTuple):
    """A batch as it was decided, and what it was decided on."""

    version: int
    published: int
    next_before: int
    next: int
    chain_before: Chain
    added: Chain
    draws: int
    used_read: int
    auction: bool


class Read(NamedTuple):
    """What a batch has read so far: the head, or without `HEAD_READ_FIRST` the rest."""

    database: Database
    inputs: int


class Worker(NamedTuple):
    """A router's worker, and what it has in memory."""

    place: Place = Place.DOWN
    version: int = 0
    published: int = 0
    at: int = -1
    mark: int = -1
    silent: frozenset[Chain] = frozenset()
    knows_behind: bool = False
    read: Read | None = None
    draft: Draft | None = None
    log: tuple[Chain, ...] = ()
    outside: tuple[Chain, ...] = ()
    retried: Chain = ()
    drawn_in_vain: int = 0


DOWN = Worker()


class Reader(NamedTuple):
    """A worker that folds the log; `next` is the record that it has taken and not yet stored."""

    is_up: bool = False
    stored: Position = Position()
    at: Position = Position()
    next: Position | None = None
    half: str = ""


class Left(NamedTuple):
    """How many faults of each kind may still happen."""

    crashes: int = 0
    unknown: int = 0
    refusals: int = 0
    restores: int = 0


class State(NamedTuple):
    """Everything. `third`: what lead three's owner has decided and not yet committed; `saved`: an old backup."""

    database: Database
    topic: tuple[Chain, ...]
    outside: tuple[Chain, ...]
    workers: tuple[Worker, ...]
    readers: tuple[Reader, ...]
    left: Left
    third: str = ""
    saved: Database | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What may happen, and the rules that are not kept."""

    left: Left
    readers: int = 0
    workers: int = 2
    off: frozenset[Off] = field(default_factory=frozenset)


def model(settings: Settings) -> Model[State]:
    """Give the model under these settings."""
    saved = Database() if settings.left.restores else None
    initial = State(
        Database(),
        (),
        (),
        (DOWN,) * settings.workers,
        (Reader(),) * settings.readers,
        settings.left,
        "",
        saved,
    )
    return Model(
        initial=initial,
        steps=partial(_steps, settings),
        wrong=wrong,
        is_done=lambda state: _is_done(settings, state),
    )


# What must hold


def taken(topic: tuple[Chain, ...]) -> Chain | None:
    """Read the log as `contract.entries.take` says, from its first record; None where history was changed."""
    chain: Chain = ()
    for record in topic:
        if len(record) == len(chain) + 1:
            if record[:-1] != chain:
                return None
            chain = record
    return chain


def wrong(state: State) -> str | None:
    """Say which promise is broken, if one is."""
    return _wrong(state.database, state.topic, state.outside, state.saved is not None)


@lru_cache(maxsize=500_000)
def _wrong(
    database: Database, topic: tuple[Chain, ...], outside: tuple[Chain, ...], is_restorable: bool
) -> str | None:
    """Look at what is outside of the workers, which many states have in common."""
    return (
        _wrong_decisions(database)
        or _wrong_telling(database, topic, outside, is_restorable)
        or _wrong_reading(database, is_restorable)
    )


def _wrong_decisions(database: Database) -> str | None:
    chain = database.chain
    if database.rows != tuple(chain[:seq] for seq in range(1, len(chain) + 1)):
        return "the table's entries are not numbered and chained one after the other"
    told = [(entry.lead, entry.what == OPENED) for entry in chain]
    if len(set(told)) < len(told):
        return "a lead is decided twice"
    if [entry.lead for entry in chain if entry.what == OPENED or entry.lead != "two"] != list(
        LEADS[: database.next]
    ):
        return "an input is passed over"
    sold = _sold(database)
    if sold > CAP:
        return f"{sold} sales are drawn on a cap of {CAP}"
    if database.used != sold:
        return f"the counter says {database.used} where {sold} are sold"
    if sold < CAP and (database.third == UNSOLD or any(entry.what == UNSOLD for entry in chain)):
        return "a lead goes unsold for want of a unit that nobody has"
    return None


def _sold(database: Database) -> int:
    return sum(entry.what == SOLD for entry in database.chain) + (database.third == SOLD)


def _wrong_telling(
    database: Database, topic: tuple[Chain, ...], outside: tuple[Chain, ...], is_restorable: bool
) -> str | None:
    rows = database.rows
    if not is_restorable and not set(topic).issubset(rows):
        return "the log tells what was never committed"
    if not is_restorable and not set(outside).issubset(rows):
        return "an outsider is told what was never committed"
    read = taken(topic)
    if read is None:
        return "a reader finds an entry that does not follow its last one"
    if database.published > len(read):
        return "the mark is beyond what was published"
    if database.published < database.highest_mark:
        return "the mark went back"
    if list(outside) != sorted(outside, key=len):
        return "an outsider is told of entries in another order than theirs"
    marked = {row for row in rows if len(row) <= database.published}
    if not is_restorable and not marked.issubset({*outside, *database.undelivered}):
        return "an entry is behind the mark, and its outsider neither told nor noted as still to be told"
    return None


def _wrong_reading(database: Database, is_restorable: bool) -> str | None:
    charged = database.charged
    if charged != database.chain[: len(charged)] and not is_restorable:
        return "a reader did not take each entry once and in order"
    return None


def _is_done(settings: Settings, state: State) -> bool:
    """All is decided, published, told and folded, and the cap is used up: there were more takers than units."""
    if settings.left.restores and all(worker.place is Place.STOPPED for worker in state.workers):
        return True
    database = state.database
    closed = {entry.lead for entry in database.chain if entry.what != OPENED}
    return (
        closed == set(LEADS)
        and database.third != ""
        and taken(state.topic) == database.chain
        and database.published == len(database.chain)
        and set(state.outside) == set(database.rows)
        and not database.undelivered
        and (not settings.readers or len(database.charged) == len(database.chain))
        and database.used == CAP
    )


# What can happen


def _steps(settings: Settings, state: State) -> Iterator[Step[State]]:
    for index in range(len(state.workers)):
        yield from _Owner(settings, state, index).steps()
    for index in range(len(state.readers)):
        yield from _reading(settings, state, index)
    yield from _third(settings, state)
    if state.left.restores and state.saved is not None and all(w.place is Place.DOWN for w in state.workers):
        left = state.left._replace(restores=state.left.restores - 1)
        yield Step(
            "the database is restored from an old backup",
            state._replace(database=state.saved, third="", left=left),
            True,
        )


def _third(settings: Settings, state: State) -> Iterator[Step[State]]:
    """Lead three, in its own partition, by an owner that nobody disturbs."""
    database = state.database
    room = database.used < CAP
    if database.third:
        return
    if not state.third:
        yield Step("three: decides", state._replace(third=SOLD if room else UNSOLD))
    elif state.third == SOLD and not room and Off.LIMIT_CHECKED_AT_COMMIT not in settings.off:
        yield Step("three: finds no room, decides again", state._replace(third=UNSOLD))
    else:
        used = database.used + (state.third == SOLD)
        yield Step(
            "three: commits",
            state._replace(database=database._replace(third=state.third, used=used), third=""),
        )


class _Owner:
    """The steps of one worker of the router."""

    def __init__(self, settings: Settings, state: State, index: int) -> None:
        self._settings = settings
        self._off = settings.off
        self._state = state
        self._index = index
        self._worker = state.workers[index]
        self._name = "AB"[index]

    def steps(self) -> Iterator[Step[State]]:
        """Give what this worker may do, and what may befall it."""
        match self._worker.place:
            case Place.DOWN:
                yield self._step("takes over", self._taken_over())
            case Place.BEHIND:
                yield self._read_table()
            case Place.TABLE | Place.MEMORY:
                yield from self._publish()
            case Place.TABLE_MARK:
                yield self._move_mark()
            case Place.IDLE:
                yield from self._idle()
            case Place.READING:
                yield self._finish_reading()
            case Place.DECIDED:
                yield from self._commit()
            case Place.RETRYING:
                yield self._forget_delivered()
            case Place.STOPPED:
                return
        if self._state.left.crashes and self._worker.place is not Place.DOWN:
            left = self._state.left._replace(crashes=self._state.left.crashes - 1)
            yield Step(f"{self._name}: crashes", self._with(DOWN)._replace(left=left), True)

    def _with(self, worker: Worker, database: Database | None = None) -> State:
        workers = list(self._state.workers)
        workers[self._index] = worker
        return self._state._replace(workers=(*workers,), database=database or self._state.database)

    def _step(self, name: str, worker: Worker, database: Database | None = None) -> Step[State]:
        return Step(f"{self._name}: {name}", self._with(worker, database))

    # Taking over

    def _taken_over(self) -> Worker:
        """Begin at the head (`Router._take_over`)."""
        database, topic = self._state.database, self._state.topic
        is_foreign = bool(topic) and topic[-1] not in database.rows
        if is_foreign and Off.ORIGIN_COMPARED not in self._off:
            return Worker(place=Place.STOPPED)
        behind = database.published < len(database.chain) and Off.TABLE_FIRST not in self._off
        at = max(database.next, self._worker.at)
        if Off.DROP_DECIDED in self._off and self._worker.at >= 0:
            at = self._worker.at
        return Worker(
            place=Place.BEHIND if behind else Place.IDLE,
            version=database.version,
            published=len(database.chain) if Off.TABLE_FIRST in self._off else database.published,
            at=at,
            knows_behind=bool(database.undelivered),
            drawn_in_vain=self._worker.drawn_in_vain,
        )

    def _started_again(self) -> Worker:
        """Be told that another owner has moved on: forget all and begin again, later."""
        worker = self._worker
        at = -1
        if Off.SEEK_BACK in self._off:
            at = worker.draft.next if worker.draft is not None else worker.at
        elif Off.DROP_DECIDED in self._off:
            at = worker.at
        vain = worker.drawn_in_vain
        if Off.ROOM_FORGOTTEN in self._off and worker.draft is not None:
            vain += worker.draft.draws
        return DOWN._replace(at=at, drawn_in_vain=vain)

    def _is_mine(self, database: Database) -> bool:
        if self._off & {Off.VERSION_COMPARED, Off.MORE_THAN_POSITIONS, Off.HEAD_READ_FIRST}:
            return (database.next, database.published) == (self._worker.at, self._worker.published)
        return (database.version, database.published) == (self._worker.version, self._worker.published)

    def _read_table(self) -> Step[State]:
        database, worker = self._state.database, self._worker
        if not self._is_mine(database):
            return self._step("finds the head elsewhere", self._started_again())
        rows = tuple(row for row in database.rows if len(row) > database.published)
        if not rows:
            return self._step("finds nothing unpublished", self._started_again())
        if Off.SAME_BYTES in self._off:
            rows = tuple((*row[:-1], row[-1]._replace(by=self._name)) for row in rows)
        sending = worker._replace(place=Place.TABLE, log=rows, outside=rows)
        return self._step(f"reads {len(rows)} unpublished from the table", sending)

    # Publishing

    def _publish(self) -> Iterator[Step[State]]:
        """Send one record: all of a batch to the log first, then to the outsider (`Relay.publish`)."""
        worker, state = self._worker, self._state
        if worker.log:
            last_first = Off.IN_ORDER in self._off
            record = worker.log[-1] if last_first else worker.log[0]
            rest = worker.log[:-1] if last_first else worker.log[1:]
            topic = state.topic if self._is_known(record) else (*state.topic, record)
            published = self._with(worker._replace(log=rest))._replace(topic=topic)
            yield Step(f"{self._name}: publishes entry {len(record)}", published)
            return
        record, rest = worker.outside[0], worker.outside[1:]
        if worker.knows_behind and Off.LATER_ONES_WAIT not in self._off:
            kept = worker._replace(outside=rest, silent=worker.silent | {record})
            yield self._step(
                f"holds the outsider's record of entry {len(record)} back", self._told(kept, record)
            )
            return
        sent = self._with(self._told(worker._replace(outside=rest), record))
        yield Step(
            f"{self._name}: tells the outsider of entry {len(record)}",
            sent._replace(outside=self._heard(record)),
        )
        if state.left.refusals:
            left = state.left._replace(refusals=state.left.refusals - 1)
            silent = worker.silent if Off.UNDELIVERED_KEPT in self._off else worker.silent | {record}
            refused = worker._replace(outside=rest, silent=silent, knows_behind=True)
            after = self._with(self._told(refused, record))._replace(left=left)
            yield Step(f"{self._name}: is not heard by the outsider, entry {len(record)}", after, True)

    def _is_known(self, record: Chain) -> bool:
        """Repeats change nothing for a reader by the rule: they are kept where real readers or a backup are tried."""
        keeps = self._settings.readers or self._state.saved is not None
        return not keeps and record in self._state.topic

    def _heard(self, record: Chain) -> tuple[Chain, ...]:
        """An outsider keeps what it hears first: repeats have the same id."""
        heard = self._state.outside
        return heard if record in heard else (*heard, record)

    @staticmethod
    def _told(worker: Worker, record: Chain) -> Worker:
        if worker.outside:
            return worker
        if worker.draft is not None:
            return worker._replace(place=Place.DECIDED)
        place = Place.TABLE_MARK if worker.place is Place.TABLE else Place.IDLE
        return worker._replace(place=place, mark=len(record))

    def _move_mark(self) -> Step[State]:
        """Move the mark in a transaction of its own (`store.move_marks`)."""
        database, worker = self._state.database, self._worker
        if database.published != worker.published and Off.MARK_COMPARED not in self._off:
            return self._step("finds the mark elsewhere", self._started_again())
        moved = worker._replace(place=Place.IDLE, published=worker.mark, mark=-1, silent=frozenset())
        return self._step("moves the mark", moved, _marked(database, worker))

    # Deciding

    def _idle(self) -> Iterator[Step[State]]:
        database, worker = self._state.database, self._worker
        if worker.mark >= 0:
            yield self._move_mark()
        elif worker.knows_behind:
            yield self._retry()
        polled = worker.at
        for inputs in range(1, len(LEADS) - polled + 1):
            yield self._begin_reading(inputs)
        if database.auction:
            yield self._begin_reading(0)

    def _begin_reading(self, inputs: int) -> Step[State]:
        """Read the head; what it says is all that a head says."""
        what = f"polls {inputs}" if inputs else "sees the auction's time come"
        now = self._state.database
        head = Database(version=now.version, next=now.next, chain=now.chain, published=now.published)
        if Off.HEAD_READ_FIRST in self._off:
            head = Database(used=now.used, auction=now.auction)  # the rest, in fact: the head comes after it
        read = Read(head, inputs)
        return self._step(f"{what}, begins to read", self._worker._replace(place=Place.READING, read=read))

    def _finish_reading(self) -> Step[State]:
        """Read what the leads and the counter are now, and decide (`Router._read`, `_decide`)."""
        worker, now = self._worker, self._state.database
        assert worker.read is not None
        head, rest = worker.read.database, now
        if Off.HEAD_READ_FIRST in self._off:
            head, rest = rest, head
        if not self._is_mine(head):
            return self._step("finds the head elsewhere", self._started_again())
        draft = self._decided(head, rest, worker.read.inputs)
        if draft is None:
            return self._step("has nothing to decide", worker._replace(place=Place.IDLE, read=None))
        decided = worker._replace(place=Place.DECIDED, read=None, draft=draft)
        if Off.PUBLISHED_AFTER_COMMIT in self._off:
            chains = _chains(draft)
            decided = decided._replace(place=Place.MEMORY, log=chains, outside=chains)
        return self._step(f"decides {_telling(draft)}", decided)

    def _decided(self, head: Database, rest: Database, inputs: int) -> Draft | None:
        """Decide leads from the head's position on (`batch.start`); or close the auction, if it is open."""
        worker = self._worker
        end = worker.at + inputs
        begin = worker.at if Off.DROP_DECIDED in self._off or Off.SEEK_BACK in self._off else head.next
        leads = LEADS[begin:end]
        room = CAP - rest.used - worker.drawn_in_vain
        added: list[Entry] = []
        for lead in leads:
            what = OPENED if lead == "two" else SOLD if room > 0 else UNSOLD
            room -= what == SOLD
            added.append(Entry(lead, what, self._name))
        if not inputs and rest.auction:
            added.append(Entry("two", SOLD if room > 0 else UNSOLD, self._name))
        if not added:
            return None
        return Draft(
            version=head.version,
            published=head.published,
            next_before=head.next,
            next=max(head.next, end) if inputs else head.next,
            chain_before=head.chain,
            added=(*added,),
            draws=sum(entry.what == SOLD for entry in added),
            used_read=rest.used,
            auction=any(entry.what == OPENED for entry in added),
        )

    # Committing

    def _commit(self) -> Iterator[Step[State]]:
        worker, database = self._worker, self._state.database
        draft = worker.draft
        assert draft is not None
        if not self._is_unmoved(database, draft):
            yield self._step("is overtaken", self._started_again())
            return
        used = draft.used_read if Off.COUNTER_LOCKED in self._off else database.used
        if used + draft.draws > CAP and Off.LIMIT_CHECKED_AT_COMMIT not in self._off:
            yield self._step("finds no room, decides again", worker._replace(draft=self._without_room(draft)))
            return
        if Off.COUNTER_IN_TRANSACTION in self._off and draft.draws and draft.used_read >= 0:
            drawn = worker._replace(draft=draft._replace(used_read=-1))
            yield self._step(
                "draws on the counter", drawn, database._replace(used=database.used + draft.draws)
            )
            return
        after = self._written(database, draft)
        saved = database if self._state.saved is not None else None
        yield Step(
            f"{self._name}: commits {_telling(draft)}",
            self._with(self._committed(draft), after)._replace(saved=saved),
        )
        if self._state.left.unknown:
            left = self._state.left._replace(unknown=self._state.left.unknown - 1)
            for is_committed, stored in ((True, after), (False, database)):
                told = "committed" if is_committed else "not committed"
                lost = self._with(self._without_answer(draft, stored), stored)
                kept = saved if is_committed else self._state.saved
                name = f"{self._name}: loses the answer of COMMIT, {told}: {_telling(draft)}"
                yield Step(name, lost._replace(left=left, saved=kept), True)

    def _is_unmoved(self, database: Database, draft: Draft) -> bool:
        """The compare-and-set of the head row (rule 1)."""
        if Off.VERSION_COMPARED in self._off:
            return True
        if Off.MORE_THAN_POSITIONS in self._off:
            return database.next == draft.next_before
        is_same = database.version == draft.version
        return is_same and (database.published == draft.published or Off.MARK_COMPARED in self._off)

    def _without_room(self, draft: Draft) -> Draft:
        """Decide again on what the counter has now; nothing gives a unit back, so that nothing is sold."""
        added = tuple(entry._replace(what=UNSOLD) if entry.what == SOLD else entry for entry in draft.added)
        return draft._replace(added=added, draws=0)

    def _written(self, database: Database, draft: Draft) -> Database:
        """Everything that one transaction writes (`store.commit`)."""
        added = _chains(draft)
        used = database.used + draft.draws
        if Off.COUNTER_LOCKED in self._off:
            used = draft.used_read + draft.draws if draft.draws else database.used
        if draft.used_read < 0:
            used = database.used
        written = database._replace(
            version=database.version + 1,
            next=draft.next,
            chain=added[-1],
            rows=(*database.rows, *added),
            used=used,
            auction=draft.auction,
        )
        written = _marked(written, self._worker) if self._worker.mark >= 0 else written
        if Off.MARK_AFTER_PUBLISHING in self._off:
            end = len(added[-1])
            written = written._replace(published=end, highest_mark=end, undelivered=frozenset(added))
        return written

    def _committed(self, draft: Draft) -> Worker:
        """Follow what was committed, and publish it from memory (`Router._follow`, `_publish`)."""
        worker = self._worker
        chains = _chains(draft)
        published = worker.mark if worker.mark >= 0 else worker.published
        after = Worker(
            place=Place.MEMORY,
            version=draft.version + 1,
            published=published,
            at=max(worker.at, draft.next),
            knows_behind=worker.knows_behind,
            log=chains,
            outside=chains,
            drawn_in_vain=worker.drawn_in_vain,
        )
        if Off.MARK_AFTER_PUBLISHING in self._off:
            return after._replace(published=len(chains[-1]))
        if Off.PUBLISHED_AFTER_COMMIT in self._off:
            return after._replace(place=Place.IDLE, log=(), outside=(), mark=len(chains[-1]))
        return after

    def _without_answer(self, draft: Draft, stored: Database) -> Worker:
        """What a worker does that has lost its connection in COMMIT."""
        if Off.UNKNOWN_IS_COMMITTED in self._off:
            return self._committed(draft)
        if Off.UNKNOWN_BY_POSITION in self._off:
            return self._worker._replace(place=Place.RETRYING)
        return self._started_again()

    # What is left for later

    def _retry(self) -> Step[State]:
        """Send the first of what is behind again (`Relay.retry`)."""
        worker = self._worker
        if not self._state.database.undelivered:
            return self._step("has nothing behind any more", worker._replace(knows_behind=False))
        record = min(self._state.database.undelivered, key=len)
        again = self._with(worker._replace(place=Place.RETRYING, retried=record))
        name = f"{self._name}: tells the outsider again of entry {len(record)}"
        return Step(name, again._replace(outside=self._heard(record)))

    def _forget_delivered(self) -> Step[State]:
        worker, database = self._worker, self._state.database
        if worker.draft is not None:
            return self._look_at_the_position(worker.draft)
        left = database.undelivered - {worker.retried}
        after = worker._replace(place=Place.IDLE, retried=(), knows_behind=bool(left))
        return self._step("forgets what was delivered", after, database._replace(undelivered=left))

    def _look_at_the_position(self, draft: Draft) -> Step[State]:
        """Without rule 4: the position has moved as ours would have, so it was us."""
        if self._state.database.next == draft.next and draft.next > draft.next_before:
            return self._step("takes the position for its own", self._committed(draft))
        return self._step("finds nothing committed", self._started_again())


def _chains(draft: Draft) -> tuple[Chain, ...]:
    """Give the entries of a batch, each with all before it."""
    whole = (*draft.chain_before, *draft.added)
    return tuple(whole[:seq] for seq in range(len(draft.chain_before) + 1, len(whole) + 1))


def _telling(draft: Draft) -> str:
    return ", ".join(f"{entry.lead} {entry.what}" for entry in draft.added)


def _marked(database: Database, worker: Worker) -> Database:
    return database._replace(
        published=worker.mark,
        highest_mark=max(database.highest_mark, worker.mark),
        undelivered=database.undelivered | worker.silent,
    )


# Readers


def _reading(settings: Settings, state: State, index: int) -> Iterator[Step[State]]:
    """The steps of one worker that folds the log (`LogReader`), of which two may think the partition theirs."""
    reader, name = state.readers[index], f"reader {index + 1}"
    if state.left.crashes and reader.is_up:
        left = state.left._replace(crashes=state.left.crashes - 1)
        yield Step(f"{name}: crashes", _with_reader(state, index, Reader())._replace(left=left), True)
    if not reader.is_up:
        stored = state.database.fold
        yield Step(f"{name}: takes over", _with_reader(state, index, Reader(True, stored, stored)))
    elif reader.half or reader.next is not None:
        yield from _folding(settings, state, index)
    elif reader.at.offset < len(state.topic):
        yield _reading_on(settings, state, index)


def _reading_on(settings: Settings, state: State, index: int) -> Step[State]:
    """Take the next record, or drop it (`contract.entries.take`)."""
    reader, name = state.readers[index], f"reader {index + 1}"
    record, offset = state.topic[reader.at.offset], reader.at.offset
    is_next = record[:-1] == reader.at.chain and bool(record)
    if is_next or Off.NEXT_SEQ_ONLY in settings.off:
        taking = reader._replace(next=Position(offset + 1, record))
        return Step(f"{name}: takes entry {len(record)}", _with_reader(state, index, taking))
    passed = reader._replace(at=reader.at._replace(offset=offset + 1))
    return Step(f"{name}: drops entry {len(record)}", _with_reader(state, index, passed))


def _folding(settings: Settings, state: State, index: int) -> Iterator[Step[State]]:
    """Store what a record means together with the position, if the stored one is still ours."""
    reader, database = state.readers[index], state.database
    name, after = f"reader {index + 1}", reader.next
    assert after is not None
    charged = (*database.charged, after.chain[-1])
    done = Reader(True, after, after)
    if database.fold != reader.stored and Off.READER_COMPARES not in settings.off and not reader.half:
        yield Step(f"{name}: is overtaken", _with_reader(state, index, Reader()))
    elif Off.READER_MOVES_WITH_FOLD in settings.off and not reader.half:
        half = _with_reader(state, index, reader._replace(half="folded"))
        yield Step(f"{name}: charges", half._replace(database=database._replace(charged=charged)))
    elif Off.READER_MOVES_AFTER_FOLD in settings.off and not reader.half:
        half = _with_reader(state, index, reader._replace(half="moved"))
        yield Step(f"{name}: moves its position", half._replace(database=database._replace(fold=after)))
    else:
        stored = database._replace(
            charged=database.charged if reader.half == "folded" else charged,
            fold=database.fold if reader.half == "moved" else after,
        )
        yield Step(
            f"{name}: commits entry {len(after.chain)}",
            _with_reader(state, index, done)._replace(database=stored),
        )
        if state.left.unknown:
            left = state.left._replace(unknown=state.left.unknown - 1)
            lost = _with_reader(state, index, Reader())._replace(database=stored, left=left)
            yield Step(f"{name}: loses the answer of COMMIT, committed", lost, True)


def _with_reader(state: State, index: int, reader: Reader) -> State:
    readers = list(state.readers)
    readers[index] = reader
    return state._replace(readers=(*readers,))
