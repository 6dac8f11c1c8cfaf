"""The control of the benchmark: the same job, done one event at a time by three plain Faust workers."""
