-- Whoever rotates the master key wraps data keys again: it reads and writes what wraps them, and never what they seal.

grant usage on schema vault to gavel_vault;
grant select (lead_id, key_id, wrapped_key), update (key_id, wrapped_key) on vault.leads, vault.consents to gavel_vault;
