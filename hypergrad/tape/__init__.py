"""How the states of a training run come back, from the last to the first: `base.py` is the promise, each tape a file.

Imports from `training` and `solver`, and does not know what is tuned or why a run is visited backwards.
"""
