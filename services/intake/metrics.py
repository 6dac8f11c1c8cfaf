"""Every metric of intake, in one typed list: counts in `_total`, and no label that a person could be known by."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class IntakeMetrics:
    """What intake counts. A source or buyer is not a label either: its receipts tell it how it does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self.accepted = Counter("gavel_intake_accepted_total", "Leads accepted.", registry=registry)
        self.again = Counter(
            "gavel_intake_again_total",
            "Submissions of leads accepted before, replays after a crash included.",
            registry=registry,
        )
        self.declined = Counter(
            "gavel_intake_declined_total", "Submissions declined.", ["reason"], registry=registry
        )
        self.answers = Counter(
            "gavel_intake_answers_total", "Answers of buyers passed on.", registry=registry
        )
        self.dead_letters = Counter(
            "gavel_intake_dead_letters_total", "Records put aside as dead letters.", registry=registry
        )
        self.lost_receipts = Counter(
            "gavel_intake_lost_receipts_total",
            "Receipts and dead letters that can never be written.",
            registry=registry,
        )
        self.resting = Gauge(
            "gavel_intake_resting_topics",
            "Topics of outsiders that are left unread for a while.",
            registry=registry,
        )
        self.forgotten = Counter(
            "gavel_intake_forgotten_total",
            "Rows deleted because they were kept long enough.",
            registry=registry,
        )
