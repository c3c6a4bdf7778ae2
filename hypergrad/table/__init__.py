"""Recorded runs as rows: `python -m hypergrad.table` and `hg.read_runs`. May import `core` only, and reads files."""
