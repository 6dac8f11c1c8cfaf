"""What a bidder's function may answer: prices as the answers' schema wants them, and never a bid without one."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest

from gavel_client import Bid
from gavel_client.bidder import _amount
from services.intake.answers import PRICE_PATTERN


def test_a_bid_without_a_price_is_refused_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="names a price"):
        Bid()


@pytest.mark.parametrize("price", ["85.00", "34", Decimal("85.00"), Decimal("100").normalize()])
def test_a_price_is_written_as_intake_reads_it(price: str | Decimal) -> None:
    assert re.match(PRICE_PATTERN, _amount(price))
