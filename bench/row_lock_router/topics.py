"""The topics of the row-lock router."""

from __future__ import annotations

from bench.pipeline import BUYERS

PARTITIONS = 12


def submitted(namespace: str) -> str:
    """Name the topic of submissions."""
    return f"{namespace}row-lock.submitted"


def delivered(namespace: str) -> dict[str, str]:
    """Name the topic of each buyer."""
    return {buyer: f"{namespace}row-lock.delivered.{buyer}" for buyer in BUYERS}
