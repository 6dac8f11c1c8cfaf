"""The control's router: sells each lead to the three best orders, delivers it, and keeps its state in a Faust table.

It knows one plan (shared by up to three, the price falling) and neither windows nor withdrawals.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import faust

from bench.per_event_faust.records import AcceptedLead, Decision, Delivery, LeadState, Sale
from bench.per_event_faust.settings import PARTITIONS, Settings, new_app
from services.contract.ids import draw, sale_id_of
from services.contract.times import decimal_amount

_SALES_MAX = 3
_LIST_CENTS = (45_00, 40_00, 35_00)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a buyer takes. `price_cents`: None pays the list price."""

    buyer_id: str
    states: frozenset[str]
    price_cents: int | None


_ORDERS = (
    Order(buyer_id="bench-a", states=frozenset({"AZ", "NM", "NV", "CA", "CO"}), price_cents=48_00),
    Order(buyer_id="bench-b", states=frozenset({"AZ", "NM", "NV", "CA", "CO"}), price_cents=46_00),
    Order(buyer_id="bench-c", states=frozenset({"AZ", "NM", "NV", "CA", "CO"}), price_cents=None),
)


def build_app(settings: Settings) -> faust.App:
    """Wire the topics, the table and the agent."""
    app = new_app(settings, "router")
    accepted = app.topic(settings.accepted, key_type=str, value_type=AcceptedLead)
    decisions = app.topic(settings.decisions, key_type=str, value_type=Decision)
    delivered = {
        order.buyer_id: app.topic(settings.delivered(order.buyer_id), key_type=str, value_type=Delivery)
        for order in _ORDERS
    }
    states = app.Table("leads", key_type=str, value_type=LeadState, partitions=PARTITIONS)

    @app.agent(accepted)
    async def route(leads: faust.StreamT[AcceptedLead]) -> None:
        async for lead in leads:
            if lead.lead_id in states:
                continue
            decision = decide(lead)
            for sale in decision.sales:
                await delivered[sale.buyer_id].send(key=lead.lead_id, value=_delivery(lead, sale))
            await decisions.send(key=lead.lead_id, value=decision)
            states[lead.lead_id] = _state(decision)

    return app


def decide(lead: AcceptedLead) -> Decision:
    """Sell the lead to the best three orders that want it, equal prices dealt by lead id."""
    wanting = [order for order in _ORDERS if lead.details["state"] in order.states]
    ranked = sorted(
        wanting, key=lambda order: (-(order.price_cents or 0), draw(lead.lead_id, order.buyer_id))
    )
    return Decision(
        lead_id=lead.lead_id,
        source_id=lead.source_id,
        lead_type=lead.lead_type,
        sales=[
            Sale(
                sale_number=number,
                sale_id=sale_id_of(lead.lead_id, number),
                buyer_id=order.buyer_id,
                price_cents=order.price_cents or _LIST_CENTS[number - 1],
            )
            for number, order in enumerate(ranked[:_SALES_MAX], start=1)
        ],
        sales_max=_SALES_MAX,
        decided_at=time.time(),
    )


def _delivery(lead: AcceptedLead, sale: Sale) -> Delivery:
    return Delivery(
        lead_id=lead.lead_id,
        sale_id=sale.sale_id,
        lead_type=lead.lead_type,
        mode="shared",
        sale_number=sale.sale_number,
        sales_max=_SALES_MAX,
        price=decimal_amount(sale.price_cents),
        currency="USD",
        held_already_by=sale.sale_number - 1,
        promise=f"Shared: you are number {sale.sale_number} of at most {_SALES_MAX}.",
        contact=lead.contact,
        details=lead.details,
        created_at=lead.created_at,
    )


def _state(decision: Decision) -> LeadState:
    return LeadState(
        holders=[sale.buyer_id for sale in decision.sales],
        prices_cents=[sale.price_cents for sale in decision.sales],
        closed="sold_out" if len(decision.sales) == _SALES_MAX else "partly_sold",
    )
