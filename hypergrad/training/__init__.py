"""Training runs: the steps of a solver in sequence, with or without derivatives, eager or compiled.

`Training` trains without a graph; tapes and estimators differentiate a `Dynamics`. Imports from `solver` and the layers
below it.
"""
