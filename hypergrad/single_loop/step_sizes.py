"""Step sizes for single-loop methods, from the curvature at the start."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.cost import Spent
from hypergrad.core.errors import IndefiniteError
from hypergrad.linsolve.spectrum import extreme_eigenvalues
from hypergrad.problem.base import InnerProblem
from hypergrad.single_loop.mean_directions import MeanDirections
from hypergrad.single_loop.outer_curvature import OuterCurvature, outer_curvature

_LANCZOS, _POWER = 12, 4
"""Products with each Hessian, and with that of F. A judgement: the largest curvature is then known to a few percent."""
_OUTER, _LAG = 3.0, 2.0
"""The outer step is 1 / (3 L_F), and at most 2 over the area by which D_u is late: half of what is stable where one
slow mode of w and v makes all of F's curvature. A judgement; on quadratics it is as good as a search."""


@dataclass(frozen=True, repr=False)
class StepSizes:
    """Suggested constant steps for gradient descent on w, v and u, and the numbers that they come from.

    Attributes:
        inner: 1 / `batch_curvature`, the step of w and v.
        largest_curvature: L, of the mean of the inner losses on the batches that were seen, from below.
        least_curvature: µ, of the same, from above.
        batch_curvature: the largest of one batch.
        outer_curvature: that of F as a function of u, where λ = transform(u); None if it was not asked for.
        num_gradients: gradients of the inner loss that this took, each on one batch.
        num_matvecs: products with the Hessian that this took, each on one batch.
    """

    inner: float
    largest_curvature: float
    least_curvature: float
    batch_curvature: float
    outer_curvature: OuterCurvature | None
    num_gradients: int
    num_matvecs: int

    @property
    def outer(self) -> float:
        """min(1 / (3 L_F), 2 inner / lag, inner µ / drift), the step of u by gradient descent along D_u.

        Raises:
            ValueError: if the curvature of F is 0, or was not asked for.
        """
        if self.outer_curvature is None:
            raise ValueError("The outer step was not estimated: leave outer=False out of step_sizes.")
        met = self.outer_curvature
        if not met.curvature > 0:
            raise ValueError(
                "An outer step needs an outer loss with curvature, but F seems to be linear in the hyperparameters at "
                "the start; give the lr of the outer optimiser."
            )
        limits = [1 / (_OUTER * met.curvature)]
        if met.lag > 0:
            limits.append(_LAG * self.inner / met.lag)
        if met.drift > 0 and self.least_curvature > 0:
            limits.append(self.inner * self.least_curvature / met.drift)
        return min(limits)

    def __repr__(self) -> str:
        outer = ""
        if self.outer_curvature is not None and self.outer_curvature.curvature > 0:
            met = self.outer_curvature
            outer = (
                f", outer step {self.outer:.3g} from a curvature of {met.curvature:.3g}, a lag of {met.lag:.3g} and a "
                f"drift of {met.drift:.3g}"
            )
        return (
            f"inner step {self.inner:.3g} from curvatures between {self.least_curvature:.3g} and "
            f"{self.largest_curvature:.3g}, of a batch at most {self.batch_curvature:.3g}{outer}; "
            f"{self.num_matvecs} products"
        )


def step_sizes(
    problem: InnerProblem,
    hparams: Tensors | None = None,
    params: Tensors | None = None,
    *,
    inner_step: int = 0,
    outer_step: int = 0,
    num_batches: int = 16,
    outer: bool = True,
) -> StepSizes:
    """Suggested steps for single-loop methods, from the curvature of both losses at the start.

    inner = 1 / max_j L_j over the batches j, which is what SAGA-type steps need where batches differ, and

        outer = min(1 / (3 L_F), 2 inner / lag, inner µ / drift).

    L_j comes from 12 Lanczos iterations. L_F, the curvature of F as a function of u with λ = transform(u), comes from
    4 power iterations, each with two linear systems solved to a tenth. The second limit keeps the joint steps stable
    where D_u is late because w and v are slow. The third lets log λ, or another u of a constraint, move by at most 1 in
    the 1 / (inner µ) moves in which w follows. L_F, lag and drift are measured where one Newton step of the inner
    problem leads, because F may not seem to depend on λ at w₀ = 0.

    The numbers hold at the start only, and on the batches that were seen. They are worthless where the curvature grows
    on the way, as with a penalty that grows, in networks, and for losses that grow faster than quadratics; where µ
    falls by much, as with a penalty that vanishes; and where the inner loss is not convex. Where λ has an entry for
    each example, `num_batches` must cover an epoch.

    Args:
        problem: whose steps they are.
        hparams: λ; None for the initial ones.
        params: w; None for the initial ones.
        inner_step: of the first inner batch to use.
        outer_step: of the first outer batch to use.
        num_batches: most batches of each loss to use, ≥ 1.
        outer: whether to estimate the outer step, which takes most of the cost.

    Raises:
        ValueError: if `num_batches` is below 1, or the inner loss has no positive curvature.

    Also raised, by what it calls: IndefiniteError if the outer step is asked for where the inner Hessian is not
    positive definite; NonFiniteError if a loss or product is NaN or infinite.
    """
    if num_batches < 1:
        raise ValueError(f"step_sizes needs num_batches ≥ 1, but it is {num_batches}.")
    hparams = problem.init_hparams() if hparams is None else hparams
    params = problem.init_params() if params is None else params
    spent, field = Spent(), MeanDirections.of(problem, num_batches, inner_step, outer_step)
    with spent.counting():
        least, largest, of_batch = inner_curvatures(field, params, hparams)
        if not of_batch > 0:
            raise ValueError(
                f"step_sizes needs an inner loss with positive curvature, but the largest is {of_batch:.3g} at the "
                "start; give the steps, as in solver=hg.GradientDescent(lr=…)."
            )
        found = _outer_curvature(field, params, hparams) if outer else None
    return StepSizes(1 / of_batch, largest, least, of_batch, found, spent.gradients, spent.matvecs)


def inner_curvatures(field: MeanDirections, params: Tensors, hparams: Tensors) -> tuple[float, float, float]:
    """µ and L of the mean of the batches, and the largest curvature of one of them."""
    like = flatten(params)

    def ends(numbers: range) -> tuple[float, float]:
        return extreme_eigenvalues(field.hvp(params, hparams, numbers), like, num_iter=_LANCZOS)

    least, largest = ends(range(field.num_inner))
    if field.num_inner == 1:
        return least, largest, largest
    return least, largest, max(ends(range(number, number + 1))[1] for number in range(field.num_inner))


def _outer_curvature(field: MeanDirections, params: Tensors, hparams: Tensors) -> OuterCurvature:
    """The curvature of F.

    Raises:
        IndefiniteError: if that of the inner loss is not positive.
    """
    spaces = field.problem.hyperparameters()
    u = {name: spaces[name].to_unconstrained(x).detach() for name, x in hparams.items()}
    try:
        return outer_curvature(field, params, u, hparams, _POWER)
    except IndefiniteError as error:
        raise IndefiniteError(
            "step_sizes cannot suggest an outer step where the inner loss is not convex; give the lr of the outer "
            f"optimiser, and ask for the inner step alone with outer=False. {error}"
        ) from error
