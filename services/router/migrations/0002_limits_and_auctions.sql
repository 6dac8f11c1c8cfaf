-- Limits that are exact with any number of workers, open auctions, moves of money, and upgrades of sales.

create table router.counters (
    counter_id      text collate "C" primary key,
    used            bigint  not null default 0,
    granted         bigint  not null default 0,
    most            bigint  not null default 0,
    shortfall       bigint  not null default 0,
    market_version  bigint  not null default 0,
    ends_at_ms      bigint,
    told            boolean not null default false,
    constraint never_over_the_limit check (used <= most + granted + shortfall),
    constraint shortfall_is_what_is_missing check (shortfall >= 0)
) with (fillfactor = 50);
comment on table router.counters is
    'What is used of each limit. `most` is the market''s, as of market_version; `granted` comes on top (deposits, returns earned); `shortfall` is by how much the limit fell below what was used already (rule 6).';
create index counters_by_end on router.counters (ends_at_ms) where ends_at_ms is not null;

create table router.money (
    account_id  uuid not null,
    reference   text not null,
    constraint one_move_per_reference primary key (account_id, reference)
);
comment on table router.money is 'Moves of money that the log has told: a reference moves money once (rule 25).';

create table router.auctions (
    lead_id         uuid    constraint one_auction_per_lead primary key,
    partition       integer not null,
    auction_number  integer not null,
    closes_at_ms    bigint  not null
);
comment on table router.auctions is 'Open auctions: what the worker that takes a partition over must close (rule 27).';
create index auctions_by_partition on router.auctions (partition, closes_at_ms);

-- What a batch draws, summed up for each counter: `peaks` is the most that it needs free at its start for all that it
-- takes, in its own order, to fit at each step (where it takes nothing, a number that always fits). `limits` of -1 say
-- nothing of the limit: the draw gives back to a period that is over, and a counter that is gone stays gone.
--
-- Counters are locked last and not right after the heads, as rule 5 has it: a hot counter is then held for the shortest
-- time. The order stays the same in every transaction (heads, rows of these partitions, which only their heads' holder
-- writes, counters by id), so nobody waits in a circle. Missing rows are made before any row is locked, for the same reason.
create function router.draw_on_counters(counter_ids text[], peaks bigint[], amounts bigint[], grants bigint[],
                                        withdrawals bigint[], limits bigint[], ends bigint[], tells bigint[],
                                        version bigint) returns setof router.counters
    language plpgsql as $$
declare
    short text;
begin
    insert into router.counters (counter_id, most, market_version, ends_at_ms)
    select g.id, g.most, version, nullif(g.ends_at_ms, 0)
    from unnest(counter_ids, limits, ends) as g (id, most, ends_at_ms) where g.most >= 0 order by g.id collate "C"
    on conflict do nothing;
    perform from router.counters c where c.counter_id = any(counter_ids) order by c.counter_id for update;
    if exists (
        select from router.counters c
        join unnest(counter_ids, peaks, limits, tells) as g (id, peak, most, tells) on c.counter_id = g.id
        where c.used + g.peak > router.limit_now(c, g.most, version) + c.granted or (g.tells = 1 and c.told)
    ) then
        select json_agg(json_build_array(c.counter_id, c.used, c.granted, c.most, c.shortfall, c.market_version, c.told))
        into short from router.counters c where c.counter_id = any(counter_ids);
        raise exception 'a limit has less room than the batch takes' using errcode = 'GV002', detail = short;
    end if;
    return query
    with after as (
        select c.counter_id, g.tells, c.most as most_before, c.granted as granted_before, c.used as used_before,
               c.used + g.amount as used, c.granted + g.granted as granted, nullif(g.ends_at_ms, 0) as ends_at_ms,
               router.limit_now(c, g.most, version) as most,
               c.shortfall + g.withdrawn + greatest(0, c.most - router.limit_now(c, g.most, version)) as short_at_most,
               case when g.most >= 0 then greatest(c.market_version, version) else c.market_version end as market_version
        from router.counters c
        join unnest(counter_ids, amounts, grants, withdrawals, limits, ends, tells)
            as g (id, amount, granted, withdrawn, most, ends_at_ms, tells) on c.counter_id = g.id
    )
    update router.counters c
    set used = a.used, granted = a.granted, most = a.most, market_version = a.market_version,
        -- A row that was made to be locked does not know its end.
        ends_at_ms = coalesce(c.ends_at_ms, a.ends_at_ms),
        -- It grows by no more than the limit fell, so that a batch that takes too much is refused by the constraint.
        shortfall = greatest(0, least(a.used - a.most - a.granted, a.short_at_most)),
        -- Who has room again is told again when it is used up.
        told = a.tells = 1 or (c.told and a.most + a.granted - a.used <= a.most_before + a.granted_before - a.used_before)
    from after a where c.counter_id = a.counter_id
    returning c.*;
end $$;
comment on function router.draw_on_counters is
    'Apply what a batch draws, or raise GV002 with the counters as they are (rule 6).';

create function router.limit_now(stored router.counters, said bigint, version bigint) returns bigint
    language sql immutable as $$
    select case when said >= 0 and version >= stored.market_version then said else stored.most end;
$$;
comment on function router.limit_now is 'The limit of the later market version: a worker may still decide under an earlier one.';

-- What is locked before a batch is decided, where deciding first has failed twice.
create function router.lock_counters(partitions bigint[], counter_ids text[]) returns setof router.counters
    language plpgsql as $$
begin
    perform from router.heads h where h.partition = any(partitions::integer[]) order by h.partition for update;
    insert into router.counters (counter_id) select id from unnest(counter_ids) as id order by id collate "C"
    on conflict do nothing;
    return query select * from router.counters c where c.counter_id = any(counter_ids) order by c.counter_id for update;
end $$;
comment on function router.lock_counters is 'Lock heads and then counters, made where they are missing, and read the counters.';

-- The router's role may not change a sale otherwise. The foreign key of later sales refuses it once others hold the lead.
create function router.upgrade_sales(upgraded uuid[]) returns void
    language plpgsql security definer set search_path = router, pg_temp as $$
declare
    refused uuid;
begin
    with done as (
        update router.sales s set mode = 'exclusive', closed_until_ms = 9223372036854775807
        from unnest(upgraded) as g (lead_id)
        where s.lead_id = g.lead_id and s.sale_number = 1 and s.mode = 'shared'
        returning s.lead_id
    )
    select g.lead_id into refused from unnest(upgraded) as g (lead_id)
    where not exists (select from done where done.lead_id = g.lead_id) limit 1;
    if refused is not null then
        raise exception 'there is no shared sale to upgrade' using
            errcode = '23514', constraint = 'only_a_shared_sale_is_upgraded', detail = refused::text;
    end if;
end $$;
comment on function router.upgrade_sales is 'Make leads'' first sales, so far shared, exclusive for good.';

-- A return gives back to the period that it was bought in, so a period is kept as long as anything may be returned.
create function router.drop_old_counters(ended_before_ms bigint, at_most bigint) returns bigint
    language plpgsql security definer set search_path = router, pg_temp as $$
declare
    dropped bigint;
begin
    delete from router.counters where counter_id in (
        select c.counter_id from router.counters c where c.ends_at_ms < ended_before_ms
        order by c.ends_at_ms limit at_most for update skip locked
    );
    get diagnostics dropped = row_count;
    return dropped;
end $$;
comment on function router.drop_old_counters is 'Drop counters of periods that ended long ago.';

drop function router.commit_batch;
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
    undelivered_partitions bigint[], undelivered_seqs bigint[], undelivered_numbers bigint[], recipients text[],
    upgraded_leads uuid[],
    auction_leads uuid[], auction_partitions bigint[], auction_numbers bigint[], auction_ends bigint[],
    ended_auctions uuid[],
    money_accounts uuid[], money_references text[],
    counter_ids text[], counter_peaks bigint[], counter_amounts bigint[], counter_grants bigint[],
    counter_withdrawals bigint[], counter_limits bigint[], counter_ends bigint[], counter_tells bigint[],
    counter_version bigint
) returns setof router.counters language plpgsql as $$
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
    if upgraded_leads <> '{}' then
        perform router.upgrade_sales(upgraded_leads);
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
    if ended_auctions <> '{}' then
        delete from router.auctions a where a.lead_id = any(ended_auctions);
    end if;
    if auction_leads <> '{}' then
        insert into router.auctions (lead_id, partition, auction_number, closes_at_ms)
        select * from unnest(auction_leads, auction_partitions, auction_numbers, auction_ends);
    end if;
    if money_references <> '{}' then
        insert into router.money (account_id, reference) select * from unnest(money_accounts, money_references);
    end if;
    if counter_ids <> '{}' then
        return query select * from router.draw_on_counters(
            counter_ids, counter_peaks, counter_amounts, counter_grants, counter_withdrawals, counter_limits, counter_ends,
            counter_tells, counter_version);
    end if;
end $$;
comment on function router.commit_batch is 'Commit one batch, all of it or nothing; promises are the tables'' constraints.';

grant select, insert, update on router.counters to gavel_router;
grant select, insert on router.money to gavel_router;
grant select, insert, delete on router.auctions to gavel_router;
grant select on router.counters, router.money, router.auctions to gavel_audit;
revoke execute on function router.draw_on_counters, router.limit_now, router.lock_counters, router.upgrade_sales,
                           router.drop_old_counters, router.commit_batch from public;
grant execute on function router.draw_on_counters, router.limit_now, router.lock_counters, router.upgrade_sales,
                          router.drop_old_counters, router.commit_batch to gavel_router;
