"""Which topics are ours: those that a declaration knows, and those that are only called so."""

from __future__ import annotations

import pytest

from services.audit.declared import declaration_of, undeclared
from services.contract.topics import Topics


@pytest.mark.parametrize(
    ("topic", "declared"),
    [
        ("t.leads.log", "leads.log"),
        ("t.registry", "registry"),
        ("t.sources.web.leads", "sources.<id>.leads"),
        ("t.sources.web.leads.dlq", "sources.<id>.leads"),
        ("t.buyers.bob.answers.dlq", "buyers.<id>.answers"),
        ("t.buyers.bob.leads.dlq", None),
        ("t.buyers.bob.copies", None),
        ("t.leads.log.dlq", None),
        ("t.debug", None),
        ("leads.log", None),
    ],
)
def test_a_topic_is_declared_by_its_name(topic: str, declared: str | None) -> None:
    found = declaration_of(Topics("t."), topic)
    assert (None if found is None else found.name) == declared


THERE = (
    *("t.leads.log", "t.sources.web.leads", "t.buyers.bob.answers.dlq", "t.debug", "t.buyers.bob.copies"),
    *(
        "t.more.leads.log",
        "t.more.buyers.bob.leads",
        "leads.log",
        "leads.debug",
        "buyers.bob.copies",
        "crm.people",
    ),
)


def test_in_a_namespace_everything_is_ours_but_another_gavel_s() -> None:
    assert undeclared(Topics("t."), THERE) == ["t.buyers.bob.copies", "t.debug"]


def test_without_a_namespace_only_what_is_called_like_a_declared_topic_is_ours() -> None:
    assert undeclared(Topics(), THERE) == ["buyers.bob.copies", "leads.debug"]
