"""The influence of each train example on each dev loss, or on their mean, at given parameters."""

from copy import copy

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.influence.base import InfluenceMethod
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
        ValueError: if `dev` holds no row of dev, or is combined with `mean`.

    Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if the model draws random
    numbers in training, or its loss has no term for each example; NonFiniteError if the gradient of an example is NaN
    or infinite.
    """
    whole = on_all_of_train(problem)
    rows = torch.arange(whole.size("dev")) if dev is None else torch.as_tensor(dev)
    if mean and dev is not None:
        raise ValueError("mean=True is for the loss on all of dev; leave out dev=….")
    if (
        rows.ndim != 1
        or rows.is_floating_point()
        or not len(rows)
        or not 0 <= rows.min() <= rows.max() < len(whole.y_dev)
    ):
        raise ValueError(
            f"dev must hold integers from 0 to {len(whole.y_dev) - 1} with shape (m,), but it has shape "
            f"{tuple(rows.shape)} and dtype {rows.dtype}."
        )
    prepared = (method or ImplicitInfluence()).prepare(whole, detach(params), detach(hparams))
    return prepared(None if mean else rows)


def on_all_of_train(problem: InnerProblem) -> Supervised:
    """The problem on all of train at each step.

    Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if the influence of its
    examples cannot be computed.
    """
    given = require_supervised(problem)
    require_weightable(given, "")
    other = copy(given)
    other.batch_size = None
    return other
