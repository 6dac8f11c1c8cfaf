"""Wires the router: its database, its producers, its relay, and the Faust worker that hosts it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from services.bus.database import connect
from services.bus.hosting import GavelApp, Membership, Subscription, build_app
from services.bus.kafka import Connection, LogProducer, OutsiderProducer, last_record, topic_id
from services.bus.liveness import monotonic_s
from services.bus.ports import Stopped, TopicPartition
from services.bus.settings import StepSettings
from services.contract.codec import codec
from services.contract.topics import Topics, partitions_declared
from services.market import store as market_store
from services.router.database import Database
from services.router.markets import IndexedMarkets
from services.router.metrics import RouterMetrics
from services.router.relay import Relay
from services.router.step import Router
from services.router.store import PostgresRouterStore
from services.vault import table
from services.vault.sealing import Vault, VaultError

ROLE = "gavel_router"


def build_router_app(settings: StepSettings, vault: Vault) -> GavelApp:
    """Build the worker's app; nothing connects before it runs."""
    topics = settings.topics
    return build_app(
        settings,
        step="router",
        factory=lambda membership: build_router(settings, vault, membership),
        subscription=Subscription(
            group=topics.group("router"),
            topics=lambda: [topics.qualified],
            partners=(topics.commands, topics.timers),
            partitions=partitions_declared("leads.qualified"),
        ),
    )


def build_router(settings: StepSettings, vault: Vault, membership: Membership) -> Router:
    """Build the step, in the thread that it lives in."""
    name = settings.worker or "router"
    database = Database(lambda: connect(settings.database, role=ROLE, application_name=name))
    markets = IndexedMarkets(
        lambda version: database.do(lambda connection: market_store.load(connection, version))
    )
    store = PostgresRouterStore(database)
    connection = settings.connection()
    relay = Relay(
        store=store,
        vault=SealedRows(database, vault),
        log_producer=LogProducer(connection, client_id=f"{name}-log"),
        outside_producer=OutsiderProducer(
            connection, client_id=f"{name}-outsiders", may_send=membership.liveness.alive
        ),
        codec=codec(),
        topics=settings.topics,
        alive=membership.liveness.alive,
        is_known=lambda kind, id: _is_known(database, markets, kind, id),
        avro_buyers=markets.avro_buyers,
    )
    return Router(
        store=store,
        relay=relay,
        markets=markets,
        codec=codec(),
        topics=settings.topics,
        log_tail=KafkaLogTail(connection, settings.topics),
        monotonic_s=monotonic_s,
        partitions=partitions_declared("leads.qualified"),
        metrics=RouterMetrics(membership.registry),
    )


class SealedRows:
    """A `VaultReader` on the vault's table."""

    def __init__(self, database: Database, vault: Vault) -> None:
        """Take the router's database and the vault's keys."""
        self._database = database
        self._vault = vault

    def read(self, lead_ids: Collection[str]) -> Mapping[str, bytes]:
        """See `VaultReader`."""
        if not lead_ids:
            return {}
        try:
            return self._database.do(lambda connection: table.read(connection, lead_ids, vault=self._vault))
        except VaultError as error:
            raise Stopped(f"a delivery can't be opened: {error}") from error


class KafkaLogTail:
    """A `LogTail` on Kafka."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        """Take where the log is."""
        self._connection = connection
        self._topic = topics.log
        self._commands = topics.commands

    def topic_id(self) -> str:
        """See `LogTail`."""
        return topic_id(self._connection, self._topic)

    def commands_end(self, partition: int) -> int:
        """See `LogTail`."""
        record = last_record(self._connection, TopicPartition(self._commands, partition))
        return 0 if record is None else record.offset + 1

    def last_value(self, partition: int) -> bytes | None:
        """See `LogTail`."""
        record = last_record(self._connection, TopicPartition(self._topic, partition))
        return None if record is None else record.value


def _is_known(database: Database, markets: IndexedMarkets, kind: str, id: str) -> bool:
    market = markets.market(database.do(market_store.current_version))
    return id in (market.sources if kind == "sources" else market.buyers)
