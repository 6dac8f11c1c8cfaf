-- Money besides charges: upgrades, returns, what sources are paid, what buyers pay in; and what became of the leads.
alter table billing.leads
    add column payout_cents      bigint not null default 0,
    add column payout_back_cents bigint not null default 0,
    add column currency          text,
    add constraint taken_back_within_earned check (payout_back_cents between 0 and payout_cents);
comment on column billing.leads.payout_cents is 'What its source earned by the lead itself, sold or not.';

alter table billing.sales
    add column upgrade_fee_cents bigint not null default 0,
    add column upgraded_at       timestamptz,
    add column returned_at       timestamptz,
    add column payout_cents      bigint not null default 0,
    add column payout_back_cents bigint not null default 0,
    add column disposition       text,
    add column disposition_at    timestamptz,
    add constraint fee_is_not_negative check (upgrade_fee_cents >= 0),
    add constraint taken_back_within_earned check (payout_back_cents between 0 and payout_cents),
    add constraint disposition_is_known check (disposition in ('deal', 'no_deal')),
    add constraint disposition_with_its_time check ((disposition is null) = (disposition_at is null)),
    drop constraint credited_within_charge,
    add constraint credited_within_charge check (credited_cents between 0 and price_cents + upgrade_fee_cents);
comment on table billing.sales is
    'One row a sale; later come its upgrade, what is credited for it, and what became of the lead.';

alter table billing.transfers
    alter column sale_id drop not null,
    add column lead_id   uuid,
    add column reference text,
    add constraint about_one_thing check (num_nonnulls(sale_id, lead_id, reference) = 1),
    drop constraint kind_is_known,
    add constraint kind_is_known check (kind in (
        'sale_charge', 'upgrade_fee', 'failed_delivery_credit', 'return_credit',
        'payout', 'payout_reversal', 'deposit', 'adjustment'
    ));
comment on column billing.transfers.lead_id is 'The lead that it is about, where no sale earned it.';
comment on column billing.transfers.reference is 'The operator''s reference of what was paid in or adjusted.';
create index transfers_by_reference on billing.transfers (posted_at) where reference is not null;

create table billing.returns (
    sale_id      uuid        not null,
    seq          bigint      not null,
    partition    integer     not null,
    reason       text        not null,
    requested_at timestamptz not null,
    decision     text        not null,
    decided_at   timestamptz,
    refusal      text,
    automatic    boolean,
    refund_cents bigint      not null default 0,
    primary key (sale_id, seq),
    constraint decision_is_known check (decision in ('pending', 'approved', 'refused')),
    constraint decided_with_its_time check ((decision = 'pending') = (decided_at is null)),
    constraint decided_by_somebody check ((decision = 'pending') = (automatic is null)),
    constraint refused_with_its_reason check ((decision = 'refused') = (refusal is not null)),
    constraint refund_of_what_is_approved check (refund_cents = 0 or (refund_cents > 0 and decision = 'approved'))
);
comment on table billing.returns is
    'One row each time a buyer asks to give a lead back, by the number of the entry that says so.';
create unique index one_return_pending_of_a_sale on billing.returns (sale_id) where decision = 'pending';
create unique index one_return_approved_of_a_sale on billing.returns (sale_id) where decision = 'approved';
create trigger returns_are_kept before delete or truncate on billing.returns
    for each statement execute function billing.refuse_change();

-- Transfers against what was sold, upgraded, credited, earned and taken back: all of it must agree.
create or replace view billing.discrepancies as
    select 'account total' as what, account || ' ' || currency || ' ' || partition as which
    from (
        select account, currency, partition, debits_cents, credits_cents from billing.account_totals
        union all
        select debit_account, currency, partition, -amount_cents, 0 from billing.transfers
        union all
        select credit_account, currency, partition, 0, -amount_cents from billing.transfers
    ) as movements
    group by account, currency, partition
    having sum(debits_cents) <> 0 or sum(credits_cents) <> 0
    union all
    select 'charge and credit of a sale', sale_id::text
    from billing.sales
    left join (
        select
            sale_id,
            coalesce(sum(amount_cents) filter (where kind = 'sale_charge'), 0) as charged_cents,
            coalesce(sum(amount_cents) filter (where kind = 'upgrade_fee'), 0) as fee_cents,
            coalesce(sum(amount_cents) filter (where kind in ('failed_delivery_credit', 'return_credit')), 0)
                as credited_cents
        from billing.transfers
        where sale_id is not null
        group by sale_id
    ) as moved using (sale_id)
    where coalesce(moved.charged_cents, 0) <> case when is_test then 0 else price_cents end
        or coalesce(moved.fee_cents, 0) <> case when is_test then 0 else upgrade_fee_cents end
        or coalesce(moved.credited_cents, 0) <> sales.credited_cents
        or coalesce(moved.credited_cents, 0) > coalesce(moved.charged_cents + moved.fee_cents, 0)
    union all
    select 'credit of a return', coalesce(approved.sale_id, credited.sale_id)::text
    from (
        select sale_id, count(*) as returns, sum(refund_cents) as refund_cents
        from billing.returns
        where decision = 'approved'
        group by sale_id
    ) as approved
    full join (
        select sale_id, sum(amount_cents) as refund_cents
        from billing.transfers
        where kind = 'return_credit'
        group by sale_id
    ) as credited using (sale_id)
    where coalesce(approved.returns, 0) <> 1
        or approved.refund_cents <> coalesce(credited.refund_cents, 0)
    union all
    select 'return of a sale', sale_id::text
    from billing.sales
    full join (select sale_id from billing.returns where decision = 'approved') as approved using (sale_id)
    where (sales.returned_at is not null) <> (approved.sale_id is not null)
    union all
    select 'payout of a lead', lead_id::text
    from (
        select
            lead_id,
            case when is_test then 0 else payout_cents end as earned_cents,
            case when is_test then 0 else payout_back_cents end as back_cents,
            0 as paid_cents,
            0 as reversed_cents
        from billing.leads
        where payout_cents <> 0 or payout_back_cents <> 0
        union all
        select
            lead_id,
            case when is_test then 0 else payout_cents end,
            case when is_test then 0 else payout_back_cents end,
            0,
            0
        from billing.sales
        where payout_cents <> 0 or payout_back_cents <> 0
        union all
        select
            coalesce(transfers.lead_id, sales.lead_id),
            0,
            0,
            case when transfers.kind = 'payout' then amount_cents else 0 end,
            case when transfers.kind = 'payout_reversal' then amount_cents else 0 end
        from billing.transfers
        left join billing.sales using (sale_id)
        where transfers.kind in ('payout', 'payout_reversal')
    ) as payouts
    group by lead_id
    having sum(earned_cents) <> sum(paid_cents)
        or sum(back_cents) <> sum(reversed_cents)
        or sum(reversed_cents) > sum(paid_cents)
    union all
    select 'transfer without a sale', transfer_id::text
    from billing.transfers
    where sale_id is not null
        and not exists (select from billing.sales where sales.sale_id = transfers.sale_id)
    union all
    select 'transfer without a lead', transfer_id::text
    from billing.transfers
    where lead_id is not null
        and not exists (select from billing.leads where leads.lead_id = transfers.lead_id)
    union all
    select 'sale of a lead never listed', sale_id::text
    from billing.sales
    where not exists (select from billing.leads where leads.lead_id = sales.lead_id);

grant select on billing.returns to gavel_billing, gavel_audit;
grant insert on billing.returns to gavel_billing;
grant update (decision, decided_at, refusal, automatic, refund_cents) on billing.returns to gavel_billing;
grant update (payout_back_cents) on billing.leads to gavel_billing;
grant update (upgrade_fee_cents, upgraded_at, returned_at, payout_cents, payout_back_cents, disposition, disposition_at)
    on billing.sales to gavel_billing;
