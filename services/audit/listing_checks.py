"""What must be true of a lead's listing: its type, plan and fields, its cap, and what its source earns by it."""

from __future__ import annotations

from services.audit.findings import At, Findings, Markets
from services.audit.lead_state import Listed
from services.audit.rules import Rule
from services.contract.market import PerLead


class ListingChecks:
    """Judges listings by the market that the lead was accepted under."""

    def __init__(self, findings: Findings, markets: Markets) -> None:
        """Report to `findings`."""
        self._findings = findings
        self._markets = markets

    def judge(self, at: At, listed: Listed) -> None:
        """Judge a listing by itself."""
        market = self._markets.version(listed.market_version)
        lead_type = None if market is None else market.lead_types.get(listed.lead_type)
        if market is None or lead_type is None or listed.market_version > at.market_version:
            what = f"accepted as {listed.lead_type} under market {listed.market_version}, which has none such"
            self._broken(at, Rule.SOLD_BY_ITS_PLAN, what)
            return
        if not listed.fields.keys() <= set(lead_type.ping):
            self._broken(
                at, Rule.PINGS_SHOW_DECLARED_FIELDS, f"a {lead_type.name} lead is listed with other fields"
            )
        if lead_type.one_to_one_consent and not listed.consented_buyers:
            self._broken(
                at, Rule.ONLY_WITH_CONSENT, f"a {lead_type.name} lead is listed without consented buyers"
            )
        source = market.sources.get(listed.source_id)
        most = 1
        if listed.plan is not None:
            plan = self._markets.plan(listed.market_version, listed.lead_type, listed.plan)
            if plan is None:
                self._broken(
                    at, Rule.SOLD_BY_ITS_PLAN, f"{listed.lead_type} leads have no plan {listed.plan}"
                )
                return
            most = plan.sales_max
        if source is not None and source.sales_max is not None:
            most = min(most, source.sales_max)
        if listed.sales_max > most:
            self._broken(
                at, Rule.NO_MORE_THAN_SALES_MAX, f"listed for {listed.sales_max} buyers of at most {most}"
            )
        paid = None if source is None else source.paid
        agreed = (
            paid.by.cents if paid is not None and isinstance(paid.by, PerLead) and not listed.is_test else 0
        )
        if listed.payout_cents != agreed or (agreed and listed.currency != market.currency):
            what = f"the source earns {listed.payout_cents} by the lead, agreed are {agreed}"
            self._broken(at, Rule.SOURCE_EARNS_AS_AGREED, what)

    def _broken(self, at: At, rule: Rule, what: str) -> None:
        self._findings.broken_at(at, rule, what)
