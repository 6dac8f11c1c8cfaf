"""Billing: the double-entry ledger and finance's rows, folded from the log and from nothing else."""
