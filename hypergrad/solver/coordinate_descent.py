"""Cyclic coordinate descent for least squares with an L1 penalty."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.core.cost import spend
from hypergrad.core.validation import require_int
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.sparse.lasso import Lasso
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficients


@dataclass(frozen=True, kw_only=True)
class CoordinateDescent(InnerSolver):
    """Cyclic coordinate descent by scikit-learn, for `Lasso` and `ElasticNet`: each w_j in turn is minimised over.

        w_j ← soft(x_jᵀ r_j, n l1_j / 2) / (‖x_j‖² + n l2_j),    r_j = y − Σ_{k≠j} x_k w_k

    Features that cannot be in the support are screened out, so a sweep costs little more than the product with the
    other features. A step is several sweeps, runs on the CPU, and cannot be differentiated.

    Attributes:
        sweeps: sweeps over all features in one step, ≥ 1.

    Source: Friedman, Hastie & Tibshirani, "Regularization paths for generalized linear models via coordinate descent",
    Journal of Statistical Software (2010).
    """

    differentiable: ClassVar[bool] = False
    check_every: ClassVar[int] = 1

    sweeps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "sweeps", least=1)

    @torch.no_grad()
    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import enet_path

        solve: Any = enet_path  # its annotations are guessed from its defaults, and wrong
        w = state["params"]["weight"]
        X, y, alpha, l1_ratio, scale = _as_elastic_net(cast(Lasso, oracle.problem), oracle.hparams)
        with warnings.catch_warnings():
            # The caller checks whether training has converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            _, path, _, num_sweeps = solve(
                X,
                y,
                alphas=[alpha],
                l1_ratio=l1_ratio,
                coef_init=w.cpu().numpy() * scale,
                precompute=False,
                copy_X=False,
                tol=0.0,
                max_iter=self.sweeps,
                return_n_iter=True,
            )
        spend(gradients=int(num_sweeps[0]))  # a sweep reads the data as often as a gradient does
        return {"params": {"weight": torch.as_tensor(path[:, 0] / scale).to(w)}}

    def require(self, problem: InnerProblem) -> None:
        if not isinstance(problem, Lasso):
            raise ValueError(
                f"CoordinateDescent trains a Lasso or an ElasticNet, but the problem is a {type(problem).__name__}. "
                "Use ProximalGradient for another loss with an L1 penalty."
            )


def _as_elastic_net(problem: Lasso, hparams: Tensors) -> tuple[Any, Any, float, float, Any]:
    """X, y, alpha and l1_ratio of scikit-learn's elastic net for v = scale · w, and the scale, shape (p,).

    ‖X v − y‖² / 2n + alpha (l1_ratio ‖v‖₁ + (1 − l1_ratio) ‖v‖² / 2) is half our loss. Columns divided by
    scale_j = l1_j / mean(l1) make one l1 serve all features. If the L2 penalties then differ, they become rows of X
    instead, with √(n l2_j) in column j and target 0.

    Raises:
        ValueError: if an l1 is not positive.
    """
    from scipy import sparse

    X, y = problem.X.to_scipy(), problem.y.cpu().numpy()
    n, p = X.shape
    penalties = (hparams["l1"], problem.l2(hparams))
    l1, l2 = (penalty.detach().expand(p).cpu().numpy().astype(y.dtype) for penalty in penalties)
    if not (l1 > 0).all():
        raise ValueError(f"CoordinateDescent needs every l1 to be positive, but the smallest is {l1.min():.3g}.")
    common = l1.mean()
    scale = l1 / common
    l2 = l2 / scale**2
    if (scale != 1).any():
        X = X @ sparse.diags_array(1 / scale) if sparse.issparse(X) else X / scale
    if (l2 != l2[0]).any():
        X = sparse.vstack([X, sparse.diags_array(np.sqrt(n * l2))], format="csc", dtype=y.dtype)
        y = np.concatenate([y, np.zeros(p, y.dtype)])
        common, l2 = common * n / (n + p), np.zeros(1)
    alpha = common / 2 + l2[0]
    return X, y, float(alpha), float(common / 2 / alpha), scale
