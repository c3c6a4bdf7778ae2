"""How the inner problem is trained: `base.py` is the promise, each solver has a file, and so have coefficients.

Imports from `core`, `problem`, `linsolve` and `product`. It knows no runs and no estimators: a step receives an oracle.
"""
