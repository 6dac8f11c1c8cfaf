-- The gateway reads who the sources and buyers are, and where buyers want their webhooks.
grant usage on schema market to gavel_gateway;
grant select on market.versions to gavel_gateway;
