"""hypergrad: gradients of a dev loss with respect to hyperparameters, in PyTorch.

    min_λ f(w*(λ), λ)   with   w*(λ) = argmin_w g(w, λ)

An `InnerProblem` says what is trained and tuned, a `HypergradEstimator` forms dF/dλ, a `Trainer` steps λ.
"""

# In the form that says to type checkers that a name is public (PEP 484), so that each is written once.
from types import ModuleType as _ModuleType

__version__ = "0.2.0"  # setup.cfg reads it here, so it stays a plain string

from hypergrad.outer.acceptance import Acceptance as Acceptance
from hypergrad.solver.adagrad import Adagrad as Adagrad
from hypergrad.solver.adam import Adam as Adam
from hypergrad.solver.adamw import AdamW as AdamW
from hypergrad.single_loop.adjoint import AdjointMethod as AdjointMethod
from hypergrad.estimator.report import AdjointReport as AdjointReport
from hypergrad.effect.affine_network import AffineNetwork as AffineNetwork
from hypergrad.single_loop.amigo import AmIGO as AmIGO
from hypergrad.influence.arnoldi import ArnoldiInfluence as ArnoldiInfluence
from hypergrad.linsolve.auto import Auto as Auto
from hypergrad.tape.auto import AutoTape as AutoTape
from hypergrad.single_loop.bome import BOME as BOME
from hypergrad.problem.batch_place import BatchPlace as BatchPlace
from hypergrad.baseline.budget import Budget as Budget
from hypergrad.effect.buffer import Buffer as Buffer
from hypergrad.linsolve.cg import CG as CG
from hypergrad.callback.base import Callback as Callback
from hypergrad.product.differences import CentredDifferences as CentredDifferences
from hypergrad.check.report import Check as Check
from hypergrad.tape.checkpoint import Checkpoint as Checkpoint
from hypergrad.core.errors import CheckpointError as CheckpointError
from hypergrad.effect.class_weights import ClassWeights as ClassWeights
from hypergrad.problem.layers.convex_layer import ConvexLayer as ConvexLayer
from hypergrad.solver.coordinate_descent import CoordinateDescent as CoordinateDescent
from hypergrad.solver.schedule import Cosine as Cosine
from hypergrad.problem.distributed.data_parallel import DataParallel as DataParallel
from hypergrad.linsolve.dense import Dense as Dense
from hypergrad.problem.supervised.distillation import Distillation as Distillation
from hypergrad.core.errors import DivergenceError as DivergenceError
from hypergrad.linsolve.kfac import EKFAC as EKFAC
from hypergrad.effect.base import Effect as Effect
from hypergrad.problem.sparse.elastic_net import ElasticNet as ElasticNet
from hypergrad.estimator.report import ErrorBar as ErrorBar
from hypergrad.effect.example_weights import ExampleWeights as ExampleWeights
from hypergrad.core.errors import ExtrapolationWarning as ExtrapolationWarning
from hypergrad.single_loop.f2sa import F2SA as F2SA
from hypergrad.task.few_shot import FewShot as FewShot
from hypergrad.solver.fixed_point import FixedPoint as FixedPoint
from hypergrad.core.errors import FixedPointOverflowError as FixedPointOverflowError
from hypergrad.core.errors import FolderInUseError as FolderInUseError
from hypergrad.estimator.forward import Forward as Forward
from hypergrad.product.forward_over_reverse import ForwardOverReverse as ForwardOverReverse
from hypergrad.problem.distributed.fully_sharded import FullySharded as FullySharded
from hypergrad.linsolve.gmres import GMRES as GMRES
from hypergrad.product.gauss_newton import GaussNewton as GaussNewton
from hypergrad.solver.gradient_descent import GradientDescent as GradientDescent
from hypergrad.tape.graph import Graph as Graph
from hypergrad.baseline.grid import GridSearch as GridSearch
from hypergrad.problem.supervised.hyper_cleaning import HyperCleaning as HyperCleaning
from hypergrad.core.errors import HypergradError as HypergradError
from hypergrad.estimator.base import HypergradEstimator as HypergradEstimator
from hypergrad.estimator.base import Hypergradient as Hypergradient
from hypergrad.core.hyperparameter import Hyperparameter as Hyperparameter
from hypergrad.estimator.implicit import Implicit as Implicit
from hypergrad.influence.implicit import ImplicitInfluence as ImplicitInfluence
from hypergrad.core.errors import IndefiniteError as IndefiniteError
from hypergrad.sensitivity.jackknife import InfinitesimalJackknife as InfinitesimalJackknife
from hypergrad.influence.base import InfluenceMethod as InfluenceMethod
from hypergrad.effect.init_scale import InitScale as InitScale
from hypergrad.problem.base import InnerProblem as InnerProblem
from hypergrad.solver.base import InnerSolver as InnerSolver
from hypergrad.effect.input_scale import InputScale as InputScale
from hypergrad.solver.inverse_root import InverseRoot as InverseRoot
from hypergrad.callback.jsonl import JSONLines as JSONLines
from hypergrad.linsolve.jacobi import Jacobi as Jacobi
from hypergrad.single_loop.joint import JointMethod as JointMethod
from hypergrad.linsolve.kfac import KFAC as KFAC
from hypergrad.problem.k_fold import KFold as KFold
from hypergrad.effect.l1 import L1 as L1
from hypergrad.problem.sparse.l1 import L1Problem as L1Problem
from hypergrad.effect.l2 import L2 as L2
from hypergrad.solver.lbfgs import LBFGS as LBFGS
from hypergrad.outer.lbfgsb import LBFGSB as LBFGSB
from hypergrad.effect.label_smoothing import LabelSmoothing as LabelSmoothing
from hypergrad.problem.sparse.lasso import Lasso as Lasso
from hypergrad.problem.learning_to_learn import LearningToLearn as LearningToLearn
from hypergrad.sensitivity.linear_response import LinearResponse as LinearResponse
from hypergrad.linsolve.base import LinearSolution as LinearSolution
from hypergrad.linsolve.base import LinearSolver as LinearSolver
from hypergrad.linsolve.low_rank_gauss_newton import LowRankGaussNewton as LowRankGaussNewton
from hypergrad.single_loop.masoba import MASOBA as MASOBA
from hypergrad.single_loop.meha import MEHA as MEHA
from hypergrad.linsolve.minres import MINRES as MINRES
from hypergrad.problem.variational.mean_field import MeanField as MeanField
from hypergrad.problem.meta.meta_learning import MetaLearning as MetaLearning
from hypergrad.single_loop.base import Method as Method
from hypergrad.callback.model_saver import ModelSaver as ModelSaver
from hypergrad.solver.momentum import Momentum as Momentum
from hypergrad.linsolve.neumann import Neumann as Neumann
from hypergrad.solver.newton import Newton as Newton
from hypergrad.core.errors import NoTaylorRuleWarning as NoTaylorRuleWarning
from hypergrad.core.errors import NonFiniteError as NonFiniteError
from hypergrad.core.errors import NotCompiledWarning as NotCompiledWarning
from hypergrad.core.errors import NotConvergedWarning as NotConvergedWarning
from hypergrad.core.errors import NotOptimalError as NotOptimalError
from hypergrad.linsolve.nystrom import Nystrom as Nystrom
from hypergrad.core.operator import Operator as Operator
from hypergrad.problem.oracle import Oracle as Oracle
from hypergrad.linsolve.base import Preconditioner as Preconditioner
from hypergrad.product.base import Product as Product
from hypergrad.callback.progress import ProgressBar as ProgressBar
from hypergrad.solver.proximal_gradient import ProximalGradient as ProximalGradient
from hypergrad.problem.quadratic import Quadratic as Quadratic
from hypergrad.solver.rmsprop import RMSprop as RMSprop
from hypergrad.effect.random_affine import RandomAffine as RandomAffine
from hypergrad.baseline.random import RandomSearch as RandomSearch
from hypergrad.core.errors import RankError as RankError
from hypergrad.callback.record import Record as Record
from hypergrad.callback.result import Result as Result
from hypergrad.core.errors import ReversalError as ReversalError
from hypergrad.product.reverse import Reverse as Reverse
from hypergrad.tape.reversible import Reversible as Reversible
from hypergrad.problem.ridge import Ridge as Ridge
from hypergrad.sensitivity.inner import Root as Root
from hypergrad.single_loop.saba import SABA as SABA
from hypergrad.single_loop.sama import SAMA as SAMA
from hypergrad.single_loop.soba import SOBA as SOBA
from hypergrad.single_loop.srba import SRBA as SRBA
from hypergrad.solver.schedule import Schedule as Schedule
from hypergrad.baseline.base import Search as Search
from hypergrad.problem.variational.semi_amortized import SemiAmortized as SemiAmortized
from hypergrad.estimator.single_loop import SingleLoop as SingleLoop
from hypergrad.task.sinusoids import Sinusoids as Sinusoids
from hypergrad.problem.sparse.sparse_logistic import SparseLogistic as SparseLogistic
from hypergrad.data.tables import Split as Split
from hypergrad.data.tables import Splits as Splits
from hypergrad.callback.state_saver import StateSaver as StateSaver
from hypergrad.core.status import Status as Status
from hypergrad.solver.schedule import StepDecay as StepDecay
from hypergrad.single_loop.step_sizes import StepSizes as StepSizes
from hypergrad.tape.store import Store as Store
from hypergrad.outer.suggested_sgd import SuggestedSGD as SuggestedSGD
from hypergrad.callback.summary import Summary as Summary
from hypergrad.problem.supervised.supervised import Supervised as Supervised
from hypergrad.baseline.tpe import TPE as TPE
from hypergrad.tape.base import Tape as Tape
from hypergrad.task.base import TaskFamily as TaskFamily
from hypergrad.task.base import Tasks as Tasks
from hypergrad.sensitivity.taylor_expansion import TaylorExpansion as TaylorExpansion
from hypergrad.callback.tensorboard import TensorBoard as TensorBoard
from hypergrad.core.autodiff import Tensors as Tensors
from hypergrad.problem.tied import Tied as Tied
from hypergrad.problem.layers.total_variation import TotalVariation as TotalVariation
from hypergrad.product.traced import Traced as Traced
from hypergrad.callback.trained_model import TrainedModel as TrainedModel
from hypergrad.outer.trainer import Trainer as Trainer
from hypergrad.training.training import Training as Training
from hypergrad.training.report import TrainingReport as TrainingReport
from hypergrad.model.transformer import TransformerClassifier as TransformerClassifier
from hypergrad.estimator.unrolled import Unrolled as Unrolled
from hypergrad.influence.unrolled import UnrolledInfluence as UnrolledInfluence
from hypergrad.estimator.report import UnrollingReport as UnrollingReport
from hypergrad.core.errors import UnusedHyperparameterError as UnusedHyperparameterError
from hypergrad.solver.schedule import Warmup as Warmup
from hypergrad.taylor.nested import append_jvp as append_jvp
from hypergrad.sensitivity.argmin import argmin as argmin
from hypergrad.data.tables import breast_cancer as breast_cancer
from hypergrad.check.comparison import check_hypergradient as check_hypergradient
from hypergrad.problem.layers.convex_layer import cvxpy_layer as cvxpy_layer
from hypergrad.data.tables import diabetes as diabetes
from hypergrad.data.images import digits as digits
from hypergrad.data.selection import first_of as first_of
from hypergrad.outer.fit import fit as fit
from hypergrad.influence.scores import group_scores as group_scores
from hypergrad.functional import hypergradient as hypergradient
from hypergrad.data.images import idx_images as idx_images
from hypergrad.influence.scores import influence_scores as influence_scores
from torch.distributions.constraints import interval as interval
from hypergrad.problem.k_fold import k_fold as k_fold
from hypergrad.callback.hparams_file import load_hparams as load_hparams
from hypergrad.data.selection import long_tailed as long_tailed
from hypergrad.model.cell import mixed_cell as mixed_cell
from hypergrad.data.images import mnist5k as mnist5k
from hypergrad.problem.supervised.supervised import on_splits as on_splits
from hypergrad.model.network import perceptron as perceptron
from hypergrad.callback.hparams_file import plain as plain
from torch.distributions.constraints import positive as positive
from hypergrad.core.launch import processes as processes
from hypergrad.solver.coefficient import ranged as ranged
from hypergrad.table.frame import read_runs as read_runs
from hypergrad.baseline.search import search as search
from torch.distributions.constraints import simplex as simplex
from hypergrad.model.network import softmax_regression as softmax_regression
from hypergrad.data.tables import sparse_regression as sparse_regression
from hypergrad.single_loop.step_sizes import step_sizes as step_sizes
from hypergrad.data.questions import trec_questions as trec_questions
from torch.distributions.constraints import unit_interval as unit_interval

# Not by name, and not in a way that type checkers read: what stands above is the list.
globals()["__all__"] = [
    name for name, value in globals().items() if name[0] != "_" and not isinstance(value, _ModuleType)
]


def __dir__() -> list[str]:
    return globals()["__all__"]
