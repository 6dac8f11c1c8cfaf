-- The archive: leads that were closed long ago, out of the tables that every commit writes to, and still there. Who reads
-- leads reads both; a lead that a late command changes comes back in the commit of that change.

-- A lead is one row with its sales, so that the archive has one index of one entry a lead. All sales of a lead carry the
-- first one's sales_max and closed_until_ms, as a foreign key of router.sales has it, and are numbered from 1.
create table router.archived_leads (
    lead_id          uuid     constraint archived_once primary key,
    partition        integer  not null,
    outcome          text     not null,
    closed_at_ms     bigint   not null,
    sales_max        smallint,
    closed_until_ms  bigint,
    buyer_ids        text[]   not null,
    order_ids        text[]   not null,
    modes            text[]   not null,
    prices_cents     bigint[] not null,
    sold_at_ms       bigint[] not null,
    state            bytea    not null,
    constraint sales_are_whole check (
        cardinality(order_ids) = cardinality(buyer_ids) and cardinality(modes) = cardinality(buyer_ids)
        and cardinality(prices_cents) = cardinality(buyer_ids) and cardinality(sold_at_ms) = cardinality(buyer_ids)
    ),
    constraint no_more_than_sales_max check (cardinality(buyer_ids) <= coalesce(sales_max, 0))
);
comment on table router.archived_leads is
    'Closed leads past their last window, each with its sales: written by router.archive_leads, taken back by a commit.';

create view router.all_leads as
    select lead_id, partition, state from router.leads
    union all
    select lead_id, partition, state from router.archived_leads;
comment on view router.all_leads is 'Every listed lead''s state, archived ones included.';

create view router.all_closes as
    select lead_id, outcome, closed_at_ms from router.closes
    union all
    select lead_id, outcome, closed_at_ms from router.archived_leads;
comment on view router.all_closes is 'Every close, archived ones included.';

create view router.all_sales as
    select lead_id, sale_number, buyer_id, order_id, mode, sales_max, price_cents, sold_at_ms, closed_until_ms
    from router.sales
    union all
    select a.lead_id, s.sale_number::smallint, s.buyer_id, s.order_id, s.mode, a.sales_max, s.price_cents, s.sold_at_ms,
           a.closed_until_ms
    from router.archived_leads a
    cross join lateral unnest(a.buyer_ids, a.order_ids, a.modes, a.prices_cents, a.sold_at_ms)
        with ordinality as s (buyer_id, order_id, mode, price_cents, sold_at_ms, sale_number);
comment on view router.all_sales is 'Every sale, archived ones included.';

-- A listed lead is never listed again, archived or not (rule 13). It looks once for all rows of a statement.
create function router.refuse_archived() returns trigger language plpgsql as $$
declare
    known uuid;
begin
    select a.lead_id into known from router.archived_leads a where a.lead_id = any(array(select lead_id from added)) limit 1;
    if known is not null then
        raise exception 'an archived lead is listed already' using
            errcode = 'unique_violation', constraint = 'listed_once', detail = known::text;
    end if;
    return null;
end $$;
-- A plan that is made while a table is small, and kept, goes through all of it when it is large.
alter function router.refuse_archived set enable_seqscan = off;
create trigger listed_once_archived_or_not after insert on router.leads
    referencing new table as added for each statement execute function router.refuse_archived();

-- The caller has locked the leads' rows in this transaction, and judged what they say: whoever changes a lead, its sales
-- or its close changes its row first, so nothing moves while it is moved.
create function router.archive_leads(chosen uuid[]) returns bigint
    language plpgsql security definer set search_path = router, pg_temp set enable_seqscan = off as $$
declare
    moved bigint;
begin
    with whole as (
        select l.lead_id from router.leads l
        where l.lead_id = any(chosen)
            and exists (select from router.closes c where c.lead_id = l.lead_id)
            and not exists (select from router.auctions o where o.lead_id = l.lead_id)
            and (select count(*) = coalesce(max(s.sale_number), 0) from router.sales s where s.lead_id = l.lead_id)
    ), listed as (
        delete from router.leads l where l.lead_id = any(array(select lead_id from whole))
        returning l.lead_id, l.partition, l.state
    ), closed as (
        delete from router.closes c where c.lead_id = any(array(select lead_id from whole)) returning c.*
    ), sold as (
        delete from router.sales s where s.lead_id = any(array(select lead_id from whole)) returning s.*
    ), sales as (
        select s.lead_id, min(s.sales_max) as sales_max, min(s.closed_until_ms) as closed_until_ms,
               array_agg(s.buyer_id order by s.sale_number) as buyer_ids,
               array_agg(s.order_id order by s.sale_number) as order_ids,
               array_agg(s.mode order by s.sale_number) as modes,
               array_agg(s.price_cents order by s.sale_number) as prices_cents,
               array_agg(s.sold_at_ms order by s.sale_number) as sold_at_ms
        from sold s group by s.lead_id
    )
    insert into router.archived_leads (lead_id, partition, outcome, closed_at_ms, sales_max, closed_until_ms, buyer_ids,
                                       order_ids, modes, prices_cents, sold_at_ms, state)
    select l.lead_id, l.partition, c.outcome, c.closed_at_ms, s.sales_max, s.closed_until_ms,
           coalesce(s.buyer_ids, '{}'), coalesce(s.order_ids, '{}'), coalesce(s.modes, '{}'),
           coalesce(s.prices_cents, '{}'), coalesce(s.sold_at_ms, '{}'), l.state
    from listed l join closed c using (lead_id) left join sales s using (lead_id)
    order by l.lead_id;
    get diagnostics moved = row_count;
    return moved;
end $$;
comment on function router.archive_leads is 'Move closed leads, whose rows are locked, with their sales to the archive.';

-- What was read of an archived lead is what it was archived with, and only its partition's owner changes it: so it can
-- come back in the commit that changes it, with its new state.
create function router.recall_leads(recalled uuid[], states bytea[]) returns void
    language plpgsql security definer set search_path = router, pg_temp set enable_seqscan = off as $$
declare
    unknown uuid;
begin
    with back as (
        delete from router.archived_leads a where a.lead_id = any(recalled) returning a.*
    ), listed as (
        insert into router.leads (lead_id, partition, state)
        select b.lead_id, b.partition, g.state
        from back b join unnest(recalled, states) as g (lead_id, state) using (lead_id)
    ), closed as (
        insert into router.closes (lead_id, outcome, closed_at_ms) select lead_id, outcome, closed_at_ms from back
    )
    insert into router.sales (lead_id, sale_number, buyer_id, order_id, mode, sales_max, price_cents, sold_at_ms,
                              closed_until_ms)
    select b.lead_id, s.sale_number, s.buyer_id, s.order_id, s.mode, b.sales_max, s.price_cents, s.sold_at_ms,
           b.closed_until_ms
    from back b
    cross join lateral unnest(b.buyer_ids, b.order_ids, b.modes, b.prices_cents, b.sold_at_ms)
        with ordinality as s (buyer_id, order_id, mode, price_cents, sold_at_ms, sale_number);
    select g.lead_id into unknown from unnest(recalled) as g (lead_id)
    where not exists (select from router.leads l where l.lead_id = g.lead_id) limit 1;
    if unknown is not null then
        raise exception 'a lead that is changed is nowhere' using errcode = 'GV003', detail = unknown::text;
    end if;
end $$;
comment on function router.recall_leads is 'Take leads that a commit changes back from the archive; raise GV003 for unknown ones.';

-- As before, but that a changed lead's row comes first, back from the archive if it is there: from then on it is locked,
-- and its sales and its close stand where their constraints look.
create or replace function router.commit_batch(
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
declare
    changed bigint;
    archived uuid;
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
    if changed_leads <> '{}' then
        update router.leads l set state = g.state
        from unnest(changed_leads, changed_states) as g (lead_id, state) where l.lead_id = g.lead_id;
        get diagnostics changed = row_count;
        if changed < cardinality(changed_leads) then
            perform router.recall_leads(changed_leads, changed_states);
        end if;
    end if;
    -- A sale or a close of a lead that the batch neither lists nor changes can only be wrong. Of an archived one there
    -- would be nothing beside it that a constraint could compare it with.
    if sale_leads <> '{}' or closed_leads <> '{}' then
        select a.lead_id into archived from router.archived_leads a where a.lead_id = any(array(
            select unnest(sale_leads || closed_leads) except select unnest(new_leads || changed_leads))) limit 1;
        if archived is not null then
            raise exception 'an archived lead is neither sold nor closed' using
                errcode = '23514', constraint = 'nothing_beside_the_archive', detail = archived::text;
        end if;
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
alter function router.commit_batch set enable_seqscan = off;

grant select on router.archived_leads, router.all_leads, router.all_closes, router.all_sales to gavel_router, gavel_audit;
revoke execute on function router.refuse_archived, router.archive_leads, router.recall_leads from public;
grant execute on function router.refuse_archived, router.archive_leads, router.recall_leads to gavel_router;
