"""Where the error of a hypergradient comes from, measured on problems whose hypergradient has a closed form."""

import copy
from collections.abc import Callable, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import hypergrad as hg
from scripts.figures.style import BLUE, GREY, ORANGE, WIDTH

_LR = 0.12
"""Just below 1 / the largest curvature of the ridge problem."""


def draw(inner_steps: int = 3000) -> Figure:
    """Four causes: w is not at the optimum, the adjoint is not solved, steps are left out, and rounding.

    Args:
        inner_steps: the most steps of training, ≥ 100.
    """
    figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    steps = [int(inner_steps * share) for share in (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1)]
    _curves(axes[0, 0], "not at the optimum", "inner steps", steps, _not_optimal)
    _curves(axes[0, 1], "adjoint not solved", "products of CG", range(1, 11), _not_solved)
    _curves(axes[1, 0], "steps left out", "horizon", steps[:-1], lambda horizon: _left_out(horizon, inner_steps))
    _curves(axes[1, 1], "rounding (float32)", "κ of the Hessian", [10.0**k for k in range(1, 6)], _rounded)
    for axis in axes[:, 0]:
        axis.set_ylabel("relative error")
    axes[0, 1].set_xticks(range(2, 11, 2))
    axes[1, 1].set_xscale("log")
    labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _curves(
    axis: Axes, title: str, words: str, knobs: Sequence[float], errors: Callable[..., tuple[float, float]]
) -> None:
    """The true and the reported error against a knob."""
    true, reported = zip(*map(errors, knobs), strict=True)
    axis.semilogy(knobs, reported, "--", color=ORANGE, marker=".", label="reported by hypergrad")
    axis.semilogy(knobs, true, color=BLUE, marker=".", label="true")
    axis.set(title=title, xlabel=words)
    axis.grid(color=GREY, alpha=0.2)


def _not_optimal(steps: int) -> tuple[float, float]:
    solver = hg.GradientDescent(lr=_LR)
    return _of_ridge(hg.Implicit(solver=solver, inner_steps=steps, inner_tol=0, linsolve=hg.Dense()))


def _not_solved(products: int) -> tuple[float, float]:
    return _of_ridge(hg.Implicit(solver=hg.Newton(), linsolve=hg.CG(max_iter=products, tol=1e-15)))


def _of_ridge(estimator: hg.Implicit) -> tuple[float, float]:
    problem = hg.Ridge(hg.diabetes(seed=0), l2=0.01)
    hparams = problem.init_hparams()
    found = estimator.estimate(problem, hparams, problem.init_params())
    return _errors(found, problem.hypergradient(hparams))


def _left_out(horizon: int, inner_steps: int) -> tuple[float, float]:
    """Against the gradient of the same run through all of its steps."""
    problem = hg.Ridge(hg.diabetes(seed=0), l2=0.01)
    hparams, params = problem.init_hparams(), problem.init_params()
    cut, whole = (
        hg.Unrolled(solver=hg.GradientDescent(lr=_LR), inner_steps=inner_steps, horizon=steps).estimate(
            problem, hparams, params
        )
        for steps in (horizon, None)
    )
    return _distance(cut.grad, whole.grad), float(cut.stats["truncation_bias"])


def _rounded(condition: float) -> tuple[float, float]:
    problem = hg.Quadratic(condition=condition, penalty=1e-9, seed=1).float()
    hparams = problem.init_hparams()
    estimator = hg.Implicit(solver=hg.Newton(), inner_tol=0, inner_steps=20, linsolve=hg.Dense(tol=0.1))
    found = estimator.estimate(problem, hparams, problem.init_params())
    truth = copy.deepcopy(problem).double().hypergradient({name: x.double() for name, x in hparams.items()})
    return _errors(found, truth)


def _errors(found: hg.Hypergradient, truth: dict[str, Tensor]) -> tuple[float, float]:
    return _distance(found.grad, truth), float(found.stats["error_estimate"]) / _norm(truth)


def _distance(grad: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    return _norm({name: grad[name].double() - truth[name] for name in truth}) / _norm(truth)


def _norm(tensors: dict[str, Tensor]) -> float:
    return float(torch.cat([x.flatten() for x in tensors.values()]).norm())
