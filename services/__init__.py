"""Gavel's steps and the libraries they share; see ``docs/architecture.md``."""
