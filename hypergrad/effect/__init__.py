"""What a hyperparameter changes in a supervised problem, such as a penalty, weights of examples, or the inputs.

`base.py` is the promise of an effect, `scope.py` chooses the parameters that an effect acts on, `combined.py` applies
all effects of a problem, and every other file is one effect. May import `core` and `data`.
"""
