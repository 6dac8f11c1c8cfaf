-- The router's tables. The promises of docs/architecture.md are constraints here, so that even a wrong decision cannot
-- be committed. Times are UTC milliseconds, amounts integer minor units.
create schema router;

create table router.heads (
    partition       integer primary key,
    version         bigint not null default 0,
    next_qualified  bigint not null default 0,
    next_command    bigint not null default 0,
    next_timer      bigint not null default 0,
    seq             bigint not null default 0,
    hash            bytea  not null default decode(repeat('00', 32), 'hex'),
    decided_at_ms   bigint not null default 0,
    market_version  bigint not null default 0,
    published_seq   bigint not null default 0,
    log_topic_id    text   not null default '',
    constraint published_after_commit check (published_seq between 0 and seq),
    constraint hash_is_sha256 check (octet_length(hash) = 32)
) with (fillfactor = 50);
comment on table router.heads is 'One row a partition; every commit raises version by compare-and-set.';

create table router.log (
    partition      integer not null,
    seq            bigint  not null,
    lead_id        uuid    not null,
    decided_at_ms  bigint  not null,
    value          bytea   not null,
    constraint one_entry_per_seq primary key (partition, seq)
) partition by range (seq);
comment on table router.log is 'Committed entries; the topic keeps everything, this table what is recent (rule 21).';
create table router.log_0 partition of router.log for values from (0) to (1000000);

-- The router's role owns no table, so that it cannot drop a constraint; what it may do to the log's ranges is here.
create function router.add_log_range(holding_seq bigint) returns void
    language plpgsql security definer set search_path = router, pg_temp as $$
declare
    range_size constant bigint := 1000000;
    number constant bigint := holding_seq / range_size;
begin
    perform pg_advisory_xact_lock(hashtext('router.log ranges'));
    if to_regclass(format('router.log_%s', number)) is null then
        execute format('create table router.log_%s partition of router.log for values from (%s) to (%s)',
                       number, number * range_size, (number + 1) * range_size);
    end if;
end $$;
comment on function router.add_log_range is 'Make the range partition of router.log that holds this seq.';

-- Whether a range of the log is old is told by its last entry in each partition: entries are dated in the order of
-- their seq. To look at all of its millions takes longer than a transaction may, and so it would never be dropped.
create function router.drop_log_ranges(published_before_ms bigint) returns setof text
    language plpgsql security definer set search_path = router, pg_temp as $$
declare
    range_size constant bigint := 1000000;
    number bigint;
    droppable boolean;
begin
    perform pg_advisory_xact_lock(hashtext('router.log ranges'));
    for number in
        select substr(relname, 5)::bigint from pg_class
        where relnamespace = 'router'::regnamespace and relkind = 'r' and relname ~ '^log_[0-9]+$' order by 1
    loop
        execute format(
            'select not exists (select from router.heads where published_seq < %1$s)
                and not exists (select from router.undelivered where seq >= %2$s and seq < %1$s)
                and not exists (
                    select from router.heads h
                    cross join lateral (
                        select l.decided_at_ms from router.log_%3$s l
                        where l.partition = h.partition order by l.seq desc limit 1
                    ) last
                    where last.decided_at_ms >= %4$s
                )',
            (number + 1) * range_size, number * range_size, number, published_before_ms) into droppable;
        exit when not droppable;
        execute format('drop table router.log_%s', number);
        return next format('log_%s', number);
    end loop;
end $$;
comment on function router.drop_log_ranges is 'Drop whole ranges that are published, delivered and older (rule 21).';

create table router.leads (
    lead_id    uuid constraint listed_once primary key,
    partition  integer not null,
    state      bytea   not null
) with (fillfactor = 85);
comment on table router.leads is 'Each listed lead''s state: the fold of its events in the log. A lead is never listed again.';

create table router.closes (
    lead_id       uuid constraint one_close_per_lead primary key,
    outcome       text   not null,
    closed_at_ms  bigint not null
);
comment on table router.closes is 'Each lead is closed once.';

create table router.sales (
    lead_id          uuid     not null,
    sale_number      smallint not null,
    buyer_id         text     not null,
    order_id         text     not null,
    mode             text     not null check (mode in ('exclusive', 'shared')),
    sales_max        smallint not null,
    price_cents      bigint   not null check (price_cents >= 0),
    sold_at_ms       bigint   not null,
    closed_until_ms  bigint   not null,
    follows          smallint generated always as (case when sale_number > 1 then 1 end) stored,
    constraint one_sale_per_number primary key (lead_id, sale_number),
    constraint never_the_same_buyer_twice unique (lead_id, buyer_id),
    constraint no_more_than_sales_max check (sale_number between 1 and sales_max),
    constraint exclusive_is_the_first check (mode = 'shared' or sale_number = 1),
    constraint shared_closes_nothing check (mode = 'exclusive' or sale_number > 1 or closed_until_ms = -9223372036854775808),
    constraint exclusive_closes check (mode = 'shared' or sale_number > 1 or closed_until_ms > sold_at_ms),
    constraint nothing_beside_an_exclusive_sale check (sale_number = 1 or sold_at_ms >= closed_until_ms),
    constraint first_sale_terms unique (lead_id, sale_number, sales_max, closed_until_ms),
    constraint follows_the_first_sale foreign key (lead_id, follows, sales_max, closed_until_ms)
        references router.sales (lead_id, sale_number, sales_max, closed_until_ms)
);
comment on table router.sales is 'Every disclosure. A later sale carries the first one''s terms, and must come after its exclusivity.';

create table router.undelivered (
    partition  integer not null,
    seq        bigint  not null,
    n          integer not null,
    recipient  text    not null,
    primary key (partition, seq, n)
);
comment on table router.undelivered is 'Records that their recipient''s topic has not acknowledged yet (rule 17).';
-- What is undelivered is read recipient by recipient, so that one that is silent for long hides none of the others.
create index undelivered_by_recipient on router.undelivered (partition, recipient, seq, n);

grant usage on schema router to gavel_router, gavel_audit;
grant select, insert, update on router.heads to gavel_router;
grant select, insert on router.log, router.closes, router.sales to gavel_router;
grant select, insert, update on router.leads to gavel_router;
grant select, insert, delete on router.undelivered to gavel_router;
grant select on all tables in schema router to gavel_audit;
revoke execute on all functions in schema router from public;
grant execute on all functions in schema router to gavel_router;
