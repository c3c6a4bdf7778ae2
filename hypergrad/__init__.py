"""hypergrad: gradients of a dev loss with respect to hyperparameters, in PyTorch.

    min_λ f(w*(λ), λ)   with   w*(λ) = argmin_w g(w, λ)

An `InnerProblem` says what is trained and tuned, a `HypergradEstimator` forms dF/dλ, a `Trainer` steps λ.
"""

from torch.distributions.constraints import interval, positive, simplex, unit_interval

from hypergrad.autodiff import Tensors
from hypergrad.check.comparison import check_hypergradient
from hypergrad.check.report import Check
from hypergrad.data import Split, Splits, diabetes
from hypergrad.errors import (
    DivergenceError,
    FixedPointOverflowError,
    HypergradError,
    IndefiniteError,
    NonFiniteError,
    NotConvergedWarning,
    ReversalError,
    UnusedHyperparameterError,
)
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.forward import Forward
from hypergrad.estimator.implicit import Implicit
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.functional import hypergradient
from hypergrad.hyperparameter import Hyperparameter
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner
from hypergrad.linsolve.cg import CG
from hypergrad.linsolve.dense import Dense
from hypergrad.linsolve.gmres import GMRES
from hypergrad.linsolve.jacobi import Jacobi
from hypergrad.linsolve.minres import MINRES
from hypergrad.linsolve.neumann import Neumann
from hypergrad.linsolve.nystrom import Nystrom
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.quadratic import Quadratic
from hypergrad.problem.ridge import Ridge
from hypergrad.product.base import Product
from hypergrad.product.differences import CentredDifferences
from hypergrad.product.reverse import Reverse
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.momentum import Momentum
from hypergrad.tape.auto import Auto
from hypergrad.tape.base import Tape
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.tape.graph import Graph
from hypergrad.tape.reversible import Reversible
from hypergrad.tape.store import Store
from hypergrad.trainer import Result, Trainer

__all__ = [
    "Auto",
    "CG",
    "CentredDifferences",
    "Check",
    "Checkpoint",
    "Dense",
    "DivergenceError",
    "FixedPointOverflowError",
    "Forward",
    "GMRES",
    "GradientDescent",
    "Graph",
    "HypergradError",
    "HypergradEstimator",
    "Hypergradient",
    "Hyperparameter",
    "Implicit",
    "IndefiniteError",
    "InnerProblem",
    "InnerSolver",
    "Jacobi",
    "LinearSolution",
    "LinearSolver",
    "MINRES",
    "Momentum",
    "Neumann",
    "NonFiniteError",
    "NotConvergedWarning",
    "Nystrom",
    "Preconditioner",
    "Product",
    "Quadratic",
    "Result",
    "ReversalError",
    "Reverse",
    "Reversible",
    "Ridge",
    "Split",
    "Splits",
    "Store",
    "Tape",
    "Tensors",
    "Trainer",
    "Unrolled",
    "UnusedHyperparameterError",
    "check_hypergradient",
    "diabetes",
    "hypergradient",
    "interval",
    "positive",
    "simplex",
    "unit_interval",
]
