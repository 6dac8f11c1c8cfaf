"""Fixtures of every level. Nothing here starts a server before a test asks for it."""

from __future__ import annotations

import re
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
WITH_SERVERS_OF_THEIR_OWN = {
    "test_doors.py",
    "test_kafka_tls_broker.py",
    "test_local_stack.py",
    "test_standby.py",
    "test_three_brokers.py",
}
"""What of the integration tests starts and stops servers, or sets them up in a way of its own."""


def pytest_configure(config: pytest.Config) -> None:
    """Refuse containers in an expression: what else it names would run on a local stack, and nobody would know."""
    asked = config.getoption("markexpr")
    if re.search(rf"\b{CONTAINERS}\b", asked) and not is_on_containers(config):
        raise pytest.UsageError(
            f"-m {asked!r}: `{CONTAINERS}` stands alone, for it says what tests run on as well as which. Use "
            f"`-m {CONTAINERS}`, and choose among them by file or with -k."
        )


def is_on_containers(config: pytest.Config) -> bool:
    """Tell whether the tests run on containers, by `-m containers`."""
    return bool(config.getoption("markexpr").strip() == CONTAINERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, which is its folder, and those that can run on containers."""
    root = Path(__file__).parent
    for item in items:
        level = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        if level in MARKED_FOLDERS:
            item.add_marker(level)
        if level == "integration" and _runs_in_containers(item):
            item.add_marker(CONTAINERS)


def _runs_in_containers(item: pytest.Item) -> bool:
    """Whatever needs nothing but the session's two servers, which the fixture `stack` has."""
    return "stack" in getattr(item, "fixturenames", ()) and item.path.name not in WITH_SERVERS_OF_THEIR_OWN


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real Kafka and PostgreSQL: those of GAVEL_KAFKA and GAVEL_DATABASE, else one local stack for the session.

    With `-m containers` they are containers of the session's own, whatever else there is.
    """
    from tests.support.stack import contained_stack, session_stack

    start = contained_stack if is_on_containers(request.config) else session_stack
    with start(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def database(stack: Stack) -> Iterator[str]:
    """The URL of an empty database of the test's own, dropped afterwards."""
    from tests.support.stack import fresh_database

    with fresh_database(stack.database) as url:
        yield url
