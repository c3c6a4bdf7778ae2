"""Functions of tensors as programs: traced to a list of operations, split, compiled, and kept for the next call.

Imports only from `core`.
"""
