-- The control's books: one row per sale, and two ledger rows that balance.
create schema faust_billing;

create table faust_billing.sales (
    lead_id     uuid        not null,
    sale_number smallint    not null,
    sale_id     uuid        not null,
    buyer_id    text        not null,
    price_cents bigint      not null,
    sold_at     timestamptz not null,
    primary key (lead_id, sale_number)
);

create table faust_billing.ledger (
    sale_id      uuid   not null,
    account      text   not null,
    amount_cents bigint not null,
    primary key (sale_id, account)
);
