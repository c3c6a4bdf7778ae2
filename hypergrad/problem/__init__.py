"""What is tuned: an inner loss to train, a dev loss to judge by, and the hyperparameters.

`base.py` is the promise of a problem. The files here are small synthetic problems (`quadratic`, `ridge`) and problems
made from others (`wrapper`, `tied`, `learning_to_learn`, `k_fold`, `repartition`); the folders are the larger kinds.
May import `core`, `compile`, `data`, `task`, `model`, `effect` and `linsolve`, but no solver or estimator.
"""
