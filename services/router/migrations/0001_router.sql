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

-- The router's transaction, in one statement and so in one round trip: columns of rows as arrays of one length.
-- The heads come first (rule 1), locked in the order of partitions, as an UPDATE alone locks in any order (rule 5). Where
-- another owner has moved on, it raises GV001 with the partitions, and nothing of the batch is done.
create function router.move_heads(partitions bigint[], versions bigint[], published_before bigint[],
                                  published_after bigint[], next_qualified bigint[], next_command bigint[],
                                  next_timer bigint[], hashes bytea[], seqs bigint[], decided_at_ms bigint[],
                                  market_versions bigint[]) returns void
    language plpgsql as $$
declare
    moved integer[];
begin
    perform from router.heads h where h.partition = any(partitions::integer[]) order by h.partition for update;
    with done as (
        update router.heads h
        set version = h.version + 1, published_seq = g.published_after, next_qualified = g.next_qualified,
            next_command = g.next_command, next_timer = g.next_timer, hash = g.hash, seq = g.seq,
            decided_at_ms = g.decided_at_ms, market_version = g.market_version
        from unnest(partitions, versions, move_heads.published_before, move_heads.published_after,
                    move_heads.next_qualified, move_heads.next_command, move_heads.next_timer, hashes, seqs,
                    move_heads.decided_at_ms, market_versions)
            as g (partition, version, published_before, published_after, next_qualified, next_command, next_timer,
                  hash, seq, decided_at_ms, market_version)
        where h.partition = g.partition and h.version = g.version and h.published_seq = g.published_before
        returning h.partition
    )
    select array_agg(done.partition) into moved from done;
    perform router.require_moved(partitions::integer[], moved);
end $$;

create function router.require_moved(wanted integer[], moved integer[]) returns void
    language plpgsql as $$
begin
    if coalesce(cardinality(moved), 0) < cardinality(wanted) then
        raise exception 'another owner has moved on' using errcode = 'GV001', detail = array_to_string(
            array(select unnest(wanted) except select unnest(moved) order by 1), ',');
    end if;
end $$;
comment on function router.require_moved is 'Raise GV001 and name the partitions that were not moved.';

create function router.add_undelivered(partitions bigint[], seqs bigint[], numbers bigint[], recipients text[])
    returns void language sql as $$
    insert into router.undelivered (partition, seq, n, recipient) select * from unnest(partitions, seqs, numbers, recipients);
$$;

create function router.commit_batch(
    head_partitions bigint[], head_versions bigint[], published_before bigint[], published_after bigint[],
    next_qualified bigint[], next_command bigint[], next_timer bigint[], hashes bytea[], head_seqs bigint[],
    head_decided_at_ms bigint[], market_versions bigint[],
    log_partitions bigint[], log_seqs bigint[], log_leads uuid[], log_decided_at_ms bigint[], log_values bytea[],
    new_leads uuid[], new_partitions bigint[], new_states bytea[],
    sale_leads uuid[], sale_numbers bigint[], sale_buyers text[], sale_orders text[], sale_modes text[],
    sale_maxima bigint[], sale_prices bigint[], sold_at_ms bigint[], closed_until_ms bigint[],
    closed_leads uuid[], outcomes text[], closed_at_ms bigint[],
    changed_leads uuid[], changed_states bytea[],
    undelivered_partitions bigint[], undelivered_seqs bigint[], undelivered_numbers bigint[], recipients text[]
) returns void language plpgsql as $$
begin
    perform router.move_heads(head_partitions, head_versions, published_before, published_after, next_qualified,
                              next_command, next_timer, hashes, head_seqs, head_decided_at_ms, market_versions);
    if log_seqs <> '{}' then
        insert into router.log (partition, seq, lead_id, decided_at_ms, value)
        select * from unnest(log_partitions, log_seqs, log_leads, log_decided_at_ms, log_values);
    end if;
    if new_leads <> '{}' then
        insert into router.leads (lead_id, partition, state) select * from unnest(new_leads, new_partitions, new_states);
    end if;
    if sale_leads <> '{}' then
        insert into router.sales (lead_id, sale_number, buyer_id, order_id, mode, sales_max, price_cents, sold_at_ms,
                                  closed_until_ms)
        select * from unnest(sale_leads, sale_numbers, sale_buyers, sale_orders, sale_modes, sale_maxima, sale_prices,
                             commit_batch.sold_at_ms, commit_batch.closed_until_ms);
    end if;
    if closed_leads <> '{}' then
        insert into router.closes (lead_id, outcome, closed_at_ms)
        select * from unnest(closed_leads, outcomes, commit_batch.closed_at_ms);
    end if;
    if changed_leads <> '{}' then
        update router.leads l set state = g.state
        from unnest(changed_leads, changed_states) as g (lead_id, state) where l.lead_id = g.lead_id;
    end if;
    if recipients <> '{}' then
        perform router.add_undelivered(undelivered_partitions, undelivered_seqs, undelivered_numbers, recipients);
    end if;
end $$;
comment on function router.commit_batch is 'Commit one batch, all of it or nothing; promises are the tables'' constraints.';

create function router.move_marks(partitions bigint[], before_seqs bigint[], after_seqs bigint[],
                                  undelivered_partitions bigint[], undelivered_seqs bigint[],
                                  undelivered_numbers bigint[], recipients text[]) returns void
    language plpgsql as $$
declare
    moved integer[];
begin
    perform from router.heads h where h.partition = any(partitions::integer[]) order by h.partition for update;
    with done as (
        update router.heads h set published_seq = g.after_seq
        from unnest(partitions, before_seqs, after_seqs) as g (partition, before_seq, after_seq)
        where h.partition = g.partition and h.published_seq = g.before_seq
        returning h.partition
    )
    select array_agg(done.partition) into moved from done;
    perform router.require_moved(partitions::integer[], moved);
    perform router.add_undelivered(undelivered_partitions, undelivered_seqs, undelivered_numbers, recipients);
end $$;
comment on function router.move_marks is 'Move the marks of published entries by compare-and-set (rule 16).';

grant usage on schema router to gavel_router, gavel_audit;
grant select, insert, update on router.heads to gavel_router;
grant select, insert on router.log, router.closes, router.sales to gavel_router;
grant select, insert, update on router.leads to gavel_router;
grant select, insert, delete on router.undelivered to gavel_router;
grant select on all tables in schema router to gavel_audit;
revoke execute on all functions in schema router from public;
grant execute on all functions in schema router to gavel_router;
