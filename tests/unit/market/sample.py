"""One small market that is right, and ways to make it wrong in one place."""

from __future__ import annotations

from services.contract.market import Market
from services.market.documents import MarketFile
from services.market.errors import MarketError, MarketRefused, MarketWarning
from services.market.review import review

SMALL = """\
market: {currency: USD, timezone: America/New_York}

lead_types:
  solar:
    contact: [first_name, email, phone]
    details: {state: us_state, zip: us_zip, bill: amount, roof_age: number, owns: yes_no, credit: [poor, good]}
    ping: [state, bill, owns, credit]
    score: [{points: 40, when: {roof_age: {to: 15}}}]
    duplicate_within: 30d
    contact_kept: 180d
    plans:
      - name: premium
        when: {quality: {from: 30}}
        stages:
          - {sell: exclusive, price: 90.00, keep_trying: {every: 15m, for: 8h}}
      - name: staggered
        sales_max: 3
        expires_after: 60d
        stages:
          - {sell: exclusive, price: 70.00, accept_within: 10m, exclusive_for: 72h}
          - {sell: shared, price: [30.00, 25.00]}
          - {sell: either, wait: 30d, only: [oak], price: {exclusive: 9.00, shared: 6.00}}

sources:
  sunform: {lead_types: [solar], sales_max: 2, never_to: [oak]}

buyers:
  oak:
    timezone: America/Chicago
    orders:
      first: {lead_type: solar, where: {state: [AZ, NV]}, takes: {exclusive: 95.00}}
      second: {lead_type: solar, takes: {exclusive: list, shared: list}, priority: 7, weight: 3, holders_max: 3}
"""


def market_of(text: str, *others: str) -> Market:
    """Review texts as the files of one market."""
    return review(_files(text, *others)).market


def warnings_of(text: str) -> tuple[MarketWarning, ...]:
    """Review a text, and give its warnings."""
    return review(_files(text)).warnings


def errors_of(text: str, *others: str) -> tuple[MarketError, ...]:
    """Review what must be refused, and give the reasons."""
    try:
        review(_files(text, *others))
    except MarketRefused as refused:
        return refused.errors
    raise AssertionError("the market was not refused")


def changed(old: str, new: str) -> str:
    """Put something else in the one place of the small market where `old` stands."""
    assert SMALL.count(old) == 1, f"expected once in the small market: {old}"
    return SMALL.replace(old, new)


def _files(*texts: str) -> list[MarketFile]:
    return [MarketFile(f"{number}.yaml", text) for number, text in enumerate(texts, start=1)]
