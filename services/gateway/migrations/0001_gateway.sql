-- What the gateway keeps for those who speak HTTP: keys, stored replies, what became of leads, and webhooks to be made.
-- No contact and no other detail of anybody: bodies stay in the topics, and are only pointed at here.
create schema gateway;

create table gateway.keys (
    prefix        text   primary key check (prefix ~ '^[a-z0-9]{8,32}$'),
    secret_sha256 bytea  not null check (octet_length(secret_sha256) = 32),
    kind          text   not null check (kind in ('source', 'buyer')),
    owner_id      text   not null check (owner_id ~ '^[a-z0-9-]+$'),
    note          text   not null,
    created_at_ms bigint not null,
    revoked_at_ms bigint check (revoked_at_ms >= created_at_ms)
);
comment on table gateway.keys is 'API keys, each of one source or one buyer; the secret part is kept as its hash.';

create table gateway.replies (
    owner           text   not null,
    idempotency_key text   not null,
    payload_hash    bytea  not null check (octet_length(payload_hash) = 32),
    claimed_at_ms   bigint not null,
    body            bytea,
    primary key (owner, idempotency_key)
);
create index replies_by_time on gateway.replies (claimed_at_ms);
comment on table gateway.replies is 'What was answered under an Idempotency-Key; no body: still in progress.';
comment on column gateway.replies.payload_hash is 'Keyed: nobody without the fingerprint key can guess what was sent.';

create table gateway.leads (
    lead_id       uuid   primary key,
    source_id     text   not null,
    log_seq       bigint not null check (log_seq >= 0),
    happened      jsonb  not null check (jsonb_typeof(happened) = 'array'),
    updated_at_ms bigint not null
);
create index leads_by_time on gateway.leads (updated_at_ms);
comment on table gateway.leads is 'What the receipts say became of each lead; made again from them where it is lost.';
comment on column gateway.leads.log_seq is 'The last entry of the log that was folded; receipts may come twice.';

create table gateway.positions (
    topic       text    not null,
    partition   integer not null,
    next_offset bigint check (next_offset >= 0),
    primary key (topic, partition)
) with (fillfactor = 50);
comment on table gateway.positions is 'The offset to read next; null: from the beginning. Moves by compare-and-set.';

create table gateway.webhooks (
    topic          text    not null,
    partition      integer not null,
    position       bigint  not null,
    buyer_id       text    not null,
    attempts       integer not null default 0 check (attempts >= 0),
    next_try_at_ms bigint  not null,
    answer_by_ms   bigint,
    made_at_ms     bigint  not null,
    given_up_at_ms bigint,
    last_error     text,
    primary key (topic, partition, position)
)
-- Rows come and go like a queue.
with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index webhooks_due on gateway.webhooks (topic, next_try_at_ms, position) where given_up_at_ms is null;
comment on table gateway.webhooks is 'Records still to be posted, by where they stand in Kafka; a row goes once it is posted.';
comment on column gateway.webhooks.answer_by_ms is 'After that an answer counts for nothing, so nothing is posted.';

create table gateway.endpoints (
    buyer_id          text    primary key,
    secret_number     integer not null default 1 check (secret_number >= 1),
    -- The secret before it signs, too, until then.
    previous_until_ms bigint  not null default 0,
    disabled_url      text,
    disabled_at_ms    bigint
);
comment on table gateway.endpoints is 'Which secret signs a buyer''s webhooks, and which URL of its answered 410 (gone).';

grant usage on schema gateway to gavel_gateway, gavel_audit;
grant select, insert, update, delete on all tables in schema gateway to gavel_gateway;
grant select (prefix, kind, owner_id, note, created_at_ms, revoked_at_ms) on gateway.keys to gavel_audit;
grant select on gateway.replies, gateway.leads, gateway.positions, gateway.webhooks, gateway.endpoints to gavel_audit;
