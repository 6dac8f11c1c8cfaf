"""Fixtures of billing's database: a module that uses them names this one in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from deploy.local.stack import Stack
from services.bus.migrations import migrate
from tests.support.billing_database import PostgresWorld
from tests.support.stack import fresh_database


@pytest.fixture(scope="module")
def billed(stack: Stack) -> Iterator[str]:
    """The URL of a migrated database, one for the module: to make one takes seconds."""
    with fresh_database(stack.database) as url:
        migrate(url)
        yield url


@pytest.fixture(scope="module")
def billing_owner(billed: str) -> Iterator[psycopg.Connection]:
    """A connection to it that may do anything."""
    with psycopg.connect(billed, autocommit=True) as connection:
        yield connection


@pytest.fixture
def postgres(billed: str, billing_owner: psycopg.Connection) -> Iterator[PostgresWorld]:
    """Ledgers of the test's own, each in a schema of its own."""
    world = PostgresWorld(billed, billing_owner)
    yield world
    world.close()
