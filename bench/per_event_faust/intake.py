"""The control's door: validates, scores and dedupes submissions one by one, and passes on what it accepts.

The table of people is right with one worker only, as it isn't partitioned by person: a concession to the control, which
would otherwise need another hop. It seals nothing and sends no receipts: two more.
"""

from __future__ import annotations

import time

import faust
from pydantic import ValidationError

from bench.leads import SOURCE_ID
from bench.per_event_faust.records import AcceptedLead
from bench.per_event_faust.settings import PARTITIONS, Settings, new_app
from bench.per_event_faust.submissions import Submission, quality_of
from services.contract.ids import lead_id_of

_DUPLICATE_WITHIN_S = 30 * 24 * 3600.0


def build_app(settings: Settings) -> faust.App:
    """Wire the topics, the table and the agent."""
    app = new_app(settings, "intake")
    submitted = app.topic(settings.submitted, value_serializer="raw", key_serializer="raw")
    accepted = app.topic(settings.accepted, key_type=str, value_type=AcceptedLead)
    seen_at_s = app.Table("people", key_type=str, value_type=float, partitions=PARTITIONS)

    def is_duplicate(people: tuple[str, ...], now_s: float) -> bool:
        return any(now_s - seen_at_s.get(person, 0.0) < _DUPLICATE_WITHIN_S for person in people)

    @app.agent(submitted)
    async def take_in(submissions: faust.StreamT[bytes]) -> None:
        async for value in submissions:
            try:
                submission = Submission.model_validate_json(value)
            except ValidationError:
                app.log.warning("declined an invalid submission")
                continue
            people = (submission.contact.phone, submission.contact.email)
            now_s = time.time()
            if is_duplicate(people, now_s):
                continue
            lead = _accepted(submission)
            await accepted.send(key=lead.lead_id, value=lead)
            for person in people:
                seen_at_s[person] = now_s

    return app


def _accepted(submission: Submission) -> AcceptedLead:
    return AcceptedLead(
        lead_id=lead_id_of(SOURCE_ID, submission.reference),
        source_id=SOURCE_ID,
        reference=submission.reference,
        lead_type=submission.lead_type,
        contact=submission.contact.model_dump(),
        details={name: str(value) for name, value in submission.details.model_dump().items()},
        quality=quality_of(submission.details),
        created_at=submission.created_at.isoformat(),
    )
