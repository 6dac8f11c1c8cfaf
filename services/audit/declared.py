"""Which topics are ours, and what `schemas/topics` says of each. Pure: it is handed the names that there are."""

from __future__ import annotations

from collections.abc import Collection

from services.contract.topics import DEAD_LETTERS_SUFFIX, TopicDeclaration, Topics, declarations


def declaration_of(topics: Topics, topic: str) -> TopicDeclaration | None:
    """Find what declares a topic, or the topic whose dead letters it has; None for any other."""
    if not topic.startswith(topics.namespace):
        return None
    plain = topic.removesuffix(DEAD_LETTERS_SUFFIX)
    owner = topics.owner_of(plain)
    name = plain.removeprefix(topics.namespace) if owner is None else f"{owner[0]}.<id>.{owner[2]}"
    found = next((each for each in declarations() if each.name == name), None)
    if found is None or (plain != topic and not found.dead_letters):
        return None
    return found


def undeclared(topics: Topics, there: Collection[str]) -> list[str]:
    """Name the topics that are ours by their names and that nobody declared.

    Ours is the namespace; without one, what begins as a declared name does. Of that, what belongs to another Gavel,
    whose namespace is longer, is its own.
    """
    ours = tuple({topics.namespace or each.name.partition(".")[0] + "." for each in declarations()})
    others = tuple(
        log.removesuffix("leads.log")
        for log in there
        if log.endswith(".leads.log") and log.startswith(ours) and log != topics.log
    )
    return sorted(
        topic
        for topic in there
        if topic.startswith(ours) and not topic.startswith(others) and declaration_of(topics, topic) is None
    )
