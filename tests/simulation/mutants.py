"""Planted bugs: mistakes that happen, each as a small change of the product's source, and what catches it.

`python -m tests.simulation.mutants` tries each on the simulator, seed after seed, and then on the tests that are
named for it, and prints the table of `docs/guarantees.md`. A bug in the order of effects or in a comparison needs its
fault at the right moment, so that some are found by a later seed only.

A bug that breaks a promise which a constraint of the tables would stop stands here twice: with the constraint, where
the sale must come to nothing and be reported, and without it, where the judge must see the promise broken.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.patching import patched_source

if TYPE_CHECKING:
    from tests.simulation.hunting import Caught

SEEDS_MAX = 8
"""So many seeds are tried on each; what none of them finds has to be found by the tests named."""

BILLING = "tests/unit/billing/test_domain.py"
ENTRIES = "tests/unit/contract/test_entries.py"
COMMITS = "tests/stream/test_router_commit.py"
RELAY = "tests/stream/test_router_relay.py"
READER = "tests/stream/test_log_reader.py"
STORE = "tests/integration/test_router_store.py"


class Change(NamedTuple):
    """A fragment of one function's source, and what stands there instead."""

    target: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A planted bug. `tests`: files or tests that catch it as well, for what simulation does not see."""

    name: str
    what: str
    changes: Sequence[Change]
    tests: tuple[str, ...] = ()

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the product do it wrong; raise `DoesNotApply` where its source has changed."""
        by_target: dict[str, list[tuple[str, str]]] = {}
        for target, old, new in self.changes:
            by_target.setdefault(target, []).append((old, new))
        with ExitStack() as stack:
            for target, changes in by_target.items():
                stack.enter_context(patched_source(target, *changes))
            yield


def _mutant(name: str, what: str, *changes: tuple[str, str, str], tests: tuple[str, ...] = ()) -> Mutant:
    return Mutant(name=name, what=what, changes=[Change(*change) for change in changes], tests=tests)


_STEP = "services.router.step:Router"
_RELAY = "services.router.relay:Relay"
_STORE = "services.router.memory_store:MemoryRouterStore"
_TABLES = "services.router.memory_store:MemoryRouterTables"
_SELL = "services.router.deciding:Deciding.sell"
_INTAKE = "services.intake.step:Intake"


def _without(*constraints: str) -> tuple[str, str, str]:
    """Take constraints of the sales away."""
    return (
        f"{_TABLES}._require",
        "constraint not in self.without",
        f"constraint not in self.without | {set(constraints)}",
    )


_ORDER_OF_EFFECTS = (
    _mutant(
        "published before the commit",
        "the router publishes a batch and commits it afterwards",
        (
            f"{_STEP}._turn",
            "again |= self._commit(work)",
            "self._relay.publish([entry for item in work.decided.values() for entry in item.chain.committed])\n"
            "        again |= self._commit(work)",
        ),
    ),
    _mutant(
        "mark before publishing",
        "the mark is moved first, and a crash leaves entries unpublished behind it",
        (
            f"{_STEP}._publish",
            "self._publishing = self._relay.publish(batch)",
            "for committed in batch:\n"
            "            owned = self._owned[committed.row.partition]\n"
            "            self._store.move_marks([Mark(partition=committed.row.partition, "
            "before_seq=owned.published_seq, after_seq=committed.row.seq)])\n"
            "            owned.published_seq = committed.row.seq\n"
            "        self._publishing = self._relay.publish(batch)",
        ),
    ),
    _mutant(
        "lost answer taken for a commit",
        "a commit whose answer is lost is taken for committed, and published from memory",
        (
            f"{_STEP}._commit",
            "if attempts >= ATTEMPTS_MAX:\n                raise",
            "if attempts >= ATTEMPTS_MAX:\n                raise\n        except PassingFault:\n            break",
        ),
    ),
    _mutant(
        "nothing published from the table",
        "a new owner leaves what its predecessor committed and did not publish",
        (f"{_STEP}.take_over", "is_behind=head.published_seq < head.seq", "is_behind=False"),
    ),
    _mutant(
        "positions before the leads",
        "intake commits its positions before the router's records are acknowledged",
        (
            f"{_INTAKE}.handle",
            "    self._emit(found, decided, admitted)",
            "    self._positions.commit(found.next_offsets)\n    self._emit(found, decided, admitted)",
        ),
    ),
    _mutant(
        "feed moves before publishing",
        "the public feed stores its position first, so that a crash skips events",
        (
            "services.feed.publishing:EventFeed.apply",
            "if unacknowledged := self._producer.publish(messages):",
            "self._positions.move(moves)\n    if unacknowledged := self._producer.publish(messages):",
        ),
        (
            "services.feed.publishing:EventFeed.apply",
            '{unacknowledged[0].error}")\n    self._positions.move(moves)',
            '{unacknowledged[0].error}")',
        ),
    ),
    _mutant(
        "vault row not written",
        "an accepted lead's details are not kept in the transaction that accepts it",
        (
            "services.intake.admission:_kept",
            "details=[each.details for each in accepted]",
            "details=[each.details for each in accepted[1:]]",
        ),
    ),
)

_POSITIONS_AND_COMPARISONS = (
    _mutant(
        "head not compared",
        "a commit compares nothing with the head that it was decided on",
        (
            "services.router.memory_store:_is_same",
            "return (stored.version, stored.published_seq) == (known.version, known.published_seq)",
            "return True",
        ),
        tests=(COMMITS, "tests/model/test_real_steps.py"),
    ),
    _mutant(
        "positions compared alone",
        "a commit compares input positions, which a decision of the clock does not move",
        (
            "services.router.memory_store:_is_same",
            "return (stored.version, stored.published_seq) == (known.version, known.published_seq)",
            "return (stored.next_qualified, stored.next_command, stored.next_timer) == "
            "(known.next_qualified, known.next_command, known.next_timer)",
        ),
        tests=("tests/model/test_real_steps.py",),
    ),
    _mutant(
        "mark not compared",
        "the mark is set, whatever it is by now",
        (f"{_STORE}.move_marks", "heads[mark.partition].published_seq != mark.before_seq", "False"),
        tests=(f"{STORE}::test_mark_moves_once_and_keeps_what_is_undelivered[memory]",),
    ),
    _mutant(
        "reader's position not compared",
        "billing stores what it read whoever else has stored it",
        (
            "services.billing.memory_store:MemoryLedger.record",
            "if stored[at] != move.before",
            "if False",
        ),
        tests=("tests/unit/billing/test_memory_ledger.py",),
    ),
    _mutant(
        "position off by one",
        "the router's position stands one before the end of its batch",
        (
            "services.router.batch:start",
            "next_qualified=head.next_qualified + len(qualified)",
            "next_qualified=head.next_qualified + max(0, len(qualified) - 1)",
        ),
    ),
    _mutant(
        "position one too far",
        "the router's position skips an input behind each batch of more than two",
        (
            "services.router.batch:start",
            "next_qualified=head.next_qualified + len(qualified)",
            "next_qualified=head.next_qualified + len(qualified) + (len(qualified) > 2)",
        ),
    ),
    _mutant(
        "batch decided over a gap",
        "records are decided though others before them are missing",
        ("services.router.batch:_from", "        return None\n", "        return fresh\n"),
        tests=("tests/stream/test_router.py",),
    ),
    _mutant(
        "decided records decided again",
        "records from before the head are decided again",
        ("services.router.batch:_later", "caused.cause.offset >= next_offset", "True"),
        ("services.router.batch:_from", "        return None\n", "        return fresh\n"),
    ),
    _mutant(
        "sequence ignored",
        "a reader takes repeats for new entries",
        ("services.contract.entries:take", "if seq <= position.seq:", "if False:"),
        tests=(ENTRIES, READER),
    ),
    _mutant(
        "missing entries ignored",
        "a reader goes on behind a gap in the log",
        (
            "services.contract.entries:take",
            "if seq > position.seq + 1:",
            "if seq > position.seq + 1:\n        prev_hash = position.hash\n    if False:",
        ),
        tests=(ENTRIES, READER),
    ),
    _mutant(
        "hash ignored",
        "a reader does not look whether an entry follows the one before",
        ("services.contract.entries:take", "if prev_hash != position.hash:", "if False:"),
        tests=(ENTRIES, READER),
    ),
    _mutant(
        "chain of other bytes",
        "an entry's hash leaves out the last byte of what is published",
        (
            "services.router.chain:Chain._append",
            "self.hash = hash_of(value)",
            "self.hash = hash_of(value[:-1])",
        ),
    ),
)

_LIMITS = (
    _mutant(
        "counter outside the transaction",
        "limits are drawn on first, in a transaction of their own, and the batch is committed after that",
        (
            f"{_STORE}._commit",
            "overtaken = {",
            'rows = self.tables.draw(draws)\n    self.faults.edge("drawn")\n    overtaken = {',
        ),
        (f"{_STORE}._commit", "    rows = written.draw(draws)\n", ""),
        tests=("tests/stream/test_router_limits.py",),
    ),
    _mutant(
        "limit not looked at again",
        "a batch that was decided on old counters is committed on them",
        (
            "services.router.memory_store:_is_short",
            "return row.used + draw.peak > most + row.granted or (draw.tells and row.told)",
            "return False",
        ),
    ),
    _mutant(
        "limit not looked at again, constraint missing",
        "and nothing in the tables refuses it",
        (
            "services.router.memory_store:_is_short",
            "return row.used + draw.peak > most + row.granted or (draw.tells and row.told)",
            "return False",
        ),
        (f"{_TABLES}._refuse_limit", 'if "never_over_the_limit" not in self.without:', "if False:"),
        tests=("tests/stream/test_router_limits.py",),
    ),
    _mutant(
        "draw left out",
        "a commit stores nothing of what its sales drew",
        (
            "services.router.memory_store:_drawn",
            "used, granted = row.used + draw.amount,",
            "used, granted = row.used,",
        ),
    ),
    _mutant(
        "given back twice",
        "a returned or undeliverable sale gives back twice what it drew",
        ("services.contract.limits:restored", "amount=-draw.amount", "amount=-2 * draw.amount"),
        tests=("tests/unit/contract/test_limits.py",),
    ),
    _mutant(
        "nothing given back",
        "an approved return leaves its caps and credit used",
        (
            "services.router.returns:_approve",
            "draws=restored(sale.draws) + _quota_draws(deciding, lead, sale)",
            "draws=_quota_draws(deciding, lead, sale)",
        ),
    ),
    _mutant(
        "days of UTC",
        "a cap's day begins at midnight UTC, not the buyer's",
        ("services.contract.limits:period_of", "zone = ZoneInfo(timezone)", 'zone = ZoneInfo("UTC")'),
        tests=("tests/unit/contract/test_limits.py",),
    ),
    _mutant(
        "orders without room not recorded",
        "an entry does not say which orders were passed over for want of room",
        ("services.router.chain:Chain._append", "no_room=no_room,", "no_room=(),"),
    ),
    _mutant(
        "deposit booked twice",
        "a deposit sent again with its reference counts again",
        ("services.router.chain:Chain._has_moved", "return row in self._money or", "return False and"),
        tests=("tests/stream/test_router_limits.py",),
    ),
    _mutant(
        "own draws kept in vain",
        "what a batch in the making has taken is not put back when it is decided again",
        ("services.router.counters:Room.shortages", "use.used -= draw.amount", "pass"),
        tests=("tests/stream/test_router_limits.py",),
    ),
)

_SELLING = (
    _mutant(
        "one buyer too many",
        "a lead is sold once more than sales_max",
        (
            "services.router.selling:next_choice",
            "len(lead.sales) >= lead.sales_max",
            "len(lead.sales) > lead.sales_max",
        ),
        (
            "services.router.course:_leave_stage",
            "len(lead.sales) >= lead.sales_max",
            "len(lead.sales) > lead.sales_max",
        ),
    ),
    _mutant(
        "one buyer too many, constraint missing",
        "and nothing in the tables refuses it",
        (
            "services.router.selling:next_choice",
            "len(lead.sales) >= lead.sales_max",
            "len(lead.sales) > lead.sales_max",
        ),
        _without("no_more_than_sales_max"),
    ),
    _mutant(
        "same buyer twice",
        "holders are asked and sold to again",
        (
            "services.router.selling:candidates",
            "(*lead.holders, *lead.passed, *lead.never_to)",
            "(*lead.passed, *lead.never_to)",
        ),
    ),
    _mutant(
        "same buyer twice, constraint missing",
        "and nothing in the tables refuses it",
        (
            "services.router.selling:candidates",
            "(*lead.holders, *lead.passed, *lead.never_to)",
            "(*lead.passed, *lead.never_to)",
        ),
        _without("never_the_same_buyer_twice"),
    ),
    _mutant(
        "consent not looked at",
        "buyers that the person did not consent to are asked and sold to",
        ("services.router.selling:candidates", "if lead.consented_buyers:", "if False:"),
    ),
    _mutant(
        "consent lost at the door",
        "the buyers that a consent names are read and not passed on",
        (
            "services.intake.qualification:Judge._candidate",
            "consented_buyers=consented,",
            "consented_buyers=(),",
        ),
    ),
    _mutant(
        "forgotten and kept",
        "the vault's row of an erased lead stays",
        ("services.router.step:_erased_in", "return tuple(", "return () and tuple("),
    ),
    _mutant(
        "exclusive after a disclosure",
        "a lead that somebody holds is sold as exclusive",
        ("services.router.selling:_exclusive", "None if lead.sales else", ""),
        tests=("tests/unit/router/test_selling.py",),
    ),
    _mutant(
        "exclusive after a disclosure, constraints missing",
        "and nothing in the tables refuses it",
        ("services.router.selling:_exclusive", "None if lead.sales else", ""),
        _without("exclusive_is_the_first", "nothing_beside_an_exclusive_sale", "follows_the_first_sale"),
        tests=("tests/unit/router/test_selling.py",),
    ),
    _mutant(
        "exclusive time cut short",
        "the window of an exclusive sale ends a minute early",
        (
            "services.router.course:_after_exclusive",
            "deciding.open_window(lead, WindowKind.EXCLUSIVITY, until_ms)",
            "deciding.open_window(lead, WindowKind.EXCLUSIVITY, until_ms - 60_000)",
        ),
    ),
    _mutant(
        "exclusive time cut short, constraint missing",
        "and nothing in the tables refuses the sale to another",
        (
            "services.router.course:_after_exclusive",
            "deciding.open_window(lead, WindowKind.EXCLUSIVITY, until_ms)",
            "deciding.open_window(lead, WindowKind.EXCLUSIVITY, until_ms - 60_000)",
        ),
        _without("nothing_beside_an_exclusive_sale"),
    ),
    _mutant(
        "sale number reused",
        "the second sale gets the first one's number",
        (_SELL, "number = len(lead.sales) + 1", "number = max(1, len(lead.sales))"),
    ),
    _mutant(
        "sale number reused, constraints missing",
        "and nothing in the tables refuses it",
        (_SELL, "number = len(lead.sales) + 1", "number = max(1, len(lead.sales))"),
        _without("one_sale_per_number", "follows_the_first_sale", "nothing_beside_an_exclusive_sale"),
    ),
    _mutant(
        "a return frees a slot",
        "a lead that its buyer gave back is sold to one more",
        (
            "services.router.selling:next_choice",
            "len(lead.sales) >= lead.sales_max",
            "sum(sale.returning is None for sale in lead.sales) >= lead.sales_max",
        ),
        (
            "services.router.course:_leave_stage",
            "len(lead.sales) >= lead.sales_max",
            "sum(sale.returning is None for sale in lead.sales) >= lead.sales_max",
        ),
        tests=("tests/unit/router/test_returns.py",),
    ),
    _mutant(
        "upgrade with two holders",
        "one of two holders gets the lead for itself, and no constraint stops it",
        ("services.router.upgrades:_refusal", "len(lead.sales) > 1", "len(lead.sales) > 9"),
        _without("follows_the_first_sale"),
        tests=("tests/unit/router/test_upgrades.py",),
    ),
    _mutant(
        "floor ignored",
        "bids below the stage's floor win",
        ("services.router.bidding:least_cents", "max(floor_cents(stage, mode) or 0, 1)", "1"),
        tests=("tests/unit/router/test_auctions.py",),
    ),
    _mutant(
        "late bid wins",
        "a bid that was appended after its deadline counts",
        ("services.router.auctions:_asked", "if answer.answered_at_ms > auction.bids_until_ms:", "if False:"),
    ),
    _mutant(
        "auction closed early",
        "the clock closes an auction whenever it looks",
        ("services.router.auctions:close_when_due", " or deciding.now_ms < auction.closes_at_ms", ""),
        (f"{_STEP}._is_early", "closes_at_ms is not None and now_ms < closes_at_ms", "False"),
        (
            f"{_STEP}._due_closings",
            "due = self._auctions.due(partition, now_ms)",
            "due = self._auctions.due(partition, FOR_GOOD)",
        ),
        tests=("tests/unit/router/test_auctions.py", "tests/stream/test_router_auctions.py"),
    ),
    _mutant(
        "winner pays more",
        "a sale's price is a cent over the winning bid",
        ("services.router.prices:PricesWithBids.price_of", "return cents", "return cents + 1"),
        tests=("tests/unit/router/test_auctions.py",),
    ),
    _mutant(
        "accepted market ignored",
        "a lead goes on by the plan of today's market, not of the one that it was accepted under",
        (
            "services.router.chain:Chain._conditions_for",
            "version = state.market_version",
            "version = self._version",
        ),
        tests=("tests/stream/test_router_market.py",),
    ),
    _mutant(
        "timer believed",
        "a window ends whenever resale says so, due or not",
        (
            "services.router.domain:_timer_due",
            "window is None or deciding.now_ms < window.due_at_ms",
            "window is None",
        ),
        tests=("tests/unit/router/test_windows_and_answers.py",),
    ),
    _mutant(
        "answers not awaited",
        "after a take-over offers and auctions end before the answers are read that were in time",
        (f"{_STEP}._hold_back", "if head.next_command < until:", "if False:"),
        tests=("tests/stream/test_router_auctions.py", "tests/stream/test_router_offers.py"),
    ),
    _mutant(
        "never closed",
        "a lead that is partly sold is not closed",
        ("services.router.course:go_to_stage", "deciding.close(lead, outcome_of(lead))", "pass"),
    ),
)

_TELLING = (
    _mutant(
        "undelivered forgotten",
        "what a recipient did not acknowledge is not kept",
        (f"{_RELAY}._judge", "published.undelivered.append(letter.row)", "pass"),
        tests=(RELAY,),
    ),
    _mutant(
        "later records overtake",
        "records go to a recipient that has earlier ones undelivered",
        (f"{_RELAY}.publish", "for letter in letters if letter.row.recipient in behind", "for letter in ()"),
        (
            f"{_RELAY}.publish",
            "for letter in letters if letter.row.recipient not in behind",
            "for letter in letters",
        ),
        tests=(RELAY,),
    ),
    _mutant(
        "forgotten before acknowledged",
        "a retry forgets what it sent, whether it was acknowledged or not",
        (f"{_RELAY}._send_again", "[row for row in rows if row not in kept]", "list(rows)"),
        tests=(RELAY,),
    ),
    _mutant(
        "repeat with another id",
        "another worker sends a record again with another id",
        (
            f"{_RELAY}._letter",
            'id=f"{partition}:{entry.seq}:{outgoing.n}"',
            'id=f"{partition}:{entry.seq}:{outgoing.n}:{id(self)}"',
        ),
    ),
    _mutant(
        "repeat with other bytes",
        "a worker's deliveries say which worker made them",
        (
            f"{_RELAY}._value",
            "return json_value(outgoing.body, person), JSON",
            'return json_value({**outgoing.body, "by": str(id(self))}, person), JSON',
        ),
    ),
    _mutant(
        "details in a header",
        "a delivery's header holds what only its body may hold",
        (
            f"{_RELAY}._letter",
            "message = Message(topic, 0, entry.lead_id.encode(), value, headers)",
            'message = Message(topic, 0, entry.lead_id.encode(), value, (*headers, ("ce_subject", person or b"")))',
        ),
    ),
    _mutant(
        "details in the log",
        "a field that the lead type does not declare for pings goes inside",
        (
            "services.intake.qualification:Judge._candidate",
            "fields={name: details[name] for name in lead_type.ping}",
            "fields=dict(details)",
        ),
        tests=("tests/unit/intake/test_qualification.py",),
    ),
    _mutant(
        "details in a receipt",
        "a source's receipts hold the lead's sealed part",
        (f"{_RELAY}._letters", "if outgoing.sale_number is not None", "if True"),
        (f"{_RELAY}._letter", "person = None", "person = sealed.get(entry.lead_id)"),
    ),
    _mutant(
        "wrong buyer's topic",
        "a delivery goes to whom the lead was sold before",
        (
            "services.router.messages:_tell_holders",
            "letters.write(Channel.BUYER_LEADS, sold.buyer_id, body, sold.sale_number)",
            "letters.write(Channel.BUYER_LEADS, (*sold.holders, sold.buyer_id)[0], body, sold.sale_number)",
        ),
    ),
    _mutant(
        "exclusive until told wrong",
        "a buyer is told a minute more than it has",
        (
            "services.router.deliveries:_terms",
            "else _time_or_none(sold.exclusive_until_ms)",
            "else _time_or_none(sold.exclusive_until_ms and sold.exclusive_until_ms + 60_000)",
        ),
        tests=("tests/unit/router/test_messages.py",),
    ),
    _mutant(
        "holders told wrong",
        "a buyer of a shared lead is told of one holder less",
        (
            "services.router.deliveries:_terms",
            '"holders": standing.holders',
            '"holders": max(1, standing.holders - 1)',
        ),
        tests=("tests/unit/router/test_messages.py",),
    ),
    _mutant(
        "maximum told wrong",
        "a buyer is told of one buyer less than there may be",
        (
            "services.router.deliveries:_terms",
            '"sales_max": sold.sales_max',
            '"sales_max": max(sold.sale_number, sold.sales_max - 1)',
        ),
    ),
    _mutant(
        "price told wrong",
        "a delivery states a cent more than is billed",
        (
            "services.router.deliveries:delivery",
            '"price": decimal_amount(sold.price_cents)',
            '"price": decimal_amount(sold.price_cents + 1)',
        ),
    ),
)

_MONEY = (
    _mutant(
        "test lead billed",
        "a test lead's sale is charged",
        ("services.billing.domain:_Posting.sell", "if event.is_test:", "if False:"),
        tests=(BILLING,),
    ),
    _mutant(
        "credited twice",
        "a sale that was returned is credited again when its delivery fails",
        (
            "services.router.returns:report_failed_delivery",
            "was_credited = sale.returning is Returning.APPROVED",
            "was_credited = False",
        ),
        tests=("tests/unit/router/test_returns.py",),
    ),
    _mutant(
        "payout not taken back",
        "a return leaves the source what it was paid",
        ("services.billing.aftersales:AfterSales._take_back", "if event.payout_cents:", "if False:"),
        tests=(BILLING,),
    ),
    _mutant(
        "upgrade fee forgotten",
        "an upgrade is not charged",
        (
            "services.billing.aftersales:AfterSales._upgrade",
            "event.fee_cents,\n        debit=",
            "0,\n        debit=",
        ),
        tests=(BILLING,),
    ),
    _mutant(
        "fee not given back",
        "a return of an upgraded sale credits the price alone",
        (
            "services.router.returns:_approve",
            "price_cents=sale.price_cents + sale.fee_cents",
            "price_cents=sale.price_cents",
        ),
        tests=("tests/unit/router/test_returns.py", "tests/unit/router/test_aftermath_properties.py"),
    ),
    _mutant(
        "rounding lost",
        "a share of an amount is cut off, not rounded",
        ("services.contract.money:share_of", " + WHOLE_BASIS_POINTS // 2", ""),
        tests=("tests/unit/contract/test_money.py",),
    ),
    _mutant(
        "payout of the price twice",
        "a source is paid for the sale and once more under another id",
        (
            "services.billing.domain:_Posting.sell",
            "payout_id_of(event.sale_id)",
            "payout_id_of(event.lead_type)",
        ),
        tests=(BILLING,),
    ),
    _mutant(
        "adjustment the wrong way round",
        "what an operator takes from an account is given to it",
        ("services.billing.aftersales:AfterSales._move", "if event.amount_cents < 0:", "if False:"),
        tests=(BILLING,),
    ),
)

_DOOR_AND_WINDOWS = (
    _mutant(
        "replay not emitted",
        "a batch that was committed and not emitted before a crash is not emitted after it",
        ("services.intake.domain:_again", "return Replayed(before.record)", "return Repeated()"),
    ),
    _mutant(
        "duplicates taken",
        "a person's second lead within the days of a lead type is accepted",
        (
            "services.intake.domain:_is_duplicate",
            "if identity.received_at_ms - owner.received_at_ms < candidate.duplicate_within_ms:",
            "if False:",
        ),
        tests=("tests/unit/intake/test_domain.py",),
    ),
    _mutant(
        "receipts lost",
        "intake goes on though a source could not be told",
        (f"{_INTAKE}._tell", "unheard.add(letter.answers)", "pass"),
        tests=("tests/stream/test_intake.py",),
    ),
    _mutant(
        "answers lost",
        "intake passes on only the first answer of a batch",
        (f"{_INTAKE}._emit", "outgoing.commands(found.answers,", "outgoing.commands(found.answers[:1],"),
    ),
    _mutant(
        "timer lost",
        "a window that was sent is never sent again",
        ("services.resale.domain:resend_after_ms", "return min(", "return 2**60 + min("),
        tests=("tests/unit/resale/test_changes.py", "tests/stream/test_resale.py"),
    ),
    _mutant(
        "timer sent without end",
        "a window that was sent is due again at once",
        ("services.resale.domain:resend_after_ms", "return min(", "return 0 * min("),
        tests=("tests/unit/resale/test_changes.py", "tests/stream/test_resale.py"),
    ),
    _mutant(
        "window not kept",
        "resale forgets a window when another of the same batch is opened",
        (
            "services.resale.domain:Changes.open_window",
            "self.opened[window.lead_id, window.window_number] = window",
            "self.opened.clear()\n    self.opened[window.lead_id, window.window_number] = window",
        ),
    ),
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        *_ORDER_OF_EFFECTS,
        *_POSITIONS_AND_COMPARISONS,
        *_LIMITS,
        *_SELLING,
        *_TELLING,
        *_MONEY,
        *_DOOR_AND_WINDOWS,
    )
}


def table(found: Iterable[Caught]) -> str:
    """Write what was found as a table in Markdown, in the order in which the bugs stand here."""
    by_name = {caught.name: caught for caught in found}
    lines = ["| planted bug | what it does | caught by |", "|---|---|---|"]
    lines += [
        f"| {mutant.name} | {mutant.what} | {_told(by_name[mutant.name])} |"
        for mutant in MUTANTS.values()
        if mutant.name in by_name
    ]
    return "\n".join(lines)


_ORDINALS = {1: "first", 2: "2nd", 3: "3rd"}


def _told(caught: Caught) -> str:
    if caught.by_simulation:
        times = _ORDINALS.get(caught.runs, f"{caught.runs}th")
        return f"simulation, {times} seed: {caught.rule}"
    return f"`{caught.test}`" if caught.test else "**nothing**"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try planted bugs and print the table; 1 where any is not caught, or the clean product raises an alarm."""
    from tests.simulation.hunting import PROCESSES, false_alarms, hunt

    parser = ArgumentParser(
        prog="python -m tests.simulation.mutants", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (all)")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="seeds to try on each (%(default)s)")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="at a time (%(default)s)")
    told = parser.parse_args(arguments)
    if unknown := set(told.names) - MUTANTS.keys():
        parser.error(f"no such planted bug: {', '.join(sorted(unknown))}")
    found = []
    for caught in hunt(told.names or list(MUTANTS), seeds_max=told.seeds, processes=told.processes):
        found.append(caught)
        sys.stderr.write(f"{caught.name}: {_told(caught)}\n")
    sys.stdout.write(f"{table(found)}\n")
    missed = [caught.name for caught in found if not caught.is_caught]
    alarms = false_alarms(range(told.seeds), processes=told.processes)
    simulated = sum(caught.by_simulation for caught in found)
    sys.stdout.write(
        f"\n{len(found) - len(missed)} of {len(found)} caught, {simulated} of them by the simulation "
        f"(at most {told.seeds} seeds each); {len(alarms)} false alarms on as many seeds of the clean build.\n"
    )
    for alarm in alarms:
        sys.stderr.write(f"false alarm at seed {alarm.seed}: {alarm.rule}: {alarm.what}\n")
    return 1 if missed or alarms else 0


if __name__ == "__main__":
    # Not as `__main__`, or the table of bugs would be there twice.
    from tests.simulation.mutants import main as run_main

    sys.exit(run_main())
