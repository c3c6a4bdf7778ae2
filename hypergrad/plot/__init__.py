"""Figures of finished runs: `python -m hypergrad.plot`. May import `core` and `table` only."""
