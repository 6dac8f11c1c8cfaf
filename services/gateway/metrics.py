"""Every metric of the gateway, in one typed list: no label names a source, a buyer or a lead."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class GatewayMetrics:
    """What the gateway counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin at zero."""
        self.requests = Counter(
            "gavel_gateway_requests_total", "Requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "gavel_gateway_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.leads = Counter(
            "gavel_gateway_leads_total", "Leads sent by HTTP, taken or not.", ["taken"], registry=registry
        )
        self.answers = Counter(
            "gavel_gateway_answers_total", "Answers of buyers appended to their topics.", registry=registry
        )
        self.broken_off = Counter(
            "gavel_gateway_broken_off_total", "Requests whose callers left in the middle.", registry=registry
        )
        self.receipts = Counter(
            "gavel_gateway_receipts_total", "Receipts folded into the status of leads.", registry=registry
        )
        self.webhooks = Counter(
            "gavel_gateway_webhooks_total",
            "Attempts to post a record to a buyer, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.webhook_seconds = Histogram(
            "gavel_gateway_webhook_seconds",
            "Time that a buyer took to answer a webhook.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.given_up = Counter(
            "gavel_gateway_webhooks_given_up_total",
            "Records given up after the last attempt.",
            registry=registry,
        )
        self.unusable_replies = Counter(
            "gavel_gateway_unusable_replies_total",
            "Replies to webhooks that were meant as answers and are none.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "gavel_gateway_webhooks_in_flight", "Webhooks being posted.", registry=registry
        )
