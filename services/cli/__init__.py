"""The command line: what people type, answered in sentences, tables or JSON."""
