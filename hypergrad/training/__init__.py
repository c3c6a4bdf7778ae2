"""Training runs: the steps of a solver one after the other, with or without their derivatives, eager or compiled.

`Training` trains without a graph, and `Dynamics` is what tapes and estimators differentiate. Imports from `solver` and
what stands below it.
"""
