"""hypergrad: gradients of a dev loss with respect to hyperparameters, in PyTorch.

    min_λ f(w*(λ), λ)   with   w*(λ) = argmin_w g(w, λ)

An `InnerProblem` says what is trained and tuned, a `HypergradEstimator` forms dF/dλ, a `Trainer` steps λ.
"""

from torch.distributions.constraints import interval, positive, simplex, unit_interval

from hypergrad.baseline.base import Search
from hypergrad.baseline.budget import Budget
from hypergrad.baseline.grid import GridSearch
from hypergrad.baseline.random import RandomSearch
from hypergrad.baseline.search import search
from hypergrad.baseline.tpe import TPE
from hypergrad.callback.base import Result
from hypergrad.check.comparison import check_hypergradient
from hypergrad.check.report import Check
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import (
    CheckpointError,
    DivergenceError,
    ExtrapolationWarning,
    FixedPointOverflowError,
    HypergradError,
    IndefiniteError,
    NonFiniteError,
    NoTaylorRuleWarning,
    NotCompiledWarning,
    NotConvergedWarning,
    NotOptimalError,
    ReversalError,
    UnusedHyperparameterError,
)
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.operator import Operator
from hypergrad.data.images import digits, idx_images, mnist5k
from hypergrad.data.tables import Split, Splits, breast_cancer, diabetes, sparse_regression
from hypergrad.effect.affine_network import AffineNetwork
from hypergrad.effect.base import Effect
from hypergrad.effect.buffer import Buffer
from hypergrad.effect.class_weights import ClassWeights
from hypergrad.effect.example_weights import ExampleWeights
from hypergrad.effect.init_scale import InitScale
from hypergrad.effect.input_scale import InputScale
from hypergrad.effect.l1 import L1
from hypergrad.effect.l2 import L2
from hypergrad.effect.label_smoothing import LabelSmoothing
from hypergrad.effect.random_affine import RandomAffine
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.forward import Forward
from hypergrad.estimator.implicit import Implicit
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.functional import hypergradient
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner
from hypergrad.linsolve.cg import CG
from hypergrad.linsolve.dense import Dense
from hypergrad.linsolve.gmres import GMRES
from hypergrad.linsolve.jacobi import Jacobi
from hypergrad.linsolve.minres import MINRES
from hypergrad.linsolve.neumann import Neumann
from hypergrad.linsolve.nystrom import Nystrom
from hypergrad.outer.acceptance import Acceptance
from hypergrad.outer.lbfgsb import LBFGSB
from hypergrad.outer.trainer import Trainer, fit
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.k_fold import KFold, k_fold
from hypergrad.problem.layers.convex_layer import ConvexLayer, cvxpy_layer
from hypergrad.problem.layers.total_variation import TotalVariation
from hypergrad.problem.learning_to_learn import LearningToLearn
from hypergrad.problem.meta.meta_learning import MetaLearning
from hypergrad.problem.quadratic import Quadratic
from hypergrad.problem.ridge import Ridge
from hypergrad.problem.sparse.elastic_net import ElasticNet
from hypergrad.problem.sparse.l1 import L1Problem
from hypergrad.problem.sparse.lasso import Lasso
from hypergrad.problem.sparse.sparse_logistic import SparseLogistic
from hypergrad.problem.supervised.distillation import Distillation
from hypergrad.problem.supervised.hyper_cleaning import HyperCleaning
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.problem.tied import Tied
from hypergrad.problem.variational.mean_field import MeanField
from hypergrad.problem.variational.semi_amortized import SemiAmortized
from hypergrad.product.base import Product
from hypergrad.product.differences import CentredDifferences
from hypergrad.product.forward_over_reverse import ForwardOverReverse
from hypergrad.product.gauss_newton import GaussNewton
from hypergrad.product.reverse import Reverse
from hypergrad.product.traced import Traced
from hypergrad.sensitivity.argmin import argmin
from hypergrad.sensitivity.inner import Root
from hypergrad.sensitivity.jackknife import InfinitesimalJackknife
from hypergrad.sensitivity.linear_response import LinearResponse
from hypergrad.sensitivity.taylor_expansion import TaylorExpansion
from hypergrad.solver.adam import Adam
from hypergrad.solver.adamw import AdamW
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coordinate_descent import CoordinateDescent
from hypergrad.solver.fixed_point import FixedPoint
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.solver.lbfgs import LBFGS
from hypergrad.solver.momentum import Momentum
from hypergrad.solver.newton import Newton
from hypergrad.solver.proximal_gradient import ProximalGradient
from hypergrad.solver.rmsprop import RMSprop
from hypergrad.solver.schedule import Cosine, Schedule, StepDecay, Warmup
from hypergrad.tape.auto import AutoTape
from hypergrad.tape.base import Tape
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.tape.graph import Graph
from hypergrad.tape.reversible import Reversible
from hypergrad.tape.store import Store
from hypergrad.task.base import TaskFamily, Tasks
from hypergrad.task.few_shot import FewShot
from hypergrad.task.sinusoids import Sinusoids
from hypergrad.taylor.nested import append_jvp

__all__ = [
    "Acceptance",
    "Adam",
    "AffineNetwork",
    "AdamW",
    "Auto",
    "AutoTape",
    "Budget",
    "Buffer",
    "CG",
    "CentredDifferences",
    "Check",
    "Checkpoint",
    "CheckpointError",
    "ClassWeights",
    "ConvexLayer",
    "CoordinateDescent",
    "Cosine",
    "Dense",
    "Distillation",
    "DivergenceError",
    "Effect",
    "ElasticNet",
    "ExampleWeights",
    "ExtrapolationWarning",
    "FewShot",
    "FixedPoint",
    "FixedPointOverflowError",
    "Forward",
    "ForwardOverReverse",
    "GMRES",
    "GaussNewton",
    "GradientDescent",
    "Graph",
    "GridSearch",
    "HypergradError",
    "HypergradEstimator",
    "HyperCleaning",
    "Hypergradient",
    "Hyperparameter",
    "Implicit",
    "IndefiniteError",
    "InfinitesimalJackknife",
    "InitScale",
    "InnerProblem",
    "InnerSolver",
    "InputScale",
    "Jacobi",
    "KFold",
    "L1",
    "L1Problem",
    "L2",
    "LBFGS",
    "LBFGSB",
    "LabelSmoothing",
    "Lasso",
    "LearningToLearn",
    "LinearResponse",
    "LinearSolution",
    "LinearSolver",
    "MINRES",
    "MeanField",
    "MetaLearning",
    "Momentum",
    "Neumann",
    "Newton",
    "NoTaylorRuleWarning",
    "NonFiniteError",
    "NotCompiledWarning",
    "NotConvergedWarning",
    "NotOptimalError",
    "Nystrom",
    "Operator",
    "Preconditioner",
    "Product",
    "ProximalGradient",
    "Quadratic",
    "RMSprop",
    "RandomAffine",
    "RandomSearch",
    "Result",
    "ReversalError",
    "Reverse",
    "Reversible",
    "Ridge",
    "Root",
    "Schedule",
    "Search",
    "SemiAmortized",
    "Sinusoids",
    "SparseLogistic",
    "Split",
    "Splits",
    "StepDecay",
    "Store",
    "Supervised",
    "Tape",
    "TPE",
    "TaskFamily",
    "Tasks",
    "TaylorExpansion",
    "Tensors",
    "Tied",
    "TotalVariation",
    "Traced",
    "Trainer",
    "Unrolled",
    "UnusedHyperparameterError",
    "Warmup",
    "append_jvp",
    "argmin",
    "breast_cancer",
    "check_hypergradient",
    "cvxpy_layer",
    "diabetes",
    "digits",
    "fit",
    "hypergradient",
    "idx_images",
    "interval",
    "k_fold",
    "mnist5k",
    "positive",
    "search",
    "simplex",
    "sparse_regression",
    "unit_interval",
]
