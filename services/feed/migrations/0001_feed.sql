-- How far the feed has published each partition of the log.
create schema feed;

create table feed.positions (
    partition   integer primary key,
    next_offset bigint not null check (next_offset >= 0),
    seq         bigint not null check (seq >= 0),
    hash        bytea  not null check (octet_length(hash) = 32)
) with (fillfactor = 50);
comment on table feed.positions is 'How far the log is published on leads.events; moves by compare-and-set.';

grant usage on schema feed to gavel_feed, gavel_audit;
grant select, insert, update on all tables in schema feed to gavel_feed;
grant select on all tables in schema feed to gavel_audit;
