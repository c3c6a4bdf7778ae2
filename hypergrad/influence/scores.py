"""The influence of each train example on each dev loss, or on their mean, at given parameters."""

from copy import copy

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.influence.base import InfluenceMethod, Scores
from hypergrad.influence.examples import require_supervised
from hypergrad.influence.implicit import ImplicitInfluence
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.supervised.site import require_weightable
from hypergrad.problem.supervised.supervised import Supervised


def influence_scores(
    problem: InnerProblem,
    params: Tensors,
    hparams: Tensors,
    *,
    method: InfluenceMethod | None = None,
    dev: Tensor | None = None,
    mean: bool = False,
) -> Tensor:
    """The change of each dev loss without each train example, to first order in its weight, shape (m, n).

    The parameters need not be a minimum. See `ImplicitInfluence` for what the scores then are.

    Args:
        problem: a `Supervised`.
        params: trained parameters.
        hparams: λ.
        method: how; None means `ImplicitInfluence()`, which solves to rounding and is for small problems.
        dev: rows of dev, shape (m,); None for all.
        mean: whether to return the change of the mean loss of all of dev, shape (n,), instead.

    Raises:
        ValueError: if `dev` is combined with `mean`.

    Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if `dev` holds no row of dev,
    the model draws random numbers in training, or its loss has no term for each example; NonFiniteError if the gradient
    of an example is NaN or infinite.
    """
    method = method or ImplicitInfluence()
    if mean and dev is not None:
        raise ValueError("mean=True is for the loss on all of dev; leave out dev=….")
    rows = require_rows(require_supervised(problem), dev)
    scores = prepared(method, problem, params, hparams)
    if mean:
        return scores(None)
    return torch.cat([scores(part) for part in rows.split(method.dev_block)])


def group_scores(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The change of dev losses without each group of train examples, to first order: the sum over its examples.

    Args:
        scores: shape (…, n), as from `influence_scores`.
        groups: the number of the group of each example, integers of shape (n,).

    Returns:
        The numbers of the groups, sorted, shape (g,), and the sums, shape (…, g).

    Raises:
        ValueError: if the groups have another shape.
        TypeError: if they are no integers.
    """
    if groups.shape != scores.shape[-1:]:
        raise ValueError(
            f"groups must hold the group of each of the {scores.shape[-1]} train examples, but has shape "
            f"{tuple(groups.shape)}."
        )
    if groups.is_floating_point() or groups.is_complex():
        raise TypeError(f"groups must be integers, but they are {groups.dtype}; number the groups from 0.")
    names, index = groups.unique(return_inverse=True)
    index = index.to(scores.device)
    return names, scores.new_zeros(*scores.shape[:-1], len(names)).index_add_(-1, index, scores)


def prepared(method: InfluenceMethod, problem: InnerProblem, params: Tensors, hparams: Tensors) -> Scores:
    """The scores of a method, as a function of rows of dev.

    Also raised, by what it calls: the errors of `influence_scores`.
    """
    given = require_supervised(problem)
    whole = given if method.trains else on_all_of_train(given)
    return method.prepare(whole, detach(params), detach(hparams))


def on_all_of_train(problem: Supervised) -> Supervised:
    """The problem on all of train at each step.

    Also raised, by what it calls: ValueError if the influence of its examples cannot be computed.
    """
    require_weightable(problem, "")
    other = copy(problem)
    other.batch_size = None
    return other


def require_rows(problem: Supervised, dev: Tensor | None) -> Tensor:
    """The rows of dev that are asked for; all if None.

    Raises:
        ValueError: if they are no rows of dev.
    """
    size = problem.size("dev")
    rows = torch.arange(size) if dev is None else torch.as_tensor(dev)
    is_sound = rows.ndim == 1 and not rows.is_floating_point() and len(rows) > 0
    if not is_sound or not 0 <= rows.min() <= rows.max() < size:
        raise ValueError(
            f"dev must hold integers from 0 to {size - 1} with shape (m,), but it has shape {tuple(rows.shape)} and "
            f"dtype {rows.dtype}."
        )
    return rows
