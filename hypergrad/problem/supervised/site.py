"""What effects need to know of a supervised problem."""

from typing import Any

from hypergrad.data.tree import given, joined
from hypergrad.effect.base import Site
from hypergrad.problem.supervised.streamed_pool import POOL


def site_of(problem: Any, *, pooled: bool = False) -> Site:
    """The site of the effects of a `Supervised`, on its train examples or on the pool."""
    names, count = POOL if pooled else POOL[:1], None
    if any(problem.streamed(name) for name in names):
        (X, _), count = problem.first("train"), lambda: sum(problem.size(name) for name in names)
    else:
        X = joined(problem.X, problem.X_dev) if pooled else problem.X
    buffers = dict(problem.model.module.named_buffers())
    params, columns, readers = problem.model.params(), problem._columns, problem._readers
    return Site(params, given(X), problem.num_classes, buffers, columns, readers, count)


def require_weightable(problem: Any, name: str, *, whole: bool = True) -> None:
    """Require that a `Supervised` can have one more hyperparameter, a weight for each example.

    Args:
        problem: it is not changed.
        name: of the weights.
        whole: whether all of train is used at each step.

    Raises:
        ValueError: if a hyperparameter has that name, or `on_examples` made the problem; if all of train is used, also
            if training draws random numbers, or examples are streamed.
    """
    if problem.examples is not None:
        raise ValueError("The problem is on some examples of another; call weighted of that one.")
    if name in problem.hyperparameters():
        raise ValueError(f"The hyperparameters already have a {name!r}; give the weights another name.")
    if not whole:
        return
    if problem._streamed:
        raise ValueError(
            "Weights of examples, as influences need them, need training on all of train at each step, but "
            f"{' and '.join(problem._streamed)} are streamed; give hg.Supervised stream=False."
        )
    if problem.draws or problem._random is not None:
        raise ValueError(
            "Weights of examples need training without random numbers, but this one draws some, as dropout and "
            "augmentation do. Call eval() on the module that draws them, and leave out the augmentation."
        )
