"""Meta-learning: parameters that are learned over many tasks of `task`. May import what `problem` may."""
