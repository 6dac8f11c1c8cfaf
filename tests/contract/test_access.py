"""What is granted at Kafka is what `schemas/topics` declares, for every topic and every user, and what the docs say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from services.contract.access import (
    INSIDERS,
    NO_GROUP,
    Family,
    Grant,
    Operation,
    Outsider,
    Resource,
    inside_grants,
    outsider_grants,
)
from services.contract.codec import SCHEMAS
from services.contract.topics import Topics

OPERATIONS_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
TOPICS = Topics("t-1.")
WORDS = {"gavel": ["operator"], "anyone inside": INSIDERS, "every step": INSIDERS}
DEAD_LETTERS = {("intake", "write"), ("operator", "write"), ("operator", "read"), ("audit", "read")}
OUTSIDERS = (Outsider(family=Family.SOURCES, id="<id>"), Outsider(family=Family.BUYERS, id="<id>"))

Named = tuple[str, str, str]


def _declared() -> set[Named]:
    """Read from the files who (by name), does what, on which topic."""
    found = set()
    for path in (SCHEMAS / "topics").glob("*.yaml"):
        row = yaml.safe_load(path.read_text())
        said = [(word, "write") for word in row["producer"].split(" and ")]
        said += [(word, "read") for word in row["consumers"]]
        found |= {(who, does, row["name"]) for word, does in said for who in WORDS.get(word, [word])}
        if row["dead_letters"]:
            found |= {(who, does, f"{row['name']}.dlq") for who, does in DEAD_LETTERS}
    return found


def _granted(namespace: str = "t-1.") -> set[Named]:
    topics = Topics(namespace)
    grants = [
        *inside_grants(topics),
        *(grant for each in OUTSIDERS for grant in outsider_grants(topics, each)),
    ]
    return {
        (_who(grant, namespace), grant.operation.value, grant.name.removeprefix(namespace))
        for grant in grants
        if grant.resource is Resource.TOPIC
    }


def _who(grant: Grant, namespace: str) -> str:
    name = grant.user.removeprefix(namespace)
    outsiders = {f"{family}.<id>": f"the {family.one}" for family in Family}
    return outsiders.get(name, name.removeprefix("gavel."))


@pytest.mark.parametrize("namespace", ["", "t-1."])
def test_what_is_granted_on_topics_is_what_is_declared(namespace: str) -> None:
    assert _granted(namespace) == _declared()


def test_router_alone_may_write_the_log() -> None:
    assert {who for who, does, topic in _granted() if (does, topic) == ("write", "leads.log")} == {"router"}


def test_topics_are_granted_literally() -> None:
    grants = [
        *inside_grants(TOPICS),
        *(grant for each in OUTSIDERS for grant in outsider_grants(TOPICS, each)),
    ]
    assert not [grant for grant in grants if grant.resource is Resource.TOPIC and grant.is_prefix]


def test_insiders_may_use_groups_of_their_own_alone() -> None:
    groups = {
        (grant.user, grant.name, grant.operation, grant.is_prefix)
        for grant in inside_grants(TOPICS)
        if grant.resource is Resource.GROUP
    }
    own = {
        (user, name, operation, is_prefix)
        for user in map(TOPICS.group, INSIDERS)
        for name, operation, is_prefix in (
            (user, Operation.READ, False),
            (f"{user}.", Operation.READ, True),
            (NO_GROUP, Operation.DESCRIBE, False),
        )
    }
    of_the_auditor = (TOPICS.group("audit"), TOPICS.group("intake"), Operation.DESCRIBE, False)
    assert groups == own | {of_the_auditor}


def test_a_prefix_without_its_dot_can_not_be_granted() -> None:
    with pytest.raises(ValueError, match="must end in a dot"):
        Grant(
            user="buyers.acme",
            resource=Resource.GROUP,
            name="buyers.acme",
            operation=Operation.READ,
            is_prefix=True,
        )


def test_operations_page_has_a_row_for_each_user_with_what_it_reads_and_writes() -> None:
    rows = re.findall(
        r"^\| `(?:gavel\.)?([a-z.<>]+)` \| ([^|]*) \| ([^|]*) \|$", OPERATIONS_PAGE.read_text(), re.M
    )
    told = {
        (_called(user), does, topic)
        for user, reads, writes in rows
        for does, cell in (("read", reads), ("write", writes))
        for topic in re.findall(r"`([^`]+)`", cell)
    }
    assert told == _granted("")


def _called(user: str) -> str:
    return {f"{family}.<id>": f"the {family.one}" for family in Family}.get(user, user)
