"""Problems with an L1 penalty, each at hyperparameters where its support is not about to change."""

from collections.abc import Callable

import torch
from scipy import sparse

import hypergrad as hg
from hypergrad.data.tables import Split, Splits
from hypergrad.training.training import Training


def made_sparse(data: Splits) -> Splits:
    """The same numbers as scipy.sparse matrices."""
    return Splits(*(Split(sparse.csr_array(X.numpy()), y) for X, y in data))  # type: ignore[arg-type]


def uneven(problem: hg.InnerProblem) -> hg.Tensors:
    """The initial hyperparameters; those per feature are spread over a factor of three."""
    return {
        name: value * torch.linspace(0.5, 1.5, value.numel()) if value.ndim else value
        for name, value in problem.init_hparams().items()
    }


def few() -> Splits:
    return hg.sparse_regression(seed=4, n=40, p=70, num_relevant=6)


SQUARED: dict[str, Callable[[], hg.Lasso]] = {
    "lasso": lambda: hg.Lasso(hg.diabetes(seed=1)),
    "lasso-per-feature": lambda: hg.Lasso(hg.diabetes(seed=1), per_feature=True),
    "elastic-net": lambda: hg.ElasticNet(hg.diabetes(seed=2)),
    "elastic-net-per-feature": lambda: hg.ElasticNet(hg.diabetes(seed=2), per_feature=True),
    "lasso-sparse-X": lambda: hg.Lasso(made_sparse(hg.diabetes(seed=1))),
    "elastic-net-sparse-X-per-feature": lambda: hg.ElasticNet(made_sparse(hg.diabetes(seed=2)), per_feature=True),
    "lasso-wide": lambda: hg.Lasso(few()),
}
PROBLEMS: dict[str, Callable[[], hg.L1Problem]] = {
    **SQUARED,
    "logistic": lambda: hg.SparseLogistic(hg.breast_cancer(seed=0)),
    "logistic-per-feature-l2": lambda: hg.SparseLogistic(hg.breast_cancer(seed=0), l2=0.01, per_feature=True),
    "logistic-sparse-X": lambda: hg.SparseLogistic(made_sparse(hg.breast_cancer(seed=0))),
}


def solved(problem: hg.L1Problem, hparams: hg.Tensors, start: hg.Tensors | None = None) -> hg.Tensors:
    """The solution up to rounding, by proximal gradient descent."""
    start = problem.init_params() if start is None else start
    return Training(solver=hg.ProximalGradient(), steps=20_000, tol=1e-13).run(problem, hparams, start).params
