"""How the states of a training run are recovered, last to first: `base.py` is the promise, each tape a file.

Imports from `training` and `solver`. It does not know what is tuned, or why a run is visited backwards.
"""
