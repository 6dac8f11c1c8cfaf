"""Bad days: what happens to a system that runs, tried for real, one at a time, by name."""
