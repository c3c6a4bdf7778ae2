"""Data sets, and data of the user: read, checked, split and selected.

Imports only from `core`.
"""
