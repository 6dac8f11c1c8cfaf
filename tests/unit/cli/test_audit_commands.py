"""What the rebuilt ledger has otherwise is told with the rows that differ."""

from __future__ import annotations

from typing import Any

from services.audit.violations import Where
from services.billing.rebuild import KEYS, TABLES, Difference, TableComparison, Verdict
from services.cli.audit_commands import _differences

CHANGED = "7e57ab1e-0000-5000-8000-000000000001"
ADDED = "7e57ab1e-0000-5000-8000-000000000002"


def _row(only_in: str, **row: Any) -> Difference:
    return Difference(table="sales", only_in=only_in, row=row)


def test_names_each_row_that_differs_once() -> None:
    compared = TableComparison(
        table="sales",
        rows=7,
        only_in_ledger=2,
        only_in_rebuilt=1,
        differences=(
            _row("ledger", sale_id=CHANGED, price_cents=1),
            _row("ledger", sale_id=ADDED, price_cents=9),
            _row("rebuilt", sale_id=CHANGED, price_cents=2),
        ),
    )
    verdict = Verdict(entries=1, tables=(compared,), totals=(), discrepancies=("a charge too many",))
    what = "billing.sales: 2 rows only in the ledger, 1 only in the one made again"
    assert list(_differences(verdict)) == [
        (what, [Where("billing.sales", CHANGED), Where("billing.sales", ADDED)]),
        ("a charge too many", ()),
    ]


def test_rows_of_each_table_of_the_ledger_have_a_name() -> None:
    assert tuple(KEYS) == TABLES
