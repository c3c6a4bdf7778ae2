"""Influence by the implicit function theorem."""

import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.errors import IndefiniteError, NotConvergedWarning
from hypergrad.core.operator import Operator
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.influence.base import InfluenceMethod, Scores
from hypergrad.influence.terms import Terms, require_separable
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.linsolve.kfac import KFAC
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.product.base import Product
from hypergrad.product.reverse import Reverse


@dataclass(frozen=True, kw_only=True)
class ImplicitInfluence(InfluenceMethod):
    """s(j, i) = ∇f_jᵀ (H + δI)⁻¹ ∇(c_i u_i / N), the change of dev loss j without train example i to first order.

    H is the Hessian of the train loss, f_j the loss of dev example j, and c_i u_i / N what example i adds to the train
    loss. The gradients of dev examples are solved for in blocks, and multiplied by those of blocks of train, of which
    none is ever formed.

    At a minimum, s is the derivative of retraining. Elsewhere H may be indefinite. With `GaussNewton` products or
    K-FAC, and with damping, s is then the response of a local model: training goes on from these parameters with the
    loss linearised in the outputs, and stays close to them.

    Attributes:
        linsolve: solves with H + δI, or approximates its inverse, as `KFAC` and `EKFAC` do without a product.
        product: how products with H are formed.
        damping: δ ≥ 0, in units of H; `KFAC` and `EKFAC` have their own besides.
        layers_only: whether `KFAC` and `EKFAC` count the derivatives by linear and convolutional layers alone, as is
            usual, and not those by embeddings, norms and biases of attention, of whose curvature they have a diagonal.
            A warning says how many parameters are left out.
        dev_block: dev examples at once, ≥ 1; each needs the memory of the parameters a few times.
        train_block: train examples at once, ≥ 1; the activations are held for this many times `dev_block`.

    Examples:
        >>> X, y = torch.ones(3, 1), torch.tensor([1.0, 1.0, 4.0])  # the last target is wrong
        >>> model, loss, dev = torch.nn.Linear(1, 1, bias=False), torch.nn.MSELoss(), (2 * X, 2 * X[:, 0])
        >>> weights = {"weight": hg.ExampleWeights()}
        >>> problem = hg.Supervised(model=model, loss=loss, train=(X, y), dev=dev, hyperparameters=weights)
        >>> trained = {"weight": torch.tensor([[2.0]])}  # the mean of y
        >>> method = hg.ImplicitInfluence(linsolve=hg.Dense())
        >>> hg.influence_scores(problem, trained, problem.init_hparams(), method=method, mean=True)
        tensor([ 2.6667,  2.6667, -5.3333])

    Source: Koh & Liang, "Understanding black-box predictions via influence functions", ICML (2017); Bae, Ng, Lo,
    Ghassemi & Grosse, "If influence functions are the answer, then what is the question?", NeurIPS (2022); Grosse et
    al., "Studying large language model generalization with influence functions" (2023).
    """

    linsolve: LinearSolver = field(default_factory=lambda: Auto(tol=1e-10, max_iter=1000))
    product: Product = field(default_factory=Reverse)
    damping: float = 0.0
    layers_only: bool = True
    dev_block: int = 64
    train_block: int = 512

    def __post_init__(self) -> None:
        require_instance(self, "linsolve", LinearSolver)
        require_instance(self, "product", Product)
        require_real(self, "damping", least=0)
        require_instance(self, "layers_only", bool)
        require_int(self, "dev_block", least=1)
        require_int(self, "train_block", least=1)

    def prepare(self, problem: Supervised, params: Tensors, hparams: Tensors) -> Scores:
        """As promised.

        Also raised, by what it calls: ValueError if the model draws random numbers or normalises by the batch, if the
        loss has no term for each example, or K-FAC cannot serve a layer or the loss; IndefiniteError if H + δI is met
        to be not positive definite; NonFiniteError if a loss or gradient is NaN or infinite.
        """
        require_separable(problem)
        terms = Terms(problem, params, hparams, self.train_block)
        terms.require_finite()
        linearized = self.product.linearize(Oracle(in_blocks(problem, self.train_block), hparams), params)
        solve = self._solver(linearized.product.shifted(self.damping), linearized.phi)

        def scores(rows: Tensor | None) -> Tensor:
            if rows is None:
                return terms.products(stacked(solve([mean_gradient(terms)]), params))[0]
            return terms.products(stacked(solve([terms.dev_gradient(row) for row in rows.tolist()]), params))

        return scores

    def _solver(self, A: Operator, like: Tensor) -> Callable[[list[Tensor]], list[Tensor]]:
        """b ↦ A⁻¹ b for several b, flat."""
        if isinstance(self.linsolve, KFAC):  # whose `inverse` spends a product for each b, on the residual
            made, _ = self.linsolve.made(A, like, preconditions=False, layers_only=self.layers_only)
            return lambda each: [made(b) for b in each]
        inverse = self.linsolve.inverse(A, like)

        def solve(each: list[Tensor]) -> list[Tensor]:
            try:
                solved = inverse(torch.stack(each, dim=1))
            except IndefiniteError as error:
                error.add_note(
                    f"The damping of the influence is {self.damping:g} (influence.damping=…). Gauss–Newton products "
                    "(product=gauss_newton) have no negative curvature."
                )
                raise
            if not solved.converged:
                warnings.warn(
                    f"{type(self.linsolve).__name__} left the systems of {len(each)} gradients of dev losses at a "
                    f"relative residual of up to {solved.residual:.1e} ({solved.status}); raise its max_iter or tol, "
                    "or the damping of the influence.",
                    NotConvergedWarning,
                    stacklevel=2,
                )
            return list(solved.x.T)

        return solve


def in_blocks(problem: Supervised, block: int) -> Supervised:
    """The same problem, which computes at most `block` train examples at once; itself if it does so already."""
    if problem.size("train") <= block or problem.micro_batch is not None:
        return problem
    other = copy(problem)
    other.micro_batch = block
    return other


def mean_gradient(terms: Terms) -> Tensor:
    """The gradient of the dev loss, flat; one example at a time, so that one that is not finite is named."""
    size = terms.problem.size("dev")
    total = terms.dev_gradient(0)
    for row in range(1, size):
        total += terms.dev_gradient(row)
    return total / size


def stacked(vectors: list[Tensor], like: Tensors) -> Tensors:
    """m flat vectors as tensors of shape (m, *shape), by the names of the parameters."""
    found = {name: p.new_empty(len(vectors), *p.shape) for name, p in like.items()}
    for number in range(len(vectors)):
        for name, piece in unflatten(vectors[number], like).items():
            found[name][number] = piece
    return found
