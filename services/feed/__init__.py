"""Publishes `leads.events`: the log as a flat feed, one event a record, for whoever inside wants to read along."""
