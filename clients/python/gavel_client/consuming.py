"""How every reader of this client gets its consumer."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer


def consumer_of(topic: str, **configuration: Any) -> KafkaConsumer:
    """Make a consumer that knows the partitions of its topic before it joins its group.

    A group joined before they are known is joined once more as soon as they are. If a `poll` of kafka-python 3.0 times
    out in the middle of that, nobody looks at the answer any more: the consumer reads nothing from then on, in silence.
    """
    consumer = KafkaConsumer(topic, **configuration)
    consumer.partitions_for_topic(topic)
    return consumer
