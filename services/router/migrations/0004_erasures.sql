-- Which holder was asked to erase which lead, until when it has to say that it did, and when it did. The log says all of
-- it; this is where what is open is found.

create table router.erasures (
    lead_id            uuid    not null,
    buyer_id           text    not null,
    reason             text    not null check (reason in ('erased', 'revoked')),
    asked_at_ms        bigint  not null,
    acknowledge_by_ms  bigint  not null check (acknowledge_by_ms > asked_at_ms),
    acknowledged_at_ms bigint  check (acknowledged_at_ms >= asked_at_ms),
    by_operator        boolean,
    primary key (lead_id, buyer_id),
    check ((acknowledged_at_ms is null) = (by_operator is null))
);
create index erasures_open on router.erasures (acknowledge_by_ms) where acknowledged_at_ms is null;
comment on table router.erasures is 'Holders that were asked to erase a lead, and whether they have: written with the entries that say so.';

grant select, insert, update on router.erasures to gavel_router;
grant select on router.erasures to gavel_audit;
