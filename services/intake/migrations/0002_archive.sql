-- The archive: leads accepted long ago, out of the table that every batch writes to. Who asks for a lead asks both: a
-- lead sent again is the same lead, however late.
create table intake.archived_leads (
    lead_id          uuid   constraint archived_once primary key,
    source_id        text   not null,
    origin_partition int    not null,
    origin_offset    bigint not null,
    payload_hash     bytea  not null,
    record           bytea  not null,
    received_at_ms   bigint not null
);
comment on table intake.archived_leads is 'Accepted leads of long ago, as they stood in intake.leads: written by intake.archive_leads.';

create view intake.all_leads as
    select lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms from intake.leads
    union all
    select lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms
    from intake.archived_leads;
comment on view intake.all_leads is 'Every accepted lead, archived ones included.';

-- Both tables are written under a lock of the id's row in one of them, or of the key that is about to be: so a lead that
-- is accepted again while it moves is found by the key in the one or by this look in the other.
create function intake.refuse_archived() returns trigger language plpgsql as $$
begin
    if exists (select from intake.archived_leads a where a.lead_id = any(array(select lead_id from added))) then
        raise exception 'an archived lead is accepted already' using
            errcode = 'unique_violation', constraint = 'accepted_once';
    end if;
    return null;
end $$;
-- A plan that is made while a table is small, and kept, goes through all of it when it is large.
alter function intake.refuse_archived set enable_seqscan = off;
create trigger accepted_once_archived_or_not after insert on intake.leads
    referencing new table as added for each statement execute function intake.refuse_archived();

-- Walks some pages of the table; the caller goes on behind them. New rows stand anywhere that room was left.
create function intake.archive_leads(from_page bigint, to_page bigint, received_before_ms bigint) returns bigint
    language plpgsql security definer set search_path = intake, pg_temp as $$
declare
    moved bigint;
begin
    with chosen as (
        select l.lead_id from intake.leads l
        where l.ctid >= format('(%s,0)', from_page)::tid and l.ctid < format('(%s,0)', to_page)::tid
            and l.received_at_ms < received_before_ms
        order by l.lead_id for update skip locked
    ), gone as (
        delete from intake.leads l where l.lead_id = any(array(select lead_id from chosen)) returning l.*
    )
    insert into intake.archived_leads (lead_id, source_id, origin_partition, origin_offset, payload_hash, record,
                                       received_at_ms)
    select lead_id, source_id, origin_partition, origin_offset, payload_hash, record, received_at_ms from gone
    order by lead_id;
    get diagnostics moved = row_count;
    return moved;
end $$;
comment on function intake.archive_leads is 'Move leads that were received before from these pages of intake.leads to the archive.';

grant select on intake.archived_leads, intake.all_leads to gavel_intake, gavel_audit;
revoke execute on function intake.refuse_archived, intake.archive_leads from public;
grant execute on function intake.refuse_archived, intake.archive_leads to gavel_intake;
