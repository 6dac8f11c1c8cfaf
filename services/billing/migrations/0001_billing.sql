-- The ledger and finance's rows: the fold of the log, and how far it goes. Nothing here comes from anywhere else, so
-- `gavel billing rebuild --verify` can make these tables again. People read the views of the schema finance, not these.
-- Amounts are integer minor units; every row says where in the log it comes from.
create schema billing;

create table billing.positions (
    partition   integer primary key,
    next_offset bigint not null check (next_offset >= 0),
    seq         bigint not null check (seq >= 0),
    hash        bytea  not null check (octet_length(hash) = 32)
) with (fillfactor = 50);
comment on table billing.positions is
    'How far the log is folded; moves by compare-and-set in the transaction of what was folded.';

create table billing.leads (
    lead_id   uuid        primary key,
    lead_type text        not null,
    plan      text,
    source_id text        not null,
    is_test   boolean     not null,
    listed_at timestamptz not null,
    outcome   text,
    closed_at timestamptz,
    partition integer     not null,
    constraint closed_with_its_reason check ((outcome is null) = (closed_at is null)),
    constraint listed_before_closed check (closed_at >= listed_at)
) with (fillfactor = 90);
comment on table billing.leads is 'One row an accepted lead; without outcome, it is still being sold.';
create index leads_listed_at on billing.leads using brin (listed_at);

create table billing.sales (
    sale_id            uuid        primary key,
    lead_id            uuid        not null,
    sale_number        integer     not null,
    sales_max          integer     not null,
    mode               text        not null,
    price_cents        bigint      not null,
    currency           text        not null,
    buyer_id           text        not null,
    order_id           text        not null,
    source_id          text        not null,
    lead_type          text        not null,
    plan               text        not null,
    stage              integer     not null,
    sold_at            timestamptz not null,
    exclusive_until    timestamptz,
    is_test            boolean     not null,
    partition          integer     not null,
    seq                bigint      not null,
    credited_cents     bigint      not null default 0,
    delivery_failed_at timestamptz,
    constraint one_sale_per_number unique (lead_id, sale_number),
    constraint number_within_max check (sale_number between 1 and sales_max),
    constraint mode_is_known check (mode in ('exclusive', 'shared')),
    constraint price_is_not_negative check (price_cents >= 0),
    constraint credited_within_charge check (credited_cents between 0 and price_cents),
    constraint tests_cost_nothing check (not is_test or credited_cents = 0)
);
comment on table billing.sales is 'One row a sale; only what is credited for it changes later.';
create index sales_sold_at on billing.sales (sold_at);
create index sales_of_buyer on billing.sales (buyer_id, sold_at);

create table billing.transfers (
    transfer_id    uuid        primary key,
    kind           text        not null,
    debit_account  text        not null,
    credit_account text        not null,
    amount_cents   bigint      not null,
    currency       text        not null,
    sale_id        uuid        not null,
    posted_at      timestamptz not null,
    partition      integer     not null,
    seq            bigint      not null,
    constraint kind_is_known check (kind in ('sale_charge', 'failed_delivery_credit')),
    constraint amount_is_positive check (amount_cents > 0),
    constraint two_accounts check (debit_account <> credit_account),
    constraint currency_is_iso_4217 check (currency ~ '^[A-Z]{3}$')
);
comment on table billing.transfers is
    'The ledger: one transfer an id, from one account to another, never changed. A correction is a new transfer.';
create index transfers_posted_at on billing.transfers using brin (posted_at);

-- A row per partition of the log: its owner alone touches it, so that no two workers ever wait for a busy account.
create table billing.account_totals (
    account       text    not null,
    currency      text    not null,
    partition     integer not null,
    debits_cents  bigint  not null check (debits_cents >= 0),
    credits_cents bigint  not null check (credits_cents >= 0),
    primary key (account, currency, partition)
) with (fillfactor = 50);
comment on table billing.account_totals is
    'What the transfers add up to by account, kept with each batch so that a balance needs no history.';

create function billing.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '%.% is append-only: a correction is a new row', tg_table_schema, tg_table_name
        using errcode = 'restrict_violation';
end
$$;
create trigger transfers_are_immutable before update or delete or truncate on billing.transfers
    for each statement execute function billing.refuse_change();
create trigger sales_are_kept before delete or truncate on billing.sales
    for each statement execute function billing.refuse_change();
create trigger leads_are_kept before delete or truncate on billing.leads
    for each statement execute function billing.refuse_change();

-- What must be empty. The totals are compared with the transfers, and the transfers with what was sold.
create view billing.discrepancies as
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
            sum(amount_cents) filter (where kind = 'sale_charge') as charged_cents,
            coalesce(sum(amount_cents) filter (where kind <> 'sale_charge'), 0) as credited_cents
        from billing.transfers
        group by sale_id
    ) as moved using (sale_id)
    where coalesce(moved.charged_cents, 0) <> case when is_test then 0 else price_cents end
        or coalesce(moved.credited_cents, 0) <> sales.credited_cents
        or coalesce(moved.credited_cents, 0) > coalesce(moved.charged_cents, 0)
    union all
    select 'transfer without a sale', transfer_id::text
    from billing.transfers
    where not exists (select from billing.sales where sales.sale_id = transfers.sale_id)
    union all
    select 'sale of a lead never listed', sale_id::text
    from billing.sales
    where not exists (select from billing.leads where leads.lead_id = sales.lead_id);
comment on view billing.discrepancies is 'Empty, or the ledger is wrong.';

grant usage on schema billing to gavel_billing, gavel_audit;
grant select on all tables in schema billing to gavel_billing, gavel_audit;
grant insert, update on billing.positions, billing.account_totals to gavel_billing;
grant insert on billing.leads, billing.sales, billing.transfers to gavel_billing;
grant update (outcome, closed_at) on billing.leads to gavel_billing;
grant update (credited_cents, delivery_failed_at) on billing.sales to gavel_billing;

-- Where `gavel billing rebuild` makes the tables again, beside those that bill: it needs no more rights than billing has.
create schema billing_rebuilt authorization gavel_billing;
comment on schema billing_rebuilt is 'Empty, but while and after gavel billing rebuild --keep.';
