"""How much is measured: the amounts of a full run, and of a quick one. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a run takes; times in seconds, rates a second.

    `leads` is the backlog that Gavel works off, `control_leads` that of the two controls that are slower. `repeats` is
    how often each measurement is made, all of them in turns; `shapes` how many numbers of connections the row-lock
    router is tried with. Each rate of a latency, and the first one of auctions, is held for `settle_s` before it
    counts.
    """

    leads: int = 20_000
    control_leads: int = 4_000
    forwarded_leads: int = 60_000
    warm_broker_leads: int = 60_000
    warm_up: int = 1_000
    repeats: int = 3
    shapes: int = 4
    latency_s: float = 8.0
    settle_s: float = 12.0
    auction_start_rate: float = 100.0
    auction_step_s: float = 4.0
    takeover_rate: float = 150.0
    kills: int = 3
    core_s: float = 2.0
    pending: int = 1_000_000
    due_alone: int = 100
    due_at_once: int = 24_000
    phase_within_s: float = 180.0


QUICK = Amounts(
    leads=3_000,
    control_leads=800,
    forwarded_leads=10_000,
    warm_broker_leads=10_000,
    warm_up=200,
    repeats=1,
    shapes=1,
    latency_s=3.0,
    settle_s=1.0,
    auction_step_s=2.0,
    kills=1,
    core_s=0.5,
    pending=100_000,
    due_alone=40,
    due_at_once=6_000,
)
"""To see that everything works, not to quote."""
