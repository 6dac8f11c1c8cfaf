-- Every window that the log has opened and not closed, and how far this reader has taken each partition of the log.
create schema resale;

create table resale.positions (
    partition   integer primary key,
    next_offset bigint not null check (next_offset >= 0),
    seq         bigint not null check (seq >= 0),
    hash        bytea  not null check (octet_length(hash) = 32)
) with (fillfactor = 50);
comment on table resale.positions is
    'How far the log is folded; moves by compare-and-set in the transaction of what was folded.';

create table resale.windows (
    lead_id         uuid    not null,
    window_number   integer not null,
    partition       integer not null,
    kind            text    not null,
    due_at_ms       bigint  not null,
    next_send_at_ms bigint  not null check (next_send_at_ms >= due_at_ms), -- never early
    sends           integer not null default 0 check (sends >= 0),
    primary key (lead_id, window_number)
)
-- Rows come and go like a queue: without early vacuuming, the scan for what is due wades through the dead ones.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

comment on table resale.windows is 'What is due when, by lead; the router judges whether it really is.';
comment on column resale.windows.sends is 'How often it was sent to leads.timers; above 0, it is outstanding.';
comment on column resale.windows.next_send_at_ms is 'When it is sent, or sent again, unless the log closes it before.';

-- Two indexes, because what was sent and is outstanding is counted at each look, and what waits is not.
create index windows_waiting on resale.windows (partition, next_send_at_ms) where sends = 0;
create index windows_outstanding on resale.windows (partition, next_send_at_ms) where sends > 0;

grant usage on schema resale to gavel_resale, gavel_audit;
grant select, insert, update, delete on all tables in schema resale to gavel_resale;
grant select on all tables in schema resale to gavel_audit;
