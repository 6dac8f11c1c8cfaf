"""`gavel audit run` on real servers: silent after a whole run, and not after somebody has meddled with its record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaProducer

from deploy.local.stack import Stack
from services.audit.reading import Reading
from services.bus.kafka import Connection
from services.bus.ports import Record, TopicPartition
from services.contract.codec import codec
from services.contract.entries import Entry, hash_of
from tests.support.running import Gavel, running_gavel
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

LEADS = 60
TYPES = ("shared", "alone", "staggered")
MARKET = Path(__file__).parents[1] / "e2e" / "market.yaml"
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def gavel(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gavel]:
    """A whole run that came to its end; the tests below meddle with it, and undo what can be undone."""
    folder = tmp_path_factory.mktemp("audit")
    with fresh_database(stack.database) as url, running_gavel(stack, url, folder, MARKET) as running:
        running.start_all()
        _send(running, LEADS)
        running.wait_until("all leads closed", lambda: _count(running, "router.closes") == LEADS)
        running.wait_until("all billed", lambda: _is_settled(running))
        assert set(running.stop_all().values()) == {0}
        yield running


def _send(gavel: Gavel, count: int) -> None:
    producer = KafkaProducer(bootstrap_servers=gavel.kafka)
    for n in range(count):
        submission = {
            "lead_type": TYPES[n % 3],
            "reference": f"r{n}",
            "contact": {
                "first_name": f"canary-{n}",
                "email": f"canary{n}@example.com",
                "phone": f"+1212{2_000_000 + n}",
            },
            "details": {"state": "NY"},
        }
        producer.send(gavel.topics.source_leads("web"), json.dumps(submission).encode())
    producer.flush()
    producer.close()


def _count(gavel: Gavel, table: str) -> int:
    (row,) = gavel.ask(f"select count(*) from {table}")
    return int(str(row[0]))


def _is_settled(gavel: Gavel) -> bool:
    """Tell whether all readers of the log have all of it, and all buyers what they bought."""
    (row,) = gavel.ask(
        "select bool_and(h.seq = h.published_seq and coalesce(b.seq, 0) = h.seq and coalesce(r.seq, 0) = h.seq"
        " and coalesce(f.seq, 0) = h.seq) and not exists (select from router.undelivered) from router.heads h"
        " left join billing.positions b using (partition) left join resale.positions r using (partition)"
        " left join feed.positions f using (partition)"
    )
    return bool(row[0])


def _audit(gavel: Gavel, *more: str) -> tuple[int, Any]:
    """Judge everything, from the beginning; give the exit code and the answer."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "audit", "run", "--once", "--json", *more],
        env=gavel.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def _broken_rules(gavel: Gavel, *more: str) -> dict[str, list[Any]]:
    """Judge everything; give what was found by rule. Nobody's details may be in the answer."""
    code, told = _audit(gavel, *(more if "--rebuild" in more else ("--no-rebuild", *more)))
    assert code == (0 if told["holds"] else 1)
    assert "canary" not in json.dumps(told)
    found: dict[str, list[Any]] = {}
    for violation in told["violations"]:
        assert violation["where"], "each violation says where it is seen"
        found.setdefault(violation["rule"], []).append(violation)
    return found


def _one(gavel: Gavel, query: str) -> str:
    (row,) = gavel.ask(f"select {query}::text")
    return str(row[0])


def _records(gavel: Gavel, topic: str, partition: int = 0) -> list[Record]:
    reading = Reading(Connection(bootstrap=gavel.kafka))
    where = TopicPartition(topic, partition)
    extent = reading.extents([where])[where]
    try:
        return [each for batch in reading.read({where: range(extent.low, extent.high)}) for each in batch]
    finally:
        reading.close()


def _append(gavel: Gavel, record: Record) -> None:
    producer = Producer({"bootstrap.servers": gavel.kafka, "acks": "all"})
    producer.produce(
        record.topic,
        record.value,
        record.key,
        record.partition,
        headers=[*record.headers],
        timestamp=record.timestamp_ms,
    )
    assert producer.flush(10.0) == 0


def _delivery(gavel: Gavel, saying: bytes = b"") -> Record:
    return next(
        each
        for each in _records(gavel, gavel.topics.buyer_leads("bob"))
        if json.loads(each.value or b"")["type"] == "lead" and saying in (each.value or b"")
    )


@contextmanager
def _changed(gavel: Gavel, table: str, change: str) -> Iterator[None]:
    """Change a table behind everybody's back, as only a superuser can, and put it back afterwards."""
    with psycopg.connect(gavel.database, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(f"create temporary table before as table {table}".encode())
        assert connection.execute(change.encode()).rowcount == 1
        try:
            yield
        finally:
            connection.execute(f"delete from {table}".encode())
            columns = connection.execute(
                "select string_agg(quote_ident(attname), ', ') from pg_attribute where attrelid = %s::regclass"
                " and attnum > 0 and not attisdropped and attgenerated = ''",
                [table],
            ).fetchone()
            assert columns is not None
            connection.execute(f"insert into {table} ({columns[0]}) select {columns[0]} from before".encode())


def test_is_silent_where_nothing_is_wrong(gavel: Gavel) -> None:
    code, told = _audit(gavel, "--at-rest", "--logs", str(gavel.folder), "--canary", "canary")
    assert told["violations"] == []
    assert code == 0
    assert told["at_rest"]
    assert told["leads"] == LEADS
    assert told["sales"] == _count(gavel, "router.sales")
    assert told["deliveries"] >= told["sales"]
    assert told["entries"] == told["ledger_rebuilt_from_entries"]
    assert [each["violations"] for each in told["guarantees"]] == [0] * 7


_FIRST_CHARGE = "(select min(transfer_id::text)::uuid from billing.transfers where kind = 'sale_charge')"
_LAST_CHARGE = "(select max(transfer_id::text)::uuid from billing.transfers where kind = 'sale_charge')"
_FIRST_BILLED = "(select min(sale_id::text)::uuid from billing.sales)"
_FIRST_SALE = "(select lead_id, sale_number from router.sales order by 1, 2 limit 1)"
_LAST_SALE = "(select lead_id, sale_number from router.sales order by 1 desc, 2 desc limit 1)"
_FIRST_LEAD = "(select min(lead_id::text)::uuid from router.leads)"
_FIRST_HEAD = "(select min(partition) from router.heads where seq > 0)"


def test_finds_each_row_that_was_changed_and_is_silent_again_when_it_is_put_back(gavel: Gavel) -> None:
    charge, gone = _one(gavel, _FIRST_CHARGE), _one(gavel, _LAST_CHARGE)
    billed = _one(gavel, _FIRST_BILLED)
    digits = json.loads(_delivery(gavel).value or b"")["lead"]["contact"]["phone"].removeprefix("+")
    with ExitStack() as put_back:
        for table, change in (
            ("billing.transfers", f"set amount_cents = amount_cents + 1 where transfer_id = {_FIRST_CHARGE}"),
            (
                "router.sales",
                f"set price_cents = price_cents + 1 where (lead_id, sale_number) = {_FIRST_SALE}",
            ),
            ("billing.sales", f"set price_cents = price_cents + 1 where sale_id = {_FIRST_BILLED}"),
            ("router.heads", f"set hash = sha256('') where partition = {_FIRST_HEAD}"),
            # Contact details, as text and in bytes.
            (
                "router.sales",
                f"set order_id = 'canary1@example.com' where (lead_id, sale_number) = {_LAST_SALE}",
            ),
            (
                "router.leads",
                f"set state = state || 'phone +12122000001'::bytea where lead_id = {_FIRST_LEAD}",
            ),
            # A number as digits alone, which only who knows the lead can tell from any other.
            ("router.closes", f"set outcome = '{digits}' where lead_id = {_FIRST_LEAD}"),
        ):
            put_back.enter_context(_changed(gavel, table, f"update {table} {change}"))
        deletion = f"delete from billing.transfers where transfer_id = {_LAST_CHARGE}"
        put_back.enter_context(_changed(gavel, "billing.transfers", deletion))
        found = _broken_rules(gavel, "--rebuild", "--at-rest")
    transfers = {where["at"] for each in found["transfers_are_the_log"] for where in each["where"]}
    assert {charge, gone} <= transfers
    assert len(found["sales_table_is_the_log"]) == 2
    assert len(found["closes_table_is_the_log"]) == 1
    assert found["head_is_the_log"]
    rebuilt = [where for each in found["ledger_rebuilt_identical"] for where in each["where"]]
    assert {"source": "billing.sales", "at": billed} in rebuilt
    leaking = {where["source"] for each in found["no_details_in_tables"] for where in each["where"]}
    assert leaking == {"router.sales", "router.leads", "router.closes"}
    assert _broken_rules(gavel, "--at-rest") == {}


def test_finds_contact_details_in_a_worker_s_log(gavel: Gavel, tmp_path: Path) -> None:
    (tmp_path / "router.log").write_text("starting\nfailed for canary1@example.com\n")
    (violation,) = _broken_rules(gavel, "--logs", str(tmp_path))["no_details_in_logs"]
    assert violation["where"] == [{"source": "router.log", "at": "line 2"}]


def test_reads_on_from_its_state_and_counts_nothing_twice(gavel: Gavel, tmp_path: Path) -> None:
    """Killed again and again at any moment, and at the end as one that was never killed."""
    state = tmp_path / "state.sqlite"
    _, whole = _audit(gavel, "--at-rest", "--no-rebuild")
    for wait_s in (1.5, 2.5, 4.0):
        running = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "audit", "run", "--state", str(state)],
            env={**gavel.environment(), "GAVEL_AUDIT_ROUND_S": "1", "GAVEL_AUDIT_TABLES_S": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            running.wait(wait_s)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(10)
    _, again = _audit(gavel, "--at-rest", "--no-rebuild", "--state", str(state))
    counted = ("leads", "sales", "deliveries", "auctions", "entries", "violations_found")
    assert {name: again[name] for name in counted} == {name: whole[name] for name in counted}
    _, last = _audit(gavel, "--at-rest", "--no-rebuild", "--state", str(state))
    assert last["entries_read"] == 0
    assert {name: last[name] for name in counted} == {name: whole[name] for name in counted}


def test_goes_on_until_it_is_stopped_serves_metrics_and_ends_in_order(gavel: Gavel, tmp_path: Path) -> None:
    import socket
    from urllib.request import urlopen

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "services.cli", "audit", "run", "--metrics-port", str(port)),
            *("--state", str(tmp_path / "state.sqlite")),
        ],
        env={**gavel.environment(), "GAVEL_AUDIT_ROUND_S": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s, page = time.monotonic() + WITHIN_S, ""
        entries = float(sum(int(str(row[0])) for row in gavel.ask("select seq from router.heads")))
        while f"gavel_audit_entries {entries}" not in page:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline_s, page
            try:
                page = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
            except OSError:
                time.sleep(0.1)
        assert 'gavel_audit_violations{guarantee="1"} 0.0' in page
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=30)
        assert (running.returncode, out) == (0, "")
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate(timeout=10)


def test_what_cannot_be_read_is_no_violation(gavel: Gavel) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "audit", "run", "--once"],
        env={**gavel.environment(), "GAVEL_NAMESPACE": "nobody."},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "nobody.leads.log" in done.stderr


# From here on the record is spoilt for good: what stands in a topic can't be taken back.


def test_finds_details_on_topics_that_are_not_theirs_and_in_a_key(gavel: Gavel) -> None:
    delivery, topics = _delivery(gavel), gavel.topics
    debug, letters = f"{topics.namespace}debug", topics.dead_letters(topics.buyer_answers("bob"))
    admin = AdminClient({"bootstrap.servers": gavel.kafka})
    admin.create_topics([NewTopic(debug, 1)])[debug].result(timeout=30)
    for topic in (debug, letters, topics.registry):
        _append(gavel, delivery._replace(topic=topic))
    _append(gavel, delivery._replace(key=b"canary-of-a-name"))
    code, told = _audit(gavel, "--no-rebuild", "--at-rest")
    assert code == 1
    found = {(each["rule"], each["where"][0]["source"]) for each in told["violations"]}
    assert found == {
        *(("no_details_in_topics", topic) for topic in (debug, letters, topics.registry)),
        ("keys_are_ids", delivery.topic),
    }
    assert {each["lead_id"] for each in told["violations"]} == {json.loads(delivery.value or b"")["lead_id"]}
    assert [remark for remark in told["remarks"] if remark.startswith(f"{debug} is declared by nobody")]


def test_finds_what_was_appended_and_what_was_deleted(gavel: Gavel) -> None:
    misled = _copy_to_another_buyer(gavel)
    deleted = _delete_deliveries(gavel, "cyd")
    _, told = _audit(gavel, "--no-rebuild")
    (remark,) = (each for each in told["remarks"] if each.startswith(gavel.topics.buyer_leads("cyd")))
    assert remark.endswith("were deleted before they were read; it is declared to keep records for 7 days")
    found = _broken_rules(gavel, "--at-rest")
    assert len(found["delivered"]) >= deleted > 0
    (violation,) = found["told_to_its_recipient"]
    assert violation["lead_id"] == misled
    assert any(where["source"] == gavel.topics.buyer_leads("dan") for where in violation["where"])
    partition, offset = _forge_an_entry(gavel)
    (violation,) = _broken_rules(gavel)["head_is_the_log"]
    assert any(f"(offset {offset})" in where["at"] for where in violation["where"])
    _break_the_chain(gavel, partition)
    (violation,) = _broken_rules(gavel)["log_is_chained"]
    assert f"(offset {offset + 1})" in violation["where"][0]["at"]


def _copy_to_another_buyer(gavel: Gavel) -> str:
    """Append Bob's copy of a lead to the topic of a buyer that never bought one of its type; name the lead."""
    delivery = _delivery(gavel, b'"alone"')
    _append(gavel, delivery._replace(topic=gavel.topics.buyer_leads("dan")))
    return str(json.loads(delivery.value or b"")["lead_id"])


def _delete_deliveries(gavel: Gavel, buyer_id: str) -> int:
    """Delete all that a buyer was told, long before its days are over; count the deliveries among it."""
    topic = gavel.topics.buyer_leads(buyer_id)
    before = _records(gavel, topic)
    admin = AdminClient({"bootstrap.servers": gavel.kafka})
    for done in admin.delete_records([KafkaTopicPartition(topic, 0, before[-1].offset + 1)]).values():
        done.result(timeout=30)
    return sum(json.loads(each.value or b"")["type"] == "lead" for each in before)


def _forge_an_entry(gavel: Gavel) -> tuple[int, int]:
    """Append an entry that follows the chain, as anybody could who may write to the log; give its place."""
    partition = int(_one(gavel, "(select min(partition) from router.heads where seq > 1)"))
    last = _records(gavel, gavel.topics.log, partition)[-1]
    entry: Entry = codec().decode_entry(last.value)
    forged = replace(entry, seq=entry.seq + 1, prev_hash=hash_of(last.value or b""))
    _append(gavel, last._replace(value=codec().encode(forged)))
    return partition, last.offset + 1


def _break_the_chain(gavel: Gavel, partition: int) -> None:
    last = _records(gavel, gavel.topics.log, partition)[-1]
    entry: Entry = codec().decode_entry(last.value)
    _append(
        gavel, last._replace(value=codec().encode(replace(entry, seq=entry.seq + 1, prev_hash=bytes(32))))
    )
