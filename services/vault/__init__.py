"""The vault: the one table that holds contact and other details inside the house, sealed. A library."""
