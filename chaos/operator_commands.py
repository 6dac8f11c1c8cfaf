"""The operator of the campaign: books deposits, some of them twice, and now and then withdraws a lead or has it erased.

A command that Kafka did not acknowledge is sent again with the same reference: it may have arrived all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.contract.codec import codec
from services.contract.events import ErasureReason, MoneyKind, WithdrawalReason
from services.contract.ids import account_id_of, draw, partition_of
from services.contract.inputs import Command, EraseLead, MoveMoney, WithdrawLead

PAYS_IN_ADVANCE = "advance"
DEPOSIT_CENTS = 250_00
_POLL_S = 0.2
_PATIENCE_MS = 10_000


@dataclass(slots=True, kw_only=True)
class Operator:
    """Somebody who asks something of Gavel every `every_s` seconds; `some_lead` names one by a number."""

    settings: StepSettings
    some_lead: Callable[[int], str | None]
    every_s: float
    over: threading.Event
    deposits: int = 0
    withdrawals: int = 0
    erasures: int = 0

    def run(self) -> None:
        """Ask until `over`."""
        producer = self._producer()
        number = 0
        while not self.over.wait(self.every_s):
            number += 1
            deposit = MoveMoney(
                lead_id=account_id_of(PAYS_IN_ADVANCE),
                buyer_id=PAYS_IN_ADVANCE,
                kind=MoneyKind.DEPOSIT,
                reference=f"chaos-{number}",
                amount_cents=DEPOSIT_CENTS,
                currency="USD",
            )
            self._ask(producer, deposit)
            self.deposits += 1
            if draw("again", str(number)) % 3 == 0:
                self._ask(producer, deposit)
            lead_id = self.some_lead(draw("withdrawn", str(number)))
            if lead_id is not None:
                self._ask(producer, WithdrawLead(lead_id=lead_id, reason=WithdrawalReason.OPERATOR))
                self.withdrawals += 1
            erased_id = self.some_lead(draw("erased", str(number)))
            if erased_id is not None:
                self._ask(producer, EraseLead(lead_id=erased_id, reason=_why(number)))
                self.erasures += 1

    def _ask(self, producer: Producer, command: Command) -> None:
        """Put a command into its lead's partition, and again until Kafka says that it has it."""
        partition = partition_of(command.lead_id, partitions_inside())
        value, key = codec().encode(command), command.lead_id.encode()
        while not self.over.is_set():
            acknowledged: list[bool] = []

            def note(error: KafkaError | None, _: Message, done: list[bool] = acknowledged) -> None:
                done.append(error is None)

            producer.produce(self.settings.topics.commands, value, key, partition, on_delivery=note)
            while not acknowledged and not self.over.is_set():
                producer.poll(_POLL_S)
            if acknowledged == [True]:
                return

    def _producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.settings.kafka,
                "log_level": 0,
                "enable.idempotence": True,
                "message.timeout.ms": _PATIENCE_MS,
                "linger.ms": 0,
            }
        )


def _why(number: int) -> ErasureReason:
    return ErasureReason.REVOKED if draw("why", str(number)) % 3 == 0 else ErasureReason.ERASED
