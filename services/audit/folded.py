"""What an entry has come to while its events are folded one by one, and two small things that their checks share."""

from __future__ import annotations

from typing import Any, Final

from services.audit.lead_state import Listed, Sale
from services.contract.events import AuctionClosed, Draw

NOT_LISTED: Final = Listed("", "", None, 0, {}, 0, (), 0, 0, False, 0, None, ())
"""What stands for the listing of a lead that has none, which is reported where it is seen."""


class Folded:
    """What an entry has come to, event by event."""

    __slots__ = ("closed_auction", "erasure", "next_try_ms", "outcome", "sold", "told", "upgraded")

    def __init__(self) -> None:
        self.sold: list[Sale] = []
        self.told: list[Any] = []
        self.outcome: str | None = None
        self.upgraded = False
        self.next_try_ms: int | None = None
        self.closed_auction: AuctionClosed | None = None
        self.erasure: tuple[str, int] | None = None


def plain_draws(draws: tuple[Draw, ...]) -> tuple[tuple[str, int, int], ...]:
    """Give draws as counter, amount and what is granted."""
    return tuple((draw.counter, draw.amount, draw.granted) for draw in draws)
