"""How the hyperparameters move: the trainer, its loop, the objective, the optimiser's steps, the journal and the state.

Imports from `estimator` and `callback`, and the layers below them. It does not know how a hypergradient is formed.
"""
