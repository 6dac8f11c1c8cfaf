"""The rules that the auditor holds Gavel to: each with the guarantee that it belongs to, in one sentence.

A closed list: what is reported is broken by one of these. It must not know how a rule is checked.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Rule(StrEnum):
    """A rule's name."""

    SALES_ARE_NUMBERED = "sales_are_numbered"
    NEVER_THE_SAME_BUYER_TWICE = "never_the_same_buyer_twice"
    NO_MORE_THAN_SALES_MAX = "no_more_than_sales_max"
    EXCLUSIVE_IS_THE_FIRST = "exclusive_is_the_first"
    NOTHING_BESIDE_AN_EXCLUSIVE_SALE = "nothing_beside_an_exclusive_sale"
    UPGRADE_BY_THE_ONLY_HOLDER = "upgrade_by_the_only_holder"
    NOT_BEFORE_THE_TIME_PROMISED = "not_before_the_time_promised"
    WINDOW_LASTS = "window_lasts"
    SOLD_BY_ITS_PLAN = "sold_by_its_plan"
    ONLY_WITH_CONSENT = "only_with_consent"
    SALES_TABLE_IS_THE_LOG = "sales_table_is_the_log"
    CLOSES_TABLE_IS_THE_LOG = "closes_table_is_the_log"

    LISTED_ONCE = "listed_once"
    CLOSED_ONCE = "closed_once"
    NOTHING_AFTER_THE_CLOSE = "nothing_after_the_close"
    ACCEPTED_IS_LISTED = "accepted_is_listed"
    LISTED_WAS_ACCEPTED = "listed_was_accepted"
    NOTHING_BEFORE_THE_LISTING = "nothing_before_the_listing"

    LIMIT_HOLDS = "limit_holds"
    DRAWS_ARE_COMPLETE = "draws_are_complete"
    COUNTER_IS_THE_LOG = "counter_is_the_log"

    TRANSFERS_ARE_THE_LOG = "transfers_are_the_log"
    TRANSFER_IS_PROPER = "transfer_is_proper"
    TEST_LEADS_MOVE_NOTHING = "test_leads_move_nothing"
    BACK_NO_MORE_THAN_CAME = "back_no_more_than_came"
    SOURCE_EARNS_AS_AGREED = "source_earns_as_agreed"
    MONEY_MOVES_ONCE = "money_moves_once"

    TERMS_ARE_TRUE = "terms_are_true"
    PRICE_IS_THE_ORDERS = "price_is_the_orders"
    AUCTION_CLOSED_ONCE = "auction_closed_once"
    AUCTION_AS_ANNOUNCED = "auction_as_announced"
    BID_IS_TOLD_RIGHTLY = "bid_is_told_rightly"
    WINNER_PAYS_ITS_BID = "winner_pays_its_bid"
    BEST_BRINGS_MOST = "best_brings_most"
    DELIVERED = "delivered"
    TOLD_WHAT_IS_LOGGED = "told_what_is_logged"
    TOLD_TO_ITS_RECIPIENT = "told_to_its_recipient"
    NOTHING_TOLD_WITHOUT_THE_LOG = "nothing_told_without_the_log"
    REPEATED_ALIKE = "repeated_alike"

    CONTACT_FOR_BUYERS_ALONE = "contact_for_buyers_alone"
    PINGS_SHOW_DECLARED_FIELDS = "pings_show_declared_fields"

    LOG_IS_CHAINED = "log_is_chained"
    LOG_IS_READABLE = "log_is_readable"
    HEAD_IS_THE_LOG = "head_is_the_log"
    ENTRY_IN_ITS_PARTITION = "entry_in_its_partition"
    RECORD_IS_READABLE = "record_is_readable"


class RuleText(NamedTuple):
    """What a rule says: `guarantee` is the number in docs/guarantees.md."""

    guarantee: int
    sentence: str


RULES: Final = MappingProxyType(
    {
        Rule.SALES_ARE_NUMBERED: RuleText(
            1, "A lead's sales are numbered 1, 2, 3 without gap, and the sale's id follows."
        ),
        Rule.NEVER_THE_SAME_BUYER_TWICE: RuleText(1, "A lead is never sold to the same buyer twice."),
        Rule.NO_MORE_THAN_SALES_MAX: RuleText(
            1, "A lead has no more buyers than its plan and its source allow, nor than any buyer was told."
        ),
        Rule.EXCLUSIVE_IS_THE_FIRST: RuleText(1, "A lead that was disclosed is never again sold exclusive."),
        Rule.NOTHING_BESIDE_AN_EXCLUSIVE_SALE: RuleText(1, "Nobody else buys a lead while it is exclusive."),
        Rule.UPGRADE_BY_THE_ONLY_HOLDER: RuleText(
            1,
            "Only a lead's only holder closes the remaining slots, for the fee it was told, and nothing is sold after.",
        ),
        Rule.NOT_BEFORE_THE_TIME_PROMISED: RuleText(
            1, "Nobody buys a lead before the time that its holders were told."
        ),
        Rule.WINDOW_LASTS: RuleText(1, "A window lasts until its end, and is as long as the plan says."),
        Rule.SOLD_BY_ITS_PLAN: RuleText(
            1,
            "A lead is sold by a stage of its plan, in a mode that the stage sells, to an order of the market.",
        ),
        Rule.ONLY_WITH_CONSENT: RuleText(
            1,
            "Where a lead's consent names buyers, as its type may demand, no other is asked for it or sold it.",
        ),
        Rule.SALES_TABLE_IS_THE_LOG: RuleText(1, "The router's sales are those of the log."),
        Rule.CLOSES_TABLE_IS_THE_LOG: RuleText(2, "The router's closes are those of the log."),
        Rule.LISTED_ONCE: RuleText(2, "A lead is listed once."),
        Rule.CLOSED_ONCE: RuleText(2, "A listed lead is closed once."),
        Rule.NOTHING_AFTER_THE_CLOSE: RuleText(2, "Nothing is sold, asked or opened after a lead's close."),
        Rule.ACCEPTED_IS_LISTED: RuleText(2, "A lead that was accepted is listed."),
        Rule.LISTED_WAS_ACCEPTED: RuleText(2, "A listed lead was accepted."),
        Rule.NOTHING_BEFORE_THE_LISTING: RuleText(2, "Nothing happens to a lead before it is listed."),
        Rule.LIMIT_HOLDS: RuleText(
            3, "No more is used of a limit than the market says and what was granted."
        ),
        Rule.DRAWS_ARE_COMPLETE: RuleText(3, "A sale draws on each limit of its order, and on no other."),
        Rule.COUNTER_IS_THE_LOG: RuleText(3, "The router's counters are what the log's draws add up to."),
        Rule.TRANSFERS_ARE_THE_LOG: RuleText(
            4, "The ledger holds what follows from the log, each transfer once."
        ),
        Rule.TRANSFER_IS_PROPER: RuleText(
            4, "A transfer moves an amount above nothing between two accounts."
        ),
        Rule.TEST_LEADS_MOVE_NOTHING: RuleText(4, "Test leads use no limit and earn nothing."),
        Rule.BACK_NO_MORE_THAN_CAME: RuleText(4, "What is given back of a sale is what it cost, and once."),
        Rule.SOURCE_EARNS_AS_AGREED: RuleText(
            4, "A source earns what the market that accepted the lead says."
        ),
        Rule.MONEY_MOVES_ONCE: RuleText(4, "A reference moves money once, on its own buyer's account."),
        Rule.TERMS_ARE_TRUE: RuleText(5, "The terms of a sale say of the lead's history what is true."),
        Rule.PRICE_IS_THE_ORDERS: RuleText(
            5, "A buyer pays what its order takes for that mode, at or over the floor."
        ),
        Rule.AUCTION_CLOSED_ONCE: RuleText(5, "An auction is closed once."),
        Rule.AUCTION_AS_ANNOUNCED: RuleText(
            5, "An auction takes the bids of those it invited, and until it said."
        ),
        Rule.BID_IS_TOLD_RIGHTLY: RuleText(5, "Each bid has its result, and who was silent is named."),
        Rule.WINNER_PAYS_ITS_BID: RuleText(
            5, "Who wins by a bid pays that bid, which is not under the floor."
        ),
        Rule.BEST_BRINGS_MOST: RuleText(5, "An auction sells what brings most, and to the best bids."),
        Rule.DELIVERED: RuleText(5, "What follows from the log reaches its recipient's topic."),
        Rule.TOLD_WHAT_IS_LOGGED: RuleText(5, "A record to an outsider says what the log says."),
        Rule.TOLD_TO_ITS_RECIPIENT: RuleText(6, "A record is on its recipient's topic and on no other."),
        Rule.NOTHING_TOLD_WITHOUT_THE_LOG: RuleText(
            5, "Nothing is told to an outsider that the log does not say."
        ),
        Rule.REPEATED_ALIKE: RuleText(5, "A record that comes again has the same bytes."),
        Rule.CONTACT_FOR_BUYERS_ALONE: RuleText(6, "Only a delivery to a buyer holds contact details."),
        Rule.PINGS_SHOW_DECLARED_FIELDS: RuleText(
            6, "Pings and the log show only the fields declared for pings."
        ),
        Rule.LOG_IS_CHAINED: RuleText(7, "The log's entries follow each other without gap, chained by hash."),
        Rule.LOG_IS_READABLE: RuleText(7, "Each record of the log is an entry that can be read."),
        Rule.HEAD_IS_THE_LOG: RuleText(7, "The database's heads are where the log ends."),
        Rule.ENTRY_IN_ITS_PARTITION: RuleText(7, "An entry is in its lead's partition and dated in order."),
        Rule.RECORD_IS_READABLE: RuleText(
            7, "Each record for an outsider can be read, and names its place in the log."
        ),
    }
)
"""Every rule."""

assert RULES.keys() == set(Rule), "each rule has its sentence"
