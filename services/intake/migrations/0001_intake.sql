-- The door's own memory, and the vault that it fills.

create schema intake;
create schema vault;

-- One row per accepted lead, kept for good: a lead sent again is the same lead.
create table intake.leads (
    lead_id          uuid     primary key,
    source_id        text     not null,
    -- Where in the source's topic the accepted submission stands; another offset is another submission.
    origin_partition int      not null,
    origin_offset    bigint   not null,
    -- HMAC-SHA256 of the submission, so that other content under the same reference is noticed.
    payload_hash     bytea    not null check (octet_length(payload_hash) = 32),
    -- The record for leads.qualified, as it was first encoded: a replay sends these bytes.
    record           bytea    not null,
    received_at_ms   bigint   not null
);
create index leads_received on intake.leads using brin (received_at_ms);

comment on table intake.leads is 'Accepted leads: origin, keyed payload hash and the record to emit. Nothing personal.';

-- Who was here lately: HMAC-SHA256 of lead type and phone, or lead type and email, cut to 16 bytes, in a column of
-- PostgreSQL's type for 16 bytes. No index on kept_until_ms, which would cost 6 us a lead: what is expired is found by
-- walking the primary key, some rows at a time.
create table intake.fingerprints (
    fingerprint    uuid   primary key,
    lead_id        uuid   not null,
    received_at_ms bigint not null,
    kept_until_ms  bigint not null
);

comment on table intake.fingerprints is 'Keyed fingerprints of accepted leads, for as long as their type looks for duplicates.';

create table vault.leads (
    lead_id       uuid   primary key,
    key_id        text   not null,
    wrapped_key   bytea  not null,
    sealed        bytea  not null,
    kept_until_ms bigint not null
);
create index leads_kept_until on vault.leads (kept_until_ms);

comment on table vault.leads is 'Contact and other details, sealed with a data key per lead; deleting the row destroys the key.';

-- Proof of consent outlives the details that it was given with.
create table vault.consents (
    lead_id       uuid   primary key,
    key_id        text   not null,
    wrapped_key   bytea  not null,
    sealed        bytea  not null,
    kept_until_ms bigint not null
);
create index consents_kept_until on vault.consents (kept_until_ms);

comment on table vault.consents is 'What the prospect consented to, when and where, sealed; kept for its own time.';

-- Sealed bytes don't compress.
alter table vault.leads alter column sealed set storage external;
alter table vault.consents alter column sealed set storage external;

grant usage on schema intake, vault to gavel_intake;
grant select, insert on intake.leads to gavel_intake;
grant select, insert, update, delete on intake.fingerprints to gavel_intake;
-- Intake fills the vault and lets it forget; it can't read back what it sealed.
grant insert, delete, select (lead_id, kept_until_ms) on vault.leads, vault.consents to gavel_intake;

grant usage on schema vault to gavel_router;
grant select, delete on vault.leads to gavel_router;

-- The auditor sees which leads have a row, and until when, and never what is in it.
grant usage on schema intake, vault to gavel_audit;
grant select on intake.leads, intake.fingerprints to gavel_audit;
grant select (lead_id, key_id, kept_until_ms) on vault.leads, vault.consents to gavel_audit;
