"""How the inner problem is trained: `base.py` is the promise, each solver has a file of its own.

Imports from `core`, `problem`, `linsolve` and `product`. It does not know runs or estimators: a step receives an
oracle.
"""
