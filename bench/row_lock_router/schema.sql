-- What a router needs that trusts in row locks: caps, leads and sales, with the same promises as constraints.
create schema row_lock;

create table row_lock.caps (
    order_id text   primary key,
    used     bigint not null default 0,
    most     bigint not null,
    check (used <= most)
) with (fillfactor = 50);

create table row_lock.leads (
    lead_id   uuid        primary key,
    outcome   text        not null,
    closed_at timestamptz not null
);

create table row_lock.sales (
    lead_id     uuid        not null references row_lock.leads,
    sale_number smallint    not null check (sale_number between 1 and 3),
    sale_id     uuid        not null,
    buyer_id    text        not null,
    price_cents bigint      not null,
    sold_at     timestamptz not null,
    primary key (lead_id, sale_number),
    unique (lead_id, buyer_id)
);
