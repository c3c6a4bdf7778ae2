"""What an implicit hypergradient costs each of some ranks."""

from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.point import Point
from hypergrad.estimator.rank_plan import ABOUT, AT_MOST, Part, RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.linsolve.base import LinearSolver
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product
from hypergrad.product.differences import CentredDifferences
from hypergrad.product.forward_over_reverse import ForwardOverReverse
from hypergrad.training.training import Training

LEAST_BUDGET = 200
"""The least products allowed for the error bar, because a warm-started adjoint may need few: a judgement."""
_POINTS, _MIXED = 2, 10
"""Where an error bar usually linearizes, after a Newton step and once more; and how many mixed products it forms."""
_VECTORS = 3
"""Of size n besides those of the linear solver: φ, ∂f/∂w and the adjoint."""


def plan_implicit(
    rehearsal: Rehearsal, training: Training, linsolve: LinearSolver, product: Product, *, error_bar: bool
) -> RankPlan:
    """The parts of one estimate from a cold start."""
    problem, hparams = rehearsal.problem, rehearsal.hparams
    oracle = Oracle(problem, hparams, problem.inner_batch(0))
    point = Point(oracle, rehearsal.params, problem.outer_batch(0), product)
    rehearsal.cost(lambda: Linearization.at(point))  # what a model is asked once is not counted
    here, linearize = rehearsal.cost(lambda: Linearization.at(point))
    A, b, cost = here.inner.product, here.df_dw, linsolve.cost(rehearsal.size)
    _, single = rehearsal.cost(lambda: A(b))
    _, mixed = rehearsal.cost(lambda: here.indirect(b))
    is_plain = cost is not None and A.inaccuracy is None and A.approximate is None
    sure = AT_MOST if is_plain else ABOUT
    products, blocks, vectors = (1, (), 0) if cost is None else (cost.products, cost.blocks, cost.vectors)
    parts = rehearsal.training(training) if training.steps > 0 else []
    parts.append(Part("linearize both losses", 1, linearize))
    for width in blocks:
        _, block = rehearsal.cost(lambda width=width: A(b[:, None].expand(-1, width)))
        parts.append(Part(f"product with {width} columns", 1, block, sure))
    name = "Hessian product" if cost is not None else f"product, of unknown number in {type(linsolve).__name__}"
    parts += [Part(name, products, single, sure), Part("mixed product", 1, mixed)]
    if error_bar:
        budget = max(LEAST_BUDGET, 4 * (products + sum(blocks)))
        parts.append(Part("product for the error bar", budget, single, AT_MOST))
        parts.append(Part("the rest of the error bar", 1, linearize * _POINTS + mixed * _MIXED, ABOUT))
    graph = 0 if isinstance(product, (CentredDifferences, ForwardOverReverse)) else rehearsal.gradient_graph()
    memory = graph + (_VECTORS + vectors) * rehearsal.size * rehearsal.itemsize
    return RankPlan(rehearsal.world, parts, memory, rehearsal.itemsize)
