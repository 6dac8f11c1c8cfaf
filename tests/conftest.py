"""Fixtures of every level. Nothing here starts a server before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from deploy.local.stack import Stack

# An example of a property may take as long as a busy machine makes it.
settings.register_profile("gavel", deadline=None)
settings.load_profile("gavel")

MARKED_FOLDERS = {"stream", "integration", "e2e"}
CONTAINERS = "containers"
IN_CONTAINERS = {
    "test_billing_worker.py",
    "test_bus.py",
    "test_bus_administration.py",
    "test_feed_worker.py",
    "test_intake_worker.py",
    "test_migrations.py",
    "test_resale_worker.py",
    "test_router_store.py",
}
"""What of the integration tests runs on containers as well, with `-m containers`: all clients, and workers of steps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, which is its folder."""
    root = Path(__file__).parent
    for item in items:
        level = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        if level in MARKED_FOLDERS:
            item.add_marker(level)
        if level == "integration" and item.path.name in IN_CONTAINERS:
            item.add_marker(CONTAINERS)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real Kafka and PostgreSQL: those of GAVEL_KAFKA and GAVEL_DATABASE, else one local stack for the session.

    With `-m containers` they are containers of the session's own, whatever else there is.
    """
    from tests.support.stack import contained_stack, session_stack

    start = contained_stack if request.config.getoption("markexpr") == CONTAINERS else session_stack
    with start(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def database(stack: Stack) -> Iterator[str]:
    """The URL of an empty database of the test's own, dropped afterwards."""
    from tests.support.stack import fresh_database

    with fresh_database(stack.database) as url:
        yield url
