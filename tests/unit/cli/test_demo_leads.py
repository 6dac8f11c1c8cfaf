"""The demo's people are invented, always the same, mostly valid, and nobody's phone rings."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from services.cli.demo_leads import SHIPPED, first
from services.cli.demo_sources import EXAMPLES, POISON, merged, traffic, with_poison
from services.contract.market import Market
from services.intake.normalisation import ContactError, email, phone
from services.market.reading import open_files
from services.market.review import review

FICTION = re.compile(r"\+1[2-9][0-9]{2}55501[0-9]{2}")


def market() -> Market:
    return review(open_files([EXAMPLES / "market-demo.yaml"])).market


def is_reachable(contact: dict[str, str]) -> bool:
    try:
        return bool(phone(contact["phone"]) and email(contact["email"]))
    except ContactError:
        return False


def test_the_files_are_what_the_seed_makes(tmp_path: Path) -> None:
    maker = EXAMPLES / "leads" / "make.py"
    copy = tmp_path / "make.py"
    copy.write_text(maker.read_text())
    subprocess.run([sys.executable, str(copy)], check=True, cwd=EXAMPLES.parent)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert made == {path.name: path.read_bytes() for path in maker.parent.glob("*.jsonl")}


def test_more_leads_begin_with_the_same_ones() -> None:
    assert first(300)[:120] == first(120)


def test_phones_are_kept_for_fiction_and_emails_belong_to_nobody() -> None:
    for _, lead in first(SHIPPED):
        contact = lead["contact"]
        if is_reachable(contact):
            assert FICTION.fullmatch(phone(contact["phone"]))
            assert contact["email"].rpartition("@")[2] in ("example.com", "example.org", "example.net")


def test_at_least_two_thousand_are_valid_people_of_their_own() -> None:
    valid = {lead["contact"]["phone"] for _, lead in first(SHIPPED) if is_reachable(lead["contact"])}
    assert len(valid) >= 2_000


def test_some_come_again_and_some_are_invalid() -> None:
    sent = first(SHIPPED)
    references = Counter(lead["reference"] for _, lead in sent)
    phones = Counter(lead["contact"]["phone"] for _, lead in sent)
    invalid = [lead for _, lead in sent if not is_reachable(lead["contact"])]
    assert sum(count - 1 for count in references.values()) > 20
    assert sum(count - 1 for count in phones.values()) > 50
    assert 5 < len(invalid) < 100


def test_every_source_sends_what_the_demos_market_agreed_with_it() -> None:
    sources = market().sources
    sent = {
        (source, lead["lead_type"]) for source, lead in first(SHIPPED) if lead["lead_type"] != "timeshare"
    }
    assert sent == {(source.id, lead_type) for source in sources.values() for lead_type in source.lead_types}


def test_files_become_one_stream_with_each_sources_order() -> None:
    stream = merged({"a": [b"1", b"2", b"3", b"4"], "b": [b"x", b"y"]})
    assert [line for source, line in stream if source == "a"] == [b"1", b"2", b"3", b"4"]
    assert [line for source, line in stream if source == "b"] == [b"x", b"y"]
    assert {source for source, _ in stream[:3]} == {"a", "b"}


def test_beyond_the_files_there_are_more() -> None:
    assert len(traffic(SHIPPED)) == SHIPPED
    assert len(traffic(SHIPPED + 10)) == SHIPPED + 10


def test_poison_stands_in_between() -> None:
    stream = with_poison(traffic(100))
    assert len(stream) == 100 + len(POISON)
    assert [line for _, line in stream if line in POISON] == list(POISON)
    assert stream[0][1] not in POISON
    assert stream[-1][1] not in POISON
