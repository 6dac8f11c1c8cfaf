"""The chart of accounts, and the ids of transfers.

It must not know what an entry means; `services.billing.domain` says which transfer follows from what.

Each transfer debits one account and credits another by the same amount. An account's balance is debits less credits.

| account                     | what it holds                                                     |
| --- | --- |
| `buyer:<id>`                | what the buyer owes us; below nothing, what is left of its deposits |
| `revenue:<source>`          | income from the leads of one source                               |
| `allowance:failed_delivery` | income given back for leads that never arrived                    |
| `allowance:return`          | income given back for returned leads                              |
| `allowance:adjustment`      | what operators gave to buyers, less what they took                |
| `cash:deposits`             | what buyers have paid in                                          |
| `payouts:<source>`          | what the leads of one source cost us                              |
| `source:<id>`               | below nothing, what we owe the source                             |

| transfer                 | debits                      | credits            |
| --- | --- | --- |
| `sale_charge`            | `buyer:<id>`                | `revenue:<source>` |
| `upgrade_fee`            | `buyer:<id>`                | `revenue:<source>` |
| `failed_delivery_credit` | `allowance:failed_delivery` | `buyer:<id>`       |
| `return_credit`          | `allowance:return`          | `buyer:<id>`       |
| `payout`                 | `payouts:<source>`          | `source:<id>`      |
| `payout_reversal`        | `source:<id>`               | `payouts:<source>` |
| `deposit`                | `cash:deposits`             | `buyer:<id>`       |
| `adjustment`             | `allowance:adjustment`      | `buyer:<id>`       |

A deposit or an adjustment of less than nothing goes the other way.
"""

from __future__ import annotations

from services.contract.ids import uuid5_of

FAILED_DELIVERIES = "allowance:failed_delivery"
RETURNS = "allowance:return"
ADJUSTMENTS = "allowance:adjustment"
DEPOSITS = "cash:deposits"

_FAILED_DELIVERIES = bytes.fromhex("b1c5f0a83d2e5b4f9a6170e4d8c23f57")
_FEES = bytes.fromhex("4a7be1c9520d5e6bb0f3916ac7d84e21")
_RETURNS = bytes.fromhex("e36d0b9412fa5c87a5d84b1f7096c3ae")
_PAYOUTS = bytes.fromhex("90f2a64d7be35810bc19e5d3027f6a48")
_FEE_PAYOUTS = bytes.fromhex("1de8934c06b75fa2974c3a0bd5f162e7")
_REVERSALS = bytes.fromhex("c75a18e3f49d5206a8eb60d27c3941bf")
_MOVES = bytes.fromhex("762fd0b83ce95141bd0a85e4f6123c9d")


def buyer_account(buyer_id: str) -> str:
    """Name the account of what a buyer owes."""
    return f"buyer:{buyer_id}"


def revenue_account(source_id: str) -> str:
    """Name the account of what the leads of a source brought in."""
    return f"revenue:{source_id}"


def payouts_account(source_id: str) -> str:
    """Name the account of what the leads of a source cost us."""
    return f"payouts:{source_id}"


def source_account(source_id: str) -> str:
    """Name the account of what we owe a source."""
    return f"source:{source_id}"


# A sale's charge needs no id of its own: it bears the sale's, which is a UUIDv5 already.
def fee_id_of(sale_id: str) -> str:
    """Name the fee for the upgrade of a sale: UUIDv5 of the sale id, as are the credits below."""
    return uuid5_of(_FEES, sale_id)


def credit_id_of(sale_id: str) -> str:
    """Name the credit of a sale's failed delivery."""
    return uuid5_of(_FAILED_DELIVERIES, sale_id)


def return_credit_id_of(sale_id: str) -> str:
    """Name the credit of a sale's return."""
    return uuid5_of(_RETURNS, sale_id)


def payout_id_of(earned_by: str) -> str:
    """Name what a source earned by a sale, or by a lead alone: UUIDv5 of the sale's id, or the lead's."""
    return uuid5_of(_PAYOUTS, earned_by)


def fee_payout_id_of(sale_id: str) -> str:
    """Name what a source earned by the upgrade of a sale."""
    return uuid5_of(_FEE_PAYOUTS, sale_id)


def reversal_id_of(sale_id: str) -> str:
    """Name what is taken back of a source because of a sale, of which there is one at most."""
    return uuid5_of(_REVERSALS, sale_id)


def move_id_of(buyer_id: str, reference: str) -> str:
    """Name a deposit or an adjustment: UUIDv5 of the buyer's id and the operator's reference."""
    return uuid5_of(_MOVES, f"{buyer_id}\n{reference}")
