"""Where estimators are measured: one point, a few directions, and a witness for each kind of estimator."""

import time
from collections.abc import Hashable

import torch

from hypergrad.check.report import AGREES, DISAGREES, Row
from hypergrad.check.retraining import DevLoss, after_the_same_run, at_the_optimum
from hypergrad.check.witness import Witness, directional_derivative
from hypergrad.core.autodiff import Tensors, central_difference, detach, flatten, leaves, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator, Hypergradient
from hypergrad.estimator.forward import Forward
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver

_THROUGH_TRAINING = (Unrolled, Forward)
_NAN = float("nan")
_WORTHLESS = 0.1
_ENOUGH = 0.01


class Bench:
    """Measures estimators at λ along random unit directions in the unconstrained values u; see `check_hypergradient`.

    Raises:
        ValueError: if λ has other names than the problem's hyperparameters, or violates a constraint.
    """

    def __init__(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        num_directions: int,
        seed: int,
        solver: InnerSolver | None,
        tol: float,
        max_steps: int,
    ) -> None:
        self.problem, self.params, self.solver = problem, detach(params), solver
        self.tol, self.max_steps = tol, max_steps
        self.spaces = problem.hyperparameters()
        if hparams.keys() != self.spaces.keys():
            raise ValueError(
                f"hparams must hold {', '.join(self.spaces)}, but it holds {', '.join(hparams) or 'nothing'}."
            )
        self.hparams = detach(hparams)
        self.u = {name: self.spaces[name].to_unconstrained(value) for name, value in self.hparams.items()}
        for name, u in self.u.items():
            if not u.isfinite().all():
                count = int((~u.isfinite()).sum())
                raise ValueError(
                    f"{count} of {u.numel()} values of {name!r} lie outside {self.spaces[name].constraint}."
                )
        size = sum(value.numel() for value in self.u.values())
        self.directions = [_unit(self.u, seed, index) for index in range(min(num_directions, size))]
        # |⟨dF/du error, d⟩| ≤ ‖dF/dλ error‖ · ‖(∂λ/∂u) d‖, and the error bar is of the first.
        step = torch.finfo(flatten(self.u).dtype).eps ** (1 / 3)
        self.stretches = [
            central_difference(lambda u: flatten(self._natural(u)), self.u, direction, step).norm().item()
            for direction in self.directions
        ]
        self._witnesses: dict[Hashable, list[Witness] | HypergradError] = {}

    def rows(self, name: str, estimator: HypergradEstimator) -> list[Row]:
        """One row per direction, or one that says why there is no estimate."""
        begin = time.perf_counter()
        try:
            found = estimator.estimate(self.problem, self.hparams, self.params)
        except HypergradError as error:
            seconds = time.perf_counter() - begin
            return [Row(name, None, _NAN, _NAN, _NAN, _NAN, _NAN, 0, seconds, f"error: {error}")]
        seconds = time.perf_counter() - begin
        slopes = self._slopes(found.grad)
        witnesses = self._witnesses_of(estimator)
        if isinstance(witnesses, HypergradError):
            verdict = f"error: there is no witness. {witnesses}"
            products = found.num_matvecs
            return [Row(name, k, s, _NAN, _NAN, _NAN, _NAN, products, seconds, verdict) for k, s in enumerate(slopes)]
        pairs = zip(slopes, witnesses, strict=True)
        return [self._row(name, k, slope, witness, found, seconds) for k, (slope, witness) in enumerate(pairs)]

    def _row(
        self, name: str, direction: int, slope: float, witness: Witness, found: Hypergradient, seconds: float
    ) -> Row:
        error, size = abs(slope - witness.value), abs(witness.value)
        if not error <= max(self.tol * size, witness.uncertainty):
            verdict = DISAGREES
        elif witness.uncertainty > _WORTHLESS * size:
            verdict = (
                f"error: the witness is uncertain by {witness.uncertainty:.1e}, more than {_WORTHLESS:g} of its value; "
                "use float64, or hyperparameters at which the dev loss is not flat."
            )
        else:
            verdict = AGREES
        relative = error / size if size > 0 else float("inf") if error > 0 else 0.0
        products = found.num_matvecs
        bar = (found.error_bar.estimate if found.error_bar else _NAN) * self.stretches[direction]
        return Row(
            name, direction, slope, witness.value, witness.uncertainty, relative, bar, products, seconds, verdict
        )

    def _slopes(self, grad: Tensors) -> list[float]:
        """⟨dF/du, d⟩ for every direction, with dF/du = (∂λ/∂u)ᵀ dF/dλ."""
        with torch.enable_grad():
            u = leaves(self.u)
            hparams = self._natural(u)
            cotangents = tuple(grad[name] for name in hparams)
            pulled = torch.autograd.grad(tuple(hparams.values()), tuple(u.values()), cotangents)
        flat = flatten(dict(zip(u, pulled, strict=True)))
        return [torch.dot(flat, flatten(direction)).item() for direction in self.directions]

    def _witnesses_of(self, estimator: HypergradEstimator) -> list[Witness] | HypergradError:
        """A witness for every direction, shared by all estimators of the same quantity, or why there is none."""
        solver = self._solver_of(estimator)
        same_run = isinstance(estimator, _THROUGH_TRAINING)
        key = (solver, estimator.inner_steps) if same_run else solver
        if key not in self._witnesses:
            try:
                if same_run:
                    dev_loss = after_the_same_run(self.problem, solver, estimator.inner_steps, self.params)
                else:
                    dev_loss = at_the_optimum(self.problem, solver, self.hparams, self.params, self.max_steps)
                self._witnesses[key] = [self._witness(dev_loss, direction) for direction in self.directions]
            except HypergradError as error:
                self._witnesses[key] = error
        return self._witnesses[key]

    def _witness(self, dev_loss: DevLoss, direction: Tensors) -> Witness:
        return directional_derivative(
            lambda u: dev_loss(self._natural(u)), self.u, direction, enough=_ENOUGH * self.tol
        )

    def _solver_of(self, estimator: HypergradEstimator) -> InnerSolver:
        """The solver that trains the witness.

        Raises:
            ValueError: if there is none.
        """
        own = getattr(estimator, "solver", None)
        solver = own if isinstance(estimator, _THROUGH_TRAINING) or self.solver is None else self.solver
        if solver is None:
            raise ValueError(f"{type(estimator).__name__} has no solver to retrain with; pass solver=.")
        return solver

    def _natural(self, u: Tensors) -> Tensors:
        return {name: self.spaces[name].to_natural(value) for name, value in u.items()}


def _unit(like: Tensors, seed: int, index: int) -> Tensors:
    """A random direction of norm 1, the same on every device and in every dtype but for rounding."""
    flat = flatten(like)
    generator = torch.Generator().manual_seed(seed + index)
    direction = torch.randn(len(flat), generator=generator, dtype=torch.float64)
    return unflatten((direction / direction.norm()).to(flat), like)
