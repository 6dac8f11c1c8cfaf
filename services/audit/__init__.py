"""Audit: checks every guarantee from the topics and the database alone; it decides and changes nothing."""
