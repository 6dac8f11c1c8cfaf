"""Every metric of the auditor, in one typed list: no label names a source, a buyer or a lead."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """What the auditor counts. What it has taken and found is as of its state, so it survives a restart."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self.registry = registry
        self.entries = Gauge(
            "gavel_audit_entries", "Entries of the log judged, of its whole life.", registry=registry
        )
        self.violations = Gauge(
            "gavel_audit_violations",
            "Violations found, each once, by the number of the guarantee.",
            ["guarantee"],
            registry=registry,
        )
        self.behind = Gauge(
            "gavel_audit_records_behind", "Records of all topics that are not read yet.", registry=registry
        )
        self.rounds = Counter(
            "gavel_audit_rounds_total", "Looks at the topics that came to their end.", registry=registry
        )
        self.compared = Counter(
            "gavel_audit_comparisons_total", "Comparisons with the tables.", ["at_rest"], registry=registry
        )
        self.compared_at = Gauge(
            "gavel_audit_compared_timestamp_seconds",
            "When the tables were compared last, in seconds since 1970.",
            registry=registry,
        )
        self.tried_again = Counter(
            "gavel_audit_tried_again_total",
            "Times that Kafka or the database did not answer.",
            registry=registry,
        )
