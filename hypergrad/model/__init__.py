"""Networks that are ready to train, and users' modules as pure functions that can be differentiated twice.

Imports only from `core`, `compile`, `taylor` and `data`.
"""
