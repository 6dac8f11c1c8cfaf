-- Every version of the market that was ever in force. Nobody may change or delete one: leads keep the version that they
-- were accepted under, and a decision is executed again under its own.
create schema market;

create table market.versions (
    version    bigint      primary key check (version > 0),
    -- Each version is made from the one before it: whoever applies has seen what is replaced.
    base       bigint      not null check (base = version - 1),
    applied_at timestamptz not null default now(),
    applied_by text        not null,
    note       text        not null,
    -- The files as given: [{"name": ..., "text": ...}].
    files      jsonb       not null check (jsonb_typeof(files) = 'array'),
    -- What they mean, as canonical JSON: text, because jsonb would not keep the bytes that the hash is of.
    model      text        not null,
    sha256     bytea       not null check (sha256 = sha256(convert_to(model, 'UTF8')))
);
comment on table market.versions is 'Each version of the market: who applied it when, the files as given, and the model.';
comment on column market.versions.model is 'The market as canonical JSON, with version 0: it says what the market is, not which.';

grant usage on schema market
    to gavel_market, gavel_intake, gavel_router, gavel_resale, gavel_billing, gavel_feed, gavel_audit;
grant select on market.versions
    to gavel_market, gavel_intake, gavel_router, gavel_resale, gavel_billing, gavel_feed, gavel_audit;
grant insert on market.versions to gavel_market;
