"""The in-memory twin of the gateway's tables, with the same compare-and-set, for tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from services.bus.ports import TopicPartition
from services.gateway.domain import Pointer, Waiting
from services.gateway.ports import Directory, Endpoint, Move, Overtaken, Settled
from services.gateway.statuses import LeadStatus


@dataclass(slots=True)
class MemoryGatewayStore:
    """All tables; it survives the workers that use it."""

    sources: tuple[str, ...] = ()
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    moved: dict[TopicPartition, int | None] = field(default_factory=dict)
    leads: dict[str, LeadStatus] = field(default_factory=dict)
    waiting: dict[Pointer, Waiting] = field(default_factory=dict)
    given_up: dict[Pointer, str] = field(default_factory=dict)

    def directory(self, now_ms: int) -> Directory:  # noqa: ARG002  # the port's
        """Read who uses HTTP."""
        return Directory(sources=self.sources, endpoints=dict(self.endpoints))

    def positions(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Read how far partitions were handled."""
        return {where: self.moved.setdefault(where, None) for where in partitions}

    def statuses(self, lead_ids: Collection[str]) -> Mapping[str, LeadStatus]:
        """Read what is known of these leads."""
        return {lead_id: self.leads[lead_id] for lead_id in lead_ids if lead_id in self.leads}

    def keep(
        self,
        moves: Mapping[TopicPartition, Move],
        statuses: Collection[LeadStatus],
        waiting: Collection[Waiting],
        now_ms: int,  # noqa: ARG002  # the port's
    ) -> None:
        """Move the positions and write what follows, or nothing."""
        if any(self.moved.get(where) != move.before for where, move in moves.items()):
            raise Overtaken(tuple(moves))
        self.moved |= {where: move.after for where, move in moves.items()}
        self.leads |= {status.lead_id: status for status in statuses}
        for row in waiting:
            self.waiting.setdefault(row.pointer, row)

    def next_in(self, topics: Mapping[str, int]) -> Mapping[str, Sequence[Waiting]]:
        """Of each topic give the rows whose turn is next."""
        rows = sorted(self.waiting.values(), key=lambda row: (row.next_try_at_ms, row.pointer))
        return {
            topic: [row for row in rows if row.pointer.topic == topic][:most]
            for topic, most in topics.items()
        }

    def settle(self, settled: Settled, now_ms: int) -> None:  # noqa: ARG002  # the port's
        """Write what became of webhooks."""
        for pointer in settled.done:
            self.waiting.pop(pointer, None)
        for row, _ in settled.later:
            self.waiting[row.pointer] = row
        for pointer, error in settled.given_up:
            if self.waiting.pop(pointer, None) is not None:
                self.given_up[pointer] = error
        for buyer_id, url in settled.disabled.items():
            before = self.endpoints[buyer_id]
            self.endpoints[buyer_id] = Endpoint(
                buyer_id=buyer_id,
                url=before.url,
                secret_numbers=before.secret_numbers,
                disabled_url=url,
            )

    def forget(self, now_ms: int, limit: int) -> int:  # noqa: ARG002  # the port's
        """Keep everything."""
        return 0
