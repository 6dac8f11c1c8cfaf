-- What finance reads of upgrades, returns, deposits, payouts and of what became of the leads. Columns are added at the
-- end of views that there are, because people's queries depend on them.
create or replace view finance.sales as
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
        ((price_cents + upgrade_fee_cents - credited_cents) / 100.0)::numeric(14, 2) as revenue,
        currency,
        sold_at,
        sold_at at time zone (select finance.market_timezone()) as sold_at_local,
        (sold_at at time zone (select finance.market_timezone()))::date as sold_day,
        date_trunc('month', sold_at at time zone (select finance.market_timezone()))::date as sold_month,
        case when mode = 'exclusive' or upgraded_at is not null then coalesce(exclusive_until, 'infinity') end
            as exclusive_until,
        delivery_failed_at,
        (upgrade_fee_cents / 100.0)::numeric(14, 2) as upgrade_fee,
        upgraded_at,
        returned_at is not null as returned,
        returned_at,
        ((payout_cents - payout_back_cents) / 100.0)::numeric(14, 2) as payout,
        disposition
    from billing.sales
    where not is_test;
comment on column finance.sales.mode is
    'exclusive or shared: what the buyer was promised when it bought; an upgraded sale was shared until then.';
comment on column finance.sales.price is 'What the buyer was charged, without an upgrade''s fee.';
comment on column finance.sales.credited is
    'What was given back since, for a delivery that failed or a return, an upgrade''s fee included.';
comment on column finance.sales.revenue is 'Price and upgrade''s fee less what was credited.';
comment on column finance.sales.exclusive_until is
    'Until when the buyer alone has the lead, infinity if for good; null if it was sold shared and never upgraded.';
comment on column finance.sales.upgrade_fee is 'What the buyer was charged besides, to be the lead''s only holder.';
comment on column finance.sales.upgraded_at is 'When it was upgraded; null if it was not.';
comment on column finance.sales.returned is 'Whether the buyer gave the lead back for its money.';
comment on column finance.sales.returned_at is 'When its return was approved; null if it was not.';
comment on column finance.sales.payout is
    'What the source earned by this sale, less what was taken back; a payout per lead is in finance.leads.';
comment on column finance.sales.disposition is 'What the buyer reported last of the lead: deal or no_deal; null if neither.';

create or replace view finance.leads as
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
        coalesce(sold.currency, leads.currency, (select finance.market_setting('currency'))) as currency,
        ((payout_cents - payout_back_cents + coalesce(sold.sales_payout_cents, 0)) / 100.0)::numeric(14, 2) as payout
    from billing.leads
    left join (
        select
            lead_id,
            currency,
            count(*) as sales,
            sum(price_cents + upgrade_fee_cents - credited_cents) as revenue_cents,
            sum(payout_cents - payout_back_cents) as sales_payout_cents
        from billing.sales
        where not is_test
        group by lead_id, currency
    ) as sold using (lead_id)
    where not is_test;
comment on column finance.leads.revenue is 'What they paid for it together, upgrades included, less what was credited.';
comment on column finance.leads.currency is 'ISO 4217 code of the amounts; of a lead never sold nor paid for, the market''s.';
comment on column finance.leads.payout is 'What its source earned by it and its sales, less what was taken back.';

create view finance.margin as
    select
        lead_type,
        plan,
        source,
        currency,
        count(*) as leads_accepted,
        sum(sales)::bigint as sales,
        sum(revenue) as revenue,
        sum(payout) as payouts,
        sum(revenue - payout) as margin,
        round(100 * sum(revenue - payout) / nullif(sum(revenue), 0), 2) as margin_percent,
        round(sum(revenue - payout) / count(*), 2) as margin_per_accepted_lead
    from finance.leads
    group by lead_type, plan, source, currency;
comment on view finance.margin is 'What is left of the revenue of each plan and source once the source is paid.';
comment on column finance.margin.lead_type is 'What kind of leads.';
comment on column finance.margin.plan is 'The sales plan; null for leads that no plan fitted.';
comment on column finance.margin.source is 'Who sent them in.';
comment on column finance.margin.currency is 'ISO 4217 code of the amounts.';
comment on column finance.margin.leads_accepted is 'Leads accepted under the plan from the source.';
comment on column finance.margin.sales is 'How many sales they made.';
comment on column finance.margin.revenue is 'What buyers paid for them, upgrades included, less what was credited.';
comment on column finance.margin.payouts is 'What the source earned by them, less what was taken back.';
comment on column finance.margin.margin is 'Revenue less payouts.';
comment on column finance.margin.margin_percent is 'The margin in percent of the revenue; null without any.';
comment on column finance.margin.margin_per_accepted_lead is 'The margin by all accepted leads, the unsold included.';

create view finance.payouts as
    select
        source,
        paid_day,
        date_trunc('month', paid_day)::date as paid_month,
        currency,
        (sum(earned_cents) / 100.0)::numeric(16, 2) as earned,
        (sum(back_cents) / 100.0)::numeric(16, 2) as taken_back,
        (sum(earned_cents - back_cents) / 100.0)::numeric(16, 2) as payable
    from (
        select
            split_part(case when kind = 'payout' then credit_account else debit_account end, ':', 2) as source,
            (posted_at at time zone (select finance.market_timezone()))::date as paid_day,
            currency,
            case when kind = 'payout' then amount_cents else 0 end as earned_cents,
            case when kind = 'payout_reversal' then amount_cents else 0 end as back_cents
        from billing.transfers
        where kind in ('payout', 'payout_reversal')
    ) as moved
    group by source, paid_day, currency;
comment on view finance.payouts is
    'What each source earned on each day, and what was taken back on it. finance.sources has what is owed in all.';
comment on column finance.payouts.source is 'Who sent the leads in.';
comment on column finance.payouts.paid_day is 'The day on which it was earned or taken back, in the market''s timezone.';
comment on column finance.payouts.paid_month is 'The first day of the month of that.';
comment on column finance.payouts.currency is 'ISO 4217 code of the amounts.';
comment on column finance.payouts.earned is 'What the source earned, by leads accepted or by shares of revenue.';
comment on column finance.payouts.taken_back is 'What was taken back, for returns and failed deliveries of any day.';
comment on column finance.payouts.payable is 'Earned less taken back.';

create or replace view finance.sources as
    select
        source,
        currency,
        count(*) as leads_accepted,
        count(*) filter (where sales > 0) as leads_sold,
        count(*) filter (where sales = 0 and outcome <> 'selling') as leads_unsold,
        sum(sales)::bigint as sales,
        sum(revenue) as revenue,
        round(sum(revenue) / count(*), 2) as revenue_per_accepted_lead,
        sum(payout) as payouts,
        sum(revenue - payout) as margin
    from finance.leads
    group by source, currency;
comment on column finance.sources.payouts is 'What the source earned by them, less what was taken back: what is payable to it.';
comment on column finance.sources.margin is 'Revenue less payouts.';

create or replace view finance.revenue_by_plan as
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
        round(sum(revenue) / nullif(count(*) filter (where sales > 0), 0), 2) as revenue_per_sold_lead,
        sum(payout) as payouts,
        sum(revenue - payout) as margin,
        round(sum(revenue - payout) / count(*), 2) as margin_per_accepted_lead
    from finance.leads
    group by lead_type, plan, currency;
comment on column finance.revenue_by_plan.revenue is 'What buyers paid, upgrades included, less what was credited.';
comment on column finance.revenue_by_plan.payouts is 'What sources earned by them, less what was taken back.';
comment on column finance.revenue_by_plan.margin is 'Revenue less payouts.';
comment on column finance.revenue_by_plan.margin_per_accepted_lead is 'The margin by all accepted leads, the unsold included.';

create view finance.returns as
    select
        returns.sale_id,
        sales.lead_id,
        sales.buyer_id as buyer,
        sales.source_id as source,
        sales.lead_type,
        sales.plan,
        returns.reason,
        returns.requested_at,
        returns.decided_at,
        returns.decision,
        returns.refusal,
        returns.automatic,
        (returns.refund_cents / 100.0)::numeric(14, 2) as refund,
        sales.currency,
        sales.sale_number,
        sales.sold_at
    from billing.returns
    join billing.sales using (sale_id)
    where not sales.is_test;
comment on view finance.returns is 'One row each time a buyer asked to give a lead back.';
comment on column finance.returns.sale_id is 'The sale that it wants undone.';
comment on column finance.returns.lead_id is 'The lead.';
comment on column finance.returns.buyer is 'Who bought it.';
comment on column finance.returns.source is 'Who sent it in.';
comment on column finance.returns.lead_type is 'What kind of lead it is.';
comment on column finance.returns.plan is 'The sales plan that sold it.';
comment on column finance.returns.reason is 'Why the buyer wants to give it back.';
comment on column finance.returns.requested_at is 'When it asked.';
comment on column finance.returns.decided_at is 'When that was decided; null while it is pending.';
comment on column finance.returns.decision is 'pending, approved or refused.';
comment on column finance.returns.refusal is 'Why it was refused; null if it was not.';
comment on column finance.returns.automatic is 'Whether the rules decided it, and not an operator; null while it is pending.';
comment on column finance.returns.refund is 'What was credited for it.';
comment on column finance.returns.currency is 'ISO 4217 code of the refund.';
comment on column finance.returns.sale_number is 'k of "number k of at most N", which names the sale together with its lead.';
comment on column finance.returns.sold_at is 'When it was sold.';

create view finance.return_rate as
    select
        case when grouping(buyer_id) = 0 then 'buyer' else 'source' end as of_a,
        coalesce(buyer_id, source_id) as name,
        currency,
        count(*) as sales,
        coalesce(sum(asked.requested), 0)::bigint as requested,
        coalesce(sum(asked.pending), 0)::bigint as pending,
        count(*) filter (where returned_at is not null) as returned,
        coalesce(sum(asked.refused), 0)::bigint as refused,
        round(100.0 * count(*) filter (where returned_at is not null) / count(*), 2) as return_percent,
        (coalesce(sum(asked.refund_cents), 0) / 100.0)::numeric(16, 2) as refunded
    from billing.sales
    left join (
        select
            sale_id,
            count(*) as requested,
            count(*) filter (where decision = 'pending') as pending,
            count(*) filter (where decision = 'refused') as refused,
            sum(refund_cents) as refund_cents
        from billing.returns
        group by sale_id
    ) as asked using (sale_id)
    where not is_test
    group by grouping sets ((buyer_id, currency), (source_id, currency));
comment on view finance.return_rate is 'How much each buyer gives back, and how much of each source is given back.';
comment on column finance.return_rate.of_a is 'buyer or source: what the row is about.';
comment on column finance.return_rate.name is 'The buyer''s id, or the source''s.';
comment on column finance.return_rate.currency is 'ISO 4217 code of the amounts.';
comment on column finance.return_rate.sales is 'Leads that the buyer bought, or sales of the source''s leads.';
comment on column finance.return_rate.requested is 'How often a return was asked for; a refused one may be asked for again.';
comment on column finance.return_rate.pending is 'Returns that nobody has decided yet.';
comment on column finance.return_rate.returned is 'Sales that were returned.';
comment on column finance.return_rate.refused is 'Returns that were refused.';
comment on column finance.return_rate.return_percent is 'Returned sales in percent of all.';
comment on column finance.return_rate.refunded is 'What was credited for returns.';

create view finance.close_rate as
    select
        lead_type,
        case when upgraded_at is null then mode else 'exclusive' end as mode,
        sale_number,
        count(*) as sales,
        count(*) filter (where disposition = 'deal') as deals,
        count(*) filter (where disposition = 'no_deal') as no_deals,
        count(*) filter (where disposition is null) as not_reported,
        round(100.0 * count(*) filter (where disposition = 'deal') / count(*), 2) as close_percent,
        round(100.0 * count(*) filter (where disposition = 'deal') / nullif(count(disposition), 0), 2)
            as close_percent_of_reported
    from billing.sales
    where not is_test
    group by 1, 2, 3;
comment on view finance.close_rate is 'How often a lead becomes a deal, by how it was sold, and as which of how many.';
comment on column finance.close_rate.lead_type is 'What kind of leads.';
comment on column finance.close_rate.mode is 'exclusive (an upgraded sale, too) or shared.';
comment on column finance.close_rate.sale_number is 'k of "number k of at most N".';
comment on column finance.close_rate.sales is 'How many were sold so.';
comment on column finance.close_rate.deals is 'Those that the buyer reported as a deal.';
comment on column finance.close_rate.no_deals is 'Those that the buyer reported as no deal.';
comment on column finance.close_rate.not_reported is 'Those that the buyer reported neither of.';
comment on column finance.close_rate.close_percent is 'Deals in percent of all sales.';
comment on column finance.close_rate.close_percent_of_reported is 'Deals in percent of those reported; null without any.';

create or replace view finance.buyers as
    select
        coalesce(bought.buyer, paid.buyer) as buyer,
        coalesce(bought.currency, paid.currency) as currency,
        coalesce(bought.leads, 0) as leads,
        coalesce(bought.exclusive_leads, 0) as exclusive_leads,
        coalesce(bought.shared_leads, 0) as shared_leads,
        coalesce(bought.charged, 0)::numeric(16, 2) as charged,
        coalesce(bought.credited, 0)::numeric(16, 2) as credited,
        coalesce(bought.spend, 0)::numeric(16, 2) as spend,
        round(bought.charged / bought.leads, 2) as average_price,
        coalesce(balances.balance, 0) as owes,
        bought.first_sold_at,
        bought.last_sold_at,
        coalesce(paid.deposited, 0)::numeric(16, 2) as deposited,
        coalesce(paid.adjusted, 0)::numeric(16, 2) as adjusted,
        greatest(-coalesce(balances.balance, 0), 0)::numeric(16, 2) as prepaid_left
    from (
        select
            buyer_id as buyer,
            currency,
            count(*) as leads,
            count(*) filter (where mode = 'exclusive') as exclusive_leads,
            count(*) filter (where mode = 'shared') as shared_leads,
            (sum(price_cents + upgrade_fee_cents) / 100.0)::numeric(16, 2) as charged,
            (sum(credited_cents) / 100.0)::numeric(16, 2) as credited,
            (sum(price_cents + upgrade_fee_cents - credited_cents) / 100.0)::numeric(16, 2) as spend,
            min(sold_at) as first_sold_at,
            max(sold_at) as last_sold_at
        from billing.sales
        where not is_test
        group by buyer_id, currency
    ) as bought
    full join (
        select
            split_part(case when debit_account like 'buyer:%' then debit_account else credit_account end, ':', 2)
                as buyer,
            currency,
            (sum(case when debit_account like 'buyer:%' then -amount_cents else amount_cents end)
                filter (where kind = 'deposit') / 100.0)::numeric(16, 2) as deposited,
            (sum(case when debit_account like 'buyer:%' then -amount_cents else amount_cents end)
                filter (where kind = 'adjustment') / 100.0)::numeric(16, 2) as adjusted
        from billing.transfers
        where reference is not null
        group by 1, 2
    ) as paid on paid.buyer = bought.buyer and paid.currency = bought.currency
    left join finance.balances
        on balances.account = 'buyer:' || coalesce(bought.buyer, paid.buyer)
        and balances.currency = coalesce(bought.currency, paid.currency);
comment on view finance.buyers is 'What each buyer bought, paid in and owes.';
comment on column finance.buyers.shared_leads is 'Those that it bought shared, upgraded ones included.';
comment on column finance.buyers.charged is 'What they cost, upgrades included.';
comment on column finance.buyers.credited is 'What was given back since, for returns and failed deliveries.';
comment on column finance.buyers.average_price is 'Charged by leads; null without any.';
comment on column finance.buyers.owes is 'The balance of its account; below nothing, what it has paid in and not used.';
comment on column finance.buyers.deposited is 'What it paid in.';
comment on column finance.buyers.adjusted is 'What operators gave it besides, less what they took.';
comment on column finance.buyers.prepaid_left is 'What is left of what it paid in.';

comment on column finance.balances.account is 'The account, such as buyer:harbor, revenue:quotehub.';
comment on column finance.balances.kind is
    'buyer (what it owes), revenue (income by source), allowance (income given back), cash (what buyers paid in), '
    'payouts (what a source''s leads cost) or source (what it is owed).';
comment on column finance.balances.balance is
    'Debits less credits: above nothing a buyer owes us; below nothing it has paid in advance, a source is owed, and '
    'income stands.';

create or replace view finance.ledger as
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
        seq as log_seq,
        lead_id,
        reference
    from billing.transfers;
comment on column finance.ledger.kind is
    'sale_charge, upgrade_fee, failed_delivery_credit, return_credit, payout, payout_reversal, deposit or adjustment.';
comment on column finance.ledger.sale_id is 'The sale that it is about; null if it is about none.';
comment on column finance.ledger.lead_id is 'The lead that it is about, where a source is paid for that alone; else null.';
comment on column finance.ledger.reference is 'The operator''s reference of a deposit or an adjustment; else null.';

grant select on finance.margin, finance.payouts, finance.returns, finance.return_rate, finance.close_rate
    to gavel_finance_reader, gavel_billing, gavel_audit;
