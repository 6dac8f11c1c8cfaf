"""Measures the pipeline beside a per-event Faust pipeline that does the same job; no step imports anything of it."""
