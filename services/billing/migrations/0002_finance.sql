-- What people and BI tools read: views in decimals of the currency and in the market's own time. Test leads are left out.
-- The role gavel_finance_reader can read these and nothing else; give it to whoever may: grant gavel_finance_reader to ...
create schema finance;
comment on schema finance is 'Sales, balances and revenue, as of the log. Read with the role gavel_finance_reader.';

-- Roles belong to the server, so another database's migration may be making this one in the same moment
-- (the last of the exceptions is "tuple concurrently updated"): it is enough that somebody does.
do $$
begin
    if not exists (select from pg_roles where rolname = 'gavel_finance_reader') then
        create role gavel_finance_reader nologin;
    end if;
    if not pg_has_role(current_user, 'gavel_finance_reader', 'set') then
        grant gavel_finance_reader to current_user;
    end if;
exception when duplicate_object or unique_violation or internal_error then null;
end
$$;

-- PL/pgSQL looks for market.versions when it runs, not when it is made: the market's migration may come later. It runs
-- as its owner, so that readers of finance need no access to the market.
create function finance.market_setting(setting text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return (select model::jsonb ->> setting from market.versions order by version desc limit 1);
end
$$;
comment on function finance.market_setting is 'A setting of the market in force, such as timezone or currency.';

create function finance.market_timezone() returns text
language sql stable as $$ select coalesce(finance.market_setting('timezone'), 'UTC') $$;
comment on function finance.market_timezone is 'Where finance''s days and months begin: the market''s timezone.';

-- Each call in a subselect of its own, which is run once a query and not once a row.
create view finance.sales as
    select
        sale_id,
        lead_id,
        lead_type,
        plan,
        source_id as source,
        buyer_id as buyer,
        order_id,
        mode,
        sale_number,
        sales_max,
        (price_cents / 100.0)::numeric(14, 2) as price,
        (credited_cents / 100.0)::numeric(14, 2) as credited,
        ((price_cents - credited_cents) / 100.0)::numeric(14, 2) as revenue,
        currency,
        sold_at,
        sold_at at time zone (select finance.market_timezone()) as sold_at_local,
        (sold_at at time zone (select finance.market_timezone()))::date as sold_day,
        date_trunc('month', sold_at at time zone (select finance.market_timezone()))::date as sold_month,
        case when mode = 'exclusive' then coalesce(exclusive_until, 'infinity') end as exclusive_until,
        delivery_failed_at
    from billing.sales
    where not is_test;
comment on view finance.sales is 'One row a sale: to whom, as which of how many, at what price.';
comment on column finance.sales.sale_id is 'The sale''s id, as its buyer and the log know it.';
comment on column finance.sales.lead_id is 'The lead that was sold.';
comment on column finance.sales.lead_type is 'What kind of lead it is.';
comment on column finance.sales.plan is 'The sales plan that sold it.';
comment on column finance.sales.source is 'Who sent the lead in.';
comment on column finance.sales.buyer is 'Who bought it.';
comment on column finance.sales.order_id is 'The buyer''s standing order that took it.';
comment on column finance.sales.mode is 'exclusive or shared: what the buyer was promised.';
comment on column finance.sales.sale_number is 'k of "number k of at most N": how many buyers had the lead by then.';
comment on column finance.sales.sales_max is 'N of "number k of at most N": how many buyers may ever have the lead.';
comment on column finance.sales.price is 'What the buyer was charged.';
comment on column finance.sales.credited is 'What was given back since, such as for a delivery that failed.';
comment on column finance.sales.revenue is 'Price less what was credited.';
comment on column finance.sales.currency is 'ISO 4217 code of the amounts.';
comment on column finance.sales.sold_at is 'When it was sold. Filter by this column: it has an index.';
comment on column finance.sales.sold_at_local is 'When it was sold, in the market''s timezone.';
comment on column finance.sales.sold_day is 'The day of the sale, in the market''s timezone.';
comment on column finance.sales.sold_month is 'The first day of the month of the sale, in the market''s timezone.';
comment on column finance.sales.exclusive_until is
    'Until when the buyer alone has the lead, infinity if for good; null if it was sold shared.';
comment on column finance.sales.delivery_failed_at is 'When its delivery was given up; null if it was not.';

create view finance.leads as
    select
        lead_id,
        lead_type,
        plan,
        source_id as source,
        listed_at as accepted_at,
        listed_at at time zone (select finance.market_timezone()) as accepted_at_local,
        (listed_at at time zone (select finance.market_timezone()))::date as accepted_day,
        date_trunc('month', listed_at at time zone (select finance.market_timezone()))::date as accepted_month,
        coalesce(outcome, 'selling') as outcome,
        closed_at,
        coalesce(sold.sales, 0) as sales,
        (coalesce(sold.revenue_cents, 0) / 100.0)::numeric(14, 2) as revenue,
        coalesce(sold.currency, (select finance.market_setting('currency'))) as currency
    from billing.leads
    left join (
        select lead_id, currency, count(*) as sales, sum(price_cents - credited_cents) as revenue_cents
        from billing.sales
        where not is_test
        group by lead_id, currency
    ) as sold using (lead_id)
    where not is_test;
comment on view finance.leads is 'One row an accepted lead, sold or not.';
comment on column finance.leads.lead_id is 'The lead.';
comment on column finance.leads.lead_type is 'What kind of lead it is.';
comment on column finance.leads.plan is 'The sales plan that it was accepted under; null if none fitted.';
comment on column finance.leads.source is 'Who sent the lead in.';
comment on column finance.leads.accepted_at is 'When it was put up for sale. Filter by this column: it has an index.';
comment on column finance.leads.accepted_at_local is 'When it was put up for sale, in the market''s timezone.';
comment on column finance.leads.accepted_day is 'The day of that, in the market''s timezone.';
comment on column finance.leads.accepted_month is 'The first day of the month of that, in the market''s timezone.';
comment on column finance.leads.outcome is
    'How its selling ended: sold_out, partly_sold, unsold, deal, withdrawn or failed; selling if it has not.';
comment on column finance.leads.closed_at is 'When its selling ended; null if it has not.';
comment on column finance.leads.sales is 'How many buyers bought it.';
comment on column finance.leads.revenue is 'What they paid for it together, less what was credited.';
comment on column finance.leads.currency is 'ISO 4217 code of the revenue; of a lead never sold, the market''s.';

create view finance.revenue_by_plan as
    select
        lead_type,
        plan,
        currency,
        count(*) as leads_accepted,
        count(*) filter (where sales > 0) as leads_sold,
        count(*) filter (where sales = 0 and outcome <> 'selling') as leads_unsold,
        count(*) filter (where sales = 0 and outcome = 'selling') as leads_selling,
        sum(sales)::bigint as sales,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as revenue_per_accepted_lead,
        round(sum(revenue) / nullif(count(*) filter (where sales > 0), 0), 2) as revenue_per_sold_lead
    from finance.leads
    group by lead_type, plan, currency;
comment on view finance.revenue_by_plan is
    'What each plan brings. Plans that share a lead type''s leads evenly are compared by revenue_per_accepted_lead.';
comment on column finance.revenue_by_plan.lead_type is 'What kind of leads.';
comment on column finance.revenue_by_plan.plan is 'The sales plan; null for leads that no plan fitted.';
comment on column finance.revenue_by_plan.currency is 'ISO 4217 code of the amounts.';
comment on column finance.revenue_by_plan.leads_accepted is 'Leads accepted under the plan: sold, unsold and selling.';
comment on column finance.revenue_by_plan.leads_sold is 'Those with one buyer or more.';
comment on column finance.revenue_by_plan.leads_unsold is 'Those whose selling ended without any buyer.';
comment on column finance.revenue_by_plan.leads_selling is 'Those still for sale, without a buyer so far.';
comment on column finance.revenue_by_plan.sales is 'How many sales they made.';
comment on column finance.revenue_by_plan.revenue is 'What buyers paid, less what was credited.';
comment on column finance.revenue_by_plan.revenue_per_accepted_lead is
    'Revenue by all accepted leads, the unsold included: the figure to compare plans by.';
comment on column finance.revenue_by_plan.revenue_per_sold_lead is 'Revenue by those with one buyer or more.';

create view finance.revenue_by_day as
    select
        accepted_day,
        lead_type,
        plan,
        source,
        currency,
        count(*) as leads_accepted,
        count(*) filter (where sales > 0) as leads_sold,
        sum(sales)::bigint as sales,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as revenue_per_accepted_lead
    from finance.leads
    group by accepted_day, lead_type, plan, source, currency;
comment on view finance.revenue_by_day is
    'What the leads accepted on each day have brought so far, whenever they were sold.';
comment on column finance.revenue_by_day.accepted_day is 'The day they were accepted, in the market''s timezone.';
comment on column finance.revenue_by_day.lead_type is 'What kind of leads.';
comment on column finance.revenue_by_day.plan is 'The sales plan; null for leads that no plan fitted.';
comment on column finance.revenue_by_day.source is 'Who sent them in.';
comment on column finance.revenue_by_day.currency is 'ISO 4217 code of the amounts.';
comment on column finance.revenue_by_day.leads_accepted is 'Leads accepted on that day.';
comment on column finance.revenue_by_day.leads_sold is 'Those with one buyer or more by now.';
comment on column finance.revenue_by_day.sales is 'How many sales they made by now.';
comment on column finance.revenue_by_day.revenue is 'What buyers paid for them, less what was credited.';
comment on column finance.revenue_by_day.revenue_per_accepted_lead is 'Revenue by all of them, the unsold included.';

create view finance.sources as
    select
        source,
        currency,
        count(*) as leads_accepted,
        count(*) filter (where sales > 0) as leads_sold,
        count(*) filter (where sales = 0 and outcome <> 'selling') as leads_unsold,
        sum(sales)::bigint as sales,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as revenue_per_accepted_lead
    from finance.leads
    group by source, currency;
comment on view finance.sources is 'What the leads of each source bring.';
comment on column finance.sources.source is 'Who sent the leads in.';
comment on column finance.sources.currency is 'ISO 4217 code of the amounts.';
comment on column finance.sources.leads_accepted is 'Leads that were accepted from it.';
comment on column finance.sources.leads_sold is 'Those with one buyer or more.';
comment on column finance.sources.leads_unsold is 'Those whose selling ended without any buyer.';
comment on column finance.sources.sales is 'How many sales they made.';
comment on column finance.sources.revenue is 'What buyers paid for them, less what was credited.';
comment on column finance.sources.revenue_per_accepted_lead is 'Revenue by all accepted leads, the unsold included.';

create view finance.balances as
    select
        account,
        split_part(account, ':', 1) as kind,
        split_part(account, ':', 2) as holder,
        currency,
        (sum(debits_cents) / 100.0)::numeric(16, 2) as debits,
        (sum(credits_cents) / 100.0)::numeric(16, 2) as credits,
        (sum(debits_cents - credits_cents) / 100.0)::numeric(16, 2) as balance
    from billing.account_totals
    group by account, currency;
comment on view finance.balances is
    'The ledger''s accounts. All balances of a currency add up to nothing; docs/finance.md has the chart of accounts.';
comment on column finance.balances.account is 'The account, such as buyer:harbor, revenue:quotehub.';
comment on column finance.balances.kind is 'buyer (what it owes), revenue (income by source) or allowance (income given back).';
comment on column finance.balances.holder is 'The buyer''s or source''s id, or what is allowed for.';
comment on column finance.balances.currency is 'ISO 4217 code of the amounts.';
comment on column finance.balances.debits is 'All that was ever debited.';
comment on column finance.balances.credits is 'All that was ever credited.';
comment on column finance.balances.balance is 'Debits less credits: above nothing a buyer owes us, and income is below nothing.';

create view finance.buyers as
    select
        bought.buyer,
        bought.currency,
        bought.leads,
        bought.exclusive_leads,
        bought.shared_leads,
        bought.charged,
        bought.credited,
        bought.spend,
        round(bought.charged / bought.leads, 2) as average_price,
        coalesce(balances.balance, 0) as owes,
        bought.first_sold_at,
        bought.last_sold_at
    from (
        select
            buyer_id as buyer,
            currency,
            count(*) as leads,
            count(*) filter (where mode = 'exclusive') as exclusive_leads,
            count(*) filter (where mode = 'shared') as shared_leads,
            (sum(price_cents) / 100.0)::numeric(16, 2) as charged,
            (sum(credited_cents) / 100.0)::numeric(16, 2) as credited,
            (sum(price_cents - credited_cents) / 100.0)::numeric(16, 2) as spend,
            min(sold_at) as first_sold_at,
            max(sold_at) as last_sold_at
        from billing.sales
        where not is_test
        group by buyer_id, currency
    ) as bought
    left join finance.balances on balances.account = 'buyer:' || bought.buyer and balances.currency = bought.currency;
comment on view finance.buyers is 'What each buyer bought and owes.';
comment on column finance.buyers.buyer is 'The buyer.';
comment on column finance.buyers.currency is 'ISO 4217 code of the amounts.';
comment on column finance.buyers.leads is 'How many leads it bought.';
comment on column finance.buyers.exclusive_leads is 'Those that it bought exclusive.';
comment on column finance.buyers.shared_leads is 'Those that it bought shared.';
comment on column finance.buyers.charged is 'What they cost.';
comment on column finance.buyers.credited is 'What was given back since.';
comment on column finance.buyers.spend is 'Charged less credited.';
comment on column finance.buyers.average_price is 'Charged by leads.';
comment on column finance.buyers.owes is 'The balance of its account.';
comment on column finance.buyers.first_sold_at is 'When it first bought.';
comment on column finance.buyers.last_sold_at is 'When it last bought.';

create view finance.ledger as
    select
        transfer_id,
        kind,
        debit_account,
        credit_account,
        (amount_cents / 100.0)::numeric(14, 2) as amount,
        currency,
        sale_id,
        posted_at,
        posted_at at time zone (select finance.market_timezone()) as posted_at_local,
        (posted_at at time zone (select finance.market_timezone()))::date as posted_day,
        partition as log_partition,
        seq as log_seq
    from billing.transfers;
comment on view finance.ledger is 'Every movement of money, for good. A correction is a further one.';
comment on column finance.ledger.transfer_id is 'Its id: a charge has that of its sale.';
comment on column finance.ledger.kind is 'sale_charge or failed_delivery_credit.';
comment on column finance.ledger.debit_account is 'The account that it is debited to.';
comment on column finance.ledger.credit_account is 'The account that it is credited to.';
comment on column finance.ledger.amount is 'How much.';
comment on column finance.ledger.currency is 'ISO 4217 code of the amount.';
comment on column finance.ledger.sale_id is 'The sale that it is about.';
comment on column finance.ledger.posted_at is 'When that was decided. Filter by this column: it has an index.';
comment on column finance.ledger.posted_at_local is 'When that was decided, in the market''s timezone.';
comment on column finance.ledger.posted_day is 'The day of that, in the market''s timezone.';
comment on column finance.ledger.log_partition is 'Where the log says so: the partition.';
comment on column finance.ledger.log_seq is 'Where the log says so: the entry''s number in its partition.';

grant usage on schema finance to gavel_finance_reader, gavel_billing, gavel_audit;
grant select on all tables in schema finance to gavel_finance_reader, gavel_billing, gavel_audit;
