"""Figures of finished runs: `python -m hypergrad.plot`. May import `core` only, and reads runs from their files."""
