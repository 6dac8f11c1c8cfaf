"""The relay: publishes committed entries to the log and to their recipients, in the order of the log.

It is part of the router's worker and decides nothing: every record is a function of an entry and the vault. What a
recipient's topic does not acknowledge is handed back as undelivered, and kept behind until it is (protocol.md,
rules 15 to 19).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from services.bus.ports import Message, Producer, Sending, Stopped, Unacknowledged
from services.contract.cloudevents import AVRO, JSON, outsider_headers
from services.contract.codec import Codec
from services.contract.entries import Entry
from services.contract.events import Event, FailureReason
from services.contract.inputs import ReportFailedDelivery
from services.contract.topics import Topics
from services.router.messages import Channel, Outgoing, react
from services.router.outside_values import avro_value, json_value
from services.router.ports import Behind, LogRow, RouterStore, UndeliveredRow, VaultReader

ACKNOWLEDGED_WITHIN_S = 1.0
RETRIED_AT_ONCE_MAX = 1_000

_log = structlog.get_logger("gavel.router")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """An entry whose commit has returned, or that was read from the table."""

    row: LogRow
    entry: Entry
    events: Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDelivery:
    """A delivery that can never be made: undelivered until the log tells so (rule 18)."""

    row: UndeliveredRow
    report: ReportFailedDelivery


@dataclass(slots=True, kw_only=True)
class Published:
    """What became of a batch: what is undelivered, and which of that can never be delivered."""

    undelivered: list[UndeliveredRow] = field(default_factory=list)
    failed: list[FailedDelivery] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Retried:
    """What became of a retry. `more`: others of those that answer wait; `all_silent`: nobody answered."""

    failed: list[FailedDelivery] = field(default_factory=list)
    more: bool = False
    all_silent: bool = False


@dataclass(frozen=True, slots=True)
class _Letter:
    """A record for an outsider, ready to be sent, and where it belongs in the log."""

    row: UndeliveredRow
    lead_id: str
    outgoing: Outgoing
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """A batch that is being published: the log's part, the outsiders', and what waits behind earlier records."""

    log: Sending
    outside: Sending
    letters: Sequence[_Letter]
    waiting: Sequence[UndeliveredRow]
    published: Published
    batch: Sequence[Committed]


class NotAlive(Exception):
    """The worker may have lost its partitions: it sends nothing more with contact details (rule 15)."""


class Relay:
    """Publishes what follows from committed entries."""

    def __init__(
        self,
        *,
        store: RouterStore,
        vault: VaultReader,
        log_producer: Producer,
        outside_producer: Producer,
        codec: Codec,
        topics: Topics,
        alive: Callable[[], bool],
        is_known: Callable[[str, str], bool],
        avro_buyers: Callable[[int], Collection[str]],
    ) -> None:
        """Take the producers and what the relay asks of the market.

        `is_known(kind, id)`: whether it has this source or buyer. `avro_buyers(version)`: who wants Avro there.
        """
        self._store = store
        self._vault = vault
        self._log_producer = log_producer
        self._outside_producer = outside_producer
        self._codec = codec
        self._topics = topics
        self._alive = alive
        self._is_known = is_known
        self._avro_buyers = avro_buyers
        self._behind: dict[int, set[str]] = {}

    def take_over(self, partition: int) -> None:
        """Learn which recipients have records behind in this partition."""
        self._behind[partition] = set(self._store.behind(partition))

    def release(self, partition: int) -> None:
        """Forget a partition."""
        self._behind.pop(partition, None)

    def read(self, rows: Iterable[LogRow]) -> list[Committed]:
        """Decode entries that come from the table."""
        entries = [(row, self._codec.decode_entry(row.value)) for row in rows]
        return [
            Committed(row=row, entry=entry, events=self._codec.events_of(entry)) for row, entry in entries
        ]

    def publish(self, batch: Sequence[Committed]) -> Publishing:
        """Begin to publish entries in order, to the log and to their recipients at once.

        Wait for one batch (`finish`) before the next. Raise `NotAlive` with nothing sent to outsiders, or `BusFailed`.
        """
        published = Published()
        letters = self._letters(batch, published)
        # In whichever partition: whose topic is silent is not sent more that may have to be repeated.
        behind = frozenset[str]().union(*self._behind.values())
        waiting = [letter.row for letter in letters if letter.row.recipient in behind]
        sending = [letter for letter in letters if letter.row.recipient not in behind]
        self._require_alive()
        log = self._log_producer.send([self._log_message(committed) for committed in batch])
        try:
            outside = self._send(sending)
        except NotAlive:
            log.wait()
            raise
        return Publishing(
            log=log, outside=outside, letters=sending, waiting=waiting, published=published, batch=batch
        )

    def finish(self, publishing: Publishing) -> Published:
        """Wait for what was begun, and say what became of it; raise `BusFailed`."""
        published = publishing.published
        publishing.log.wait()
        self._judge(publishing.letters, publishing.outside.wait(), published)
        for row in (*published.undelivered, *publishing.waiting):
            self._behind.setdefault(row.partition, set()).add(row.recipient)
        published.undelivered += [*publishing.waiting, *(failed.row for failed in published.failed)]
        return published

    def behind(self) -> int:
        """Count the recipients with undelivered records, in each partition."""
        return sum(map(len, self._behind.values()))

    def forget(self, rows: Sequence[UndeliveredRow]) -> None:
        """Take rows off the undelivered whose end the log has told."""
        if rows:
            self._store.delivered(rows)

    def retry(self) -> Retried:
        """Send again what is behind: one record first to each recipient, the rest in order to those that take it.

        So however many recipients are silent, the others wait once for all of them. Raise `NotAlive` or `Stopped`.
        """
        retried = Retried()
        behind = [
            Behind(at, recipient) for at, recipients in self._behind.items() for recipient in recipients
        ]
        first = {pair.recipient: pair for pair in reversed(behind)}
        silent = self._send_again(list(first.values()), retried, each=1)
        answering = [pair for pair in behind if pair.recipient not in silent]
        self._send_again(answering, retried, each=RETRIED_AT_ONCE_MAX)
        retried.all_silent = not answering
        return retried

    def _send_again(self, behind: Sequence[Behind], retried: Retried, *, each: int) -> set[str]:
        """Send these recipients' first records in these partitions; return the recipients that don't answer."""
        rows = self._store.undelivered(behind, each=each, limit=RETRIED_AT_ONCE_MAX)
        published = Published()
        letters = self._letters_again(rows, published)
        self._judge(letters, self._send(letters).wait(), published)
        kept = {*published.undelivered, *(failed.row for failed in published.failed)}
        self.forget([row for row in rows if row not in kept])
        retried.failed += [failed for failed in published.failed if failed not in retried.failed]
        retried.more = len(rows) == RETRIED_AT_ONCE_MAX
        if not retried.more:
            self._take_off(behind, rows if each == 1 else kept)
        return {row.recipient for row in published.undelivered}

    def _take_off(self, asked: Sequence[Behind], left: Collection[UndeliveredRow]) -> None:
        """Take those off that have nothing undelivered any more."""
        still = {(row.partition, row.recipient) for row in left}
        for partition, recipient in asked:
            if (partition, recipient) not in still:
                self._behind[partition].discard(recipient)

    def _letters_again(self, rows: Sequence[UndeliveredRow], published: Published) -> list[_Letter]:
        values = self._store.entry_values(rows)
        wanted = frozenset(rows)
        batch = self.read(
            LogRow(partition, seq, "", 0, value) for (partition, seq), value in sorted(values.items())
        )
        letters = [letter for letter in self._letters(batch, published) if letter.row in wanted]
        published.failed = [failed for failed in published.failed if failed.row in wanted]
        lost = wanted.difference(letter.row for letter in letters)
        lost = lost.difference(failed.row for failed in published.failed)
        if lost:
            raise Stopped(f"no record follows from the log for what is undelivered: {min(lost)}")
        return letters

    def _letters(self, batch: Sequence[Committed], published: Published) -> list[_Letter]:
        """Write all records of a batch to outsiders; the vault is read once, after the commit (rule 7)."""
        told = [
            (committed, outgoing)
            for committed in batch
            for outgoing in react(committed.entry, committed.events, committed.row.partition)
        ]
        sealed = self._vault.read(
            {c.entry.lead_id for c, outgoing in told if outgoing.sale_number is not None}
        )
        letters = []
        for committed, outgoing in told:
            letter = self._letter(committed, outgoing, sealed)
            if isinstance(letter, FailedDelivery):
                published.failed.append(letter)
            else:
                letters.append(letter)
        return letters

    def _letter(
        self, committed: Committed, outgoing: Outgoing, sealed: Mapping[str, bytes]
    ) -> _Letter | FailedDelivery:
        entry, partition = committed.entry, committed.row.partition
        topic = self._topic(outgoing)
        row = UndeliveredRow(partition, entry.seq, outgoing.n, topic)
        person = None
        if outgoing.sale_number is not None:
            person = sealed.get(entry.lead_id)
            if person is None:
                return _failed(row, entry.lead_id, outgoing.sale_number, FailureReason.VAULT_ERASED)
        value, content_type = self._value(entry, outgoing, person)
        headers = outsider_headers(
            id=f"{partition}:{entry.seq}:{outgoing.n}",
            type=outgoing.type,
            source="gavel/router",
            at_ms=entry.decided_at_ms,
            content_type=content_type,
        )
        message = Message(topic, 0, entry.lead_id.encode(), value, headers)
        return _Letter(row, entry.lead_id, outgoing, message)

    def _value(self, entry: Entry, outgoing: Outgoing, person: bytes | None) -> tuple[bytes, bytes]:
        """Write a record as its reader wants it, by the market of its entry, so that a repeat has the same bytes."""
        if outgoing.channel is Channel.BUYER_LEADS and outgoing.recipient in self._avro_buyers(
            entry.market_version
        ):
            return avro_value(outgoing.body, person, self._codec), AVRO
        return json_value(outgoing.body, person), JSON

    def _send(self, letters: Sequence[_Letter]) -> Sending:
        """Send to outsiders, unless we may have lost the partitions, be it since the log was sent (rule 15)."""
        self._require_alive()
        return self._outside_producer.send(
            [letter.message for letter in letters], timeout_s=ACKNOWLEDGED_WITHIN_S
        )

    def _judge(
        self, letters: Sequence[_Letter], refused: Sequence[Unacknowledged], published: Published
    ) -> None:
        """Tell what can still be delivered from what never can (rules 17 and 18)."""
        gone = self._gone_of([letters[unacknowledged.index] for unacknowledged in refused])
        for unacknowledged in refused:
            letter = letters[unacknowledged.index]
            reason = unacknowledged.permanent or gone[letter.row.recipient]
            if reason is None:
                published.undelivered.append(letter.row)
            elif letter.outgoing.sale_number is not None:
                published.failed.append(
                    _failed(letter.row, letter.lead_id, letter.outgoing.sale_number, reason)
                )
            else:
                _log.warning(
                    "never_to_be_told",
                    lead_id=letter.lead_id,
                    topic=letter.row.recipient,
                    seq=letter.row.seq,
                    reason=reason,
                )

    def _require_alive(self) -> None:
        if not self._alive():
            raise NotAlive

    def _gone_of(self, letters: Sequence[_Letter]) -> Mapping[str, FailureReason | None]:
        """Look each recipient up once, however many records it did not take."""
        recipients = {letter.row.recipient: letter.outgoing for letter in letters}
        return {topic: self._gone(outgoing) for topic, outgoing in recipients.items()}

    def _gone(self, outgoing: Outgoing) -> FailureReason | None:
        kind = "sources" if outgoing.channel is Channel.SOURCE_RECEIPTS else "buyers"
        return None if self._is_known(kind, outgoing.recipient) else FailureReason.RECIPIENT_GONE

    def _log_message(self, committed: Committed) -> Message:
        row = committed.row
        return Message(
            self._topics.log, row.partition, row.lead_id.encode(), row.value, (), row.decided_at_ms
        )

    def _topic(self, outgoing: Outgoing) -> str:
        match outgoing.channel:
            case Channel.BUYER_LEADS:
                return self._topics.buyer_leads(outgoing.recipient)
            case Channel.BUYER_PINGS:
                return self._topics.buyer_pings(outgoing.recipient)
            case Channel.SOURCE_RECEIPTS:
                return self._topics.source_receipts(outgoing.recipient)


def _failed(row: UndeliveredRow, lead_id: str, sale_number: int, reason: FailureReason) -> FailedDelivery:
    report = ReportFailedDelivery(lead_id=lead_id, sale_number=sale_number, reason=reason)
    return FailedDelivery(row=row, report=report)
