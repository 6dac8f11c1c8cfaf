"""docs/finance.md tells of every account, transfer and view that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.billing.domain import FAILED_DELIVERIES, buyer_account, revenue_account
from services.billing.rows import TransferKind

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "finance.md").read_text()
VIEWS = re.findall(
    r"^create view (finance\.\w+)",
    (ROOT / "services/billing/migrations/0002_finance.sql").read_text(),
    flags=re.MULTILINE,
)


@pytest.mark.parametrize(
    "word",
    [*TransferKind, FAILED_DELIVERIES, buyer_account("<id>"), revenue_account("<source>"), *VIEWS],
)
def test_is_documented(word: str) -> None:
    assert f"`{word}`" in TEXT


def test_views_are_found() -> None:
    assert len(VIEWS) == 8
