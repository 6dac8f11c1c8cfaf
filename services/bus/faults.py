"""Which answers of Kafka pass, and which end the worker.

It waits for nothing and repeats nothing: what passes is said once a minute and left to librdkafka.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage

from services.bus.ports import BusFailed, PassingFault

WARN_EVERY_S = 60.0

FENCED = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID}
)
"""The group has gone on without us."""

_NO_SUCH_POSITION = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_PASSING = FENCED | {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}

_NOT_KNOWN_YET = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._WAIT_COORD,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)


class Warnings:
    """Says what passes, and the same not again for a minute."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin having said nothing."""
        self._clock_s = clock_s
        self._said_at_s: dict[str, float] = {}
        self._log = structlog.get_logger(__name__)

    def warn(self, kind: str, text: str, **more: Any) -> bool:
        """Say it, unless something of this kind was said lately; tell whether it was said now."""
        now_s = self._clock_s()
        is_new = now_s - self._said_at_s.get(kind, float("-inf")) >= WARN_EVERY_S
        if is_new:
            self._said_at_s[kind] = now_s
            self._log.warning(text, **more)
        return is_new


def answer_to(asked: str, error: KafkaException | KafkaError) -> PassingFault | BusFailed:
    """Put an error that answers a question into words: a broker just started may not know yet what it has."""
    found = error.args[0] if isinstance(error, KafkaException) else error
    words = f"{asked}: {found.name()}: {found.str()}"
    passes = found.code() in _PASSING | _NOT_KNOWN_YET and not found.fatal()
    return PassingFault(words) if passes else BusFailed(words)


def judge(message: KafkaMessage, warnings: Warnings) -> bool:
    """Wait out what passes of a message that is an error; raise `BusFailed` for anything else.

    True where the partition must begin again: a broker that has just made a topic, or just begun to lead it, may for an
    instant not know a position that is there. So it is asked once more before records are said to be lost.
    """
    error = message.error()
    assert error is not None
    where = f"{message.topic()} partition {message.partition()}"
    if error.code() in _NO_SUCH_POSITION:
        if warnings.warn(
            f"position {where}",
            "Kafka does not know the position: asking again",
            at=where,
            reason=error.str(),
        ):
            return True
        raise BusFailed(
            f"{where}: the position to read from is not in the topic any more ({error.str()}). "
            "Records were deleted, or the topic was made again: find out which before you go on"
        )
    if error.fatal() or error.code() not in _PASSING:
        raise BusFailed(f"{where}: {error.name()}: {error.str()}")
    warnings.warn(
        f"{error.name()} {message.topic()}", "Kafka has a passing fault", error=error.name(), at=where
    )
    return False
