"""Problems with an L1 penalty, whose solutions are sparse, and their restriction to the support.

`base.py` is the promise, and `l1.py` derives the optimality condition from it. May import what `problem` may.
"""
