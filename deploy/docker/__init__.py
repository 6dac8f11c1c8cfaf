"""Gavel in containers: its secrets, its first market, a trial of it, and images for machines that can pull none."""
