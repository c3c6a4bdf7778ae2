"""Searches without gradients on the same problems, for comparison: `python -m hypergrad.baseline`.

`base.py` is the promise of a search, and `search.py` runs one. May import everything except the commands and `cli`.
"""
