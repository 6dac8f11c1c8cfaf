"""Five bidders in one process, `python -m bench.bidders`: each answers every ping at once, with a price of its own.

The price is drawn from the lead's id, so that a repeat of a ping gets the same bid. It knows no rule of the trade.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition

from bench.command_line import leave_on_sigterm, refuse_failed
from services.contract.ids import draw
from services.contract.times import decimal_amount
from services.contract.topics import Topics

BIDDERS = ("bidder-a", "bidder-b", "bidder-c", "bidder-d", "bidder-e")
_FROM_CENTS, _SPREAD_CENTS = 20_00, 30_00
_POLL_RECORDS = 500
_POLL_S = 0.002
_METADATA_WITHIN_S = 10.0


def bid_for(buyer_id: str, ping: Mapping[str, Any]) -> bytes:
    """Write the answer to a ping."""
    cents = _FROM_CENTS + draw(ping["lead_id"], buyer_id) % _SPREAD_CENTS
    return orjson.dumps(
        {
            "type": "bid",
            "lead_id": ping["lead_id"],
            "auction_number": ping["auction_number"],
            "shared": decimal_amount(cents),
        }
    )


def run(kafka: str, topics: Topics) -> None:
    """Bid until SystemExit; raise `KafkaException` for what the broker refuses."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "log_level": 3,
            "group.id": "bench-bidders",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 5,
            "fetch.queue.backoff.ms": 1,
        }
    )
    producer = Producer(
        {"bootstrap.servers": kafka, "log_level": 3, "enable.idempotence": True, "linger.ms": 0}
    )
    bidder_of = {topics.buyer_pings(bidder): bidder for bidder in BIDDERS}
    consumer.assign([at for topic in bidder_of for at in _partitions(consumer, topic)])
    while True:
        for message in consumer.consume(_POLL_RECORDS, _POLL_S):
            _answer(message, bidder_of, producer, topics)
        producer.poll(0)


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    found = consumer.list_topics(topic, timeout=_METADATA_WITHIN_S).topics[topic].partitions
    return [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in found]


def _answer(message: Message, bidder_of: Mapping[str, str], producer: Producer, topics: Topics) -> None:
    if (error := message.error()) is not None:
        raise KafkaException(error)
    topic, value = message.topic(), message.value()
    assert topic is not None
    assert value is not None
    body = orjson.loads(value)
    if body["type"] == "ping":
        bidder = bidder_of[topic]
        producer.produce(topics.buyer_answers(bidder), bid_for(bidder, body), on_delivery=refuse_failed)


if __name__ == "__main__":
    leave_on_sigterm()
    run(os.environ["GAVEL_KAFKA"], Topics(os.environ["GAVEL_NAMESPACE"]))
