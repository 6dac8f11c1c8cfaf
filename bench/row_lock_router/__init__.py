"""A control: a router that decides each lead in a PostgreSQL transaction of its own, under row locks."""
