-- Whose leads are whose, and who is not to be asked again: by HMAC-SHA256 of a telephone number or an e-mail address, cut
-- to 16 bytes, in a column of PostgreSQL's type for 16 bytes. Nobody without the key can tell a person from it.

-- One row for each way in which a lead's person can be reached, to answer that person and to find all of its leads. It
-- outlives the details, as the proof of consent does: who received them is asked long after. No index on kept_until_ms,
-- which every lead would pay for: what is over is found by walking the primary key.
create table vault.people (
    person        uuid   not null,
    lead_id       uuid   not null,
    kept_until_ms bigint not null,
    primary key (person, lead_id)
);
comment on table vault.people is 'Keyed hashes of the persons of accepted leads, erased leads included.';

create table vault.suppressed (
    person      uuid   primary key,
    added_at_ms bigint not null
);
comment on table vault.suppressed is 'Keyed hashes of persons whose leads are declined.';

grant insert, delete, select on vault.people to gavel_intake;
grant select on vault.suppressed to gavel_intake;
grant select on vault.people to gavel_vault;
grant select, insert, update, delete on vault.suppressed to gavel_vault;
grant select on vault.people, vault.suppressed to gavel_audit;
