"""docs/finance.md tells of every account, transfer and view that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.billing.accounts import (
    ADJUSTMENTS,
    DEPOSITS,
    FAILED_DELIVERIES,
    RETURNS,
    buyer_account,
    payouts_account,
    revenue_account,
    source_account,
)
from services.billing.rows import TransferKind

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "finance.md").read_text()
MIGRATIONS = sorted((ROOT / "services/billing/migrations").glob("*_finance.sql"))
VIEWS = [
    view
    for path in MIGRATIONS
    for view in re.findall(r"^create view (finance\.\w+)", path.read_text(), flags=re.MULTILINE)
]
ACCOUNTS = (
    FAILED_DELIVERIES,
    RETURNS,
    ADJUSTMENTS,
    DEPOSITS,
    buyer_account("<id>"),
    source_account("<id>"),
    revenue_account("<source>"),
    payouts_account("<source>"),
)


@pytest.mark.parametrize("word", [*TransferKind, *ACCOUNTS, *VIEWS])
def test_is_documented(word: str) -> None:
    assert f"`{word}`" in TEXT


def test_views_are_found() -> None:
    assert len(VIEWS) == 13
