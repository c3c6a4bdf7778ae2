"""What a method claims about its hypergradient, and whether it is true.

- Every implicit estimate: the gradient norm and the residual that it reports, and that `grad` is direct + indirect term
  of its own adjoint. With an error bar also ‖grad − dF/dλ‖ ≤ 10 bars, where the bar is known. Without one nothing is
  claimed about dF/dλ.
- `Unrolled` and `Forward`: the derivative of the run, up to what rounding of each step does to it.
- Single loop: the direction at the given w and its adjoint.
"""

import linecache
import math
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from choices import Choices
from methods import Call, draw_call, draw_kind, is_linear_in_outputs
from problems import DTYPES, RandomProblem, Spec, draw_spec
from problems_known import Array, Known, flat, norm, of_tensor, of_tensors, shaken, unflat
from runs_known import UPDATES, Run
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.inexact import inexactness

RIGHT, REFUSED, WRONG, TRACEBACK = "right", "refused", "wrong in silence", "traceback"
OURS = (HypergradError, ValueError, TypeError, NotImplementedError)
TIMES = 10.0
"""Times the stated error that count as wrong."""
SAMPLED = 30.0
"""The effect of rounding over the largest of three samples of it."""
MOST_ENTRIES = 6


@dataclass(frozen=True)
class Case:
    """A problem and a way to its hypergradient."""

    spec: Spec
    call: Call


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        kind: right, refused, wrong in silence or traceback.
        why: of a refusal its message; of others what is wrong.
        notes: what may be remarkable, such as a large error that nothing was said about.
    """

    kind: str
    why: str = ""
    notes: tuple[str, ...] = ()


def draw_case(choices: Choices) -> Case:
    kind = draw_kind(choices)
    spec = draw_spec(choices, unrolled=kind in ("unrolled", "forward"))
    return Case(spec, draw_call(choices, kind, spec))


def judge(case: Case, run: Call | None = None) -> Verdict:
    """Run a case, and compare what is claimed with the truth.

    Args:
        case: what is claimed.
        run: what is run in its place, to see that a wrong number is noticed.
    """
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch says it of itself
        try:
            problem, found, given = _run(case if run is None else replace(case, call=run))
        except Exception as error:
            return _of_error(error)
    foreign = [f"{w.category.__name__}: {w.message}" for w in met if not _is_ours(w.category)]
    claims = _Claims(case, problem, found, *given)
    wrong = claims.wrong()
    if foreign:
        wrong += [f"warning of others: {foreign[0]}"]
    if wrong:
        return Verdict(WRONG, "; ".join(wrong), tuple(claims.notes))
    return Verdict(RIGHT, notes=tuple(claims.notes))


def _is_ours(category: type) -> bool:
    return category.__module__.startswith("hypergrad")


def _of_error(error: Exception) -> Verdict:
    """Refused if it is an error that the library raises itself, with a sentence; else a traceback of internals."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    is_raised = "/hypergrad/" in frame.filename and (line.startswith("raise") or isinstance(error, HypergradError))
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, OURS) and is_raised and str(error).rstrip().endswith((".", ")", "?")):
        return Verdict(REFUSED, message)
    return Verdict(TRACEBACK, f"{message} [{frame.filename.split('/hypergrad/')[-1]}:{frame.lineno} {line}]")


def _run(case: Case) -> tuple[RandomProblem, hg.Hypergradient, tuple[Tensors, Tensors, Any]]:
    problem, call = RandomProblem(case.spec), case.call
    hparams, params = problem.init_hparams(), problem.init_params()
    if call.kind in ("implicit", "function", "single loop") and call.point != "start":
        params = _solved(problem, hparams, params, call)
    if call.kind == "function":
        estimator = call.make()
        assert isinstance(estimator, hg.Implicit)
        found = hg.hypergradient(
            lambda w, hp: problem.inner_loss(w, hp, None),
            lambda w, hp: problem.outer_loss(w, hp, None),
            params,
            hparams,
            linsolve=estimator.linsolve,
            product=estimator.product,
            damping=estimator.damping,
            error_bar=estimator.error_bar,
        )
        return problem, found, (hparams, params, None)
    carry = None
    estimator = call.make()
    if call.kind == "single loop":
        for step in range(2):
            before = estimator.estimate(problem, hparams, params, outer_step=step, inner_step=step, carry=carry)
            params, carry = before.params, before.carry
        return (
            problem,
            estimator.estimate(problem, hparams, params, outer_step=2, inner_step=2, carry=carry),
            (
                hparams,
                params,
                carry,
            ),
        )
    return problem, estimator.estimate(problem, hparams, params), (hparams, params, None)


def _solved(problem: RandomProblem, hparams: Tensors, params: Tensors, call: Call) -> Tensors:
    """The optimum in the dtype of the problem, or a point near it; the given parameters if there is none."""
    try:
        found = Known.of(problem).stationary(flat(of_tensors(params)), of_tensors(hparams))
    except ZeroDivisionError:  # λ was rounded to a bound
        return params
    if found is None:
        return params
    w = torch.from_numpy(found.astype(float))
    if call.point == "near":
        w = w + 10.0**call.away * w.norm() * torch.from_numpy(np.random.default_rng(0).standard_normal(len(w)))
    return unflatten(w.to(problem.start), params)


@dataclass
class _Claims:
    """A case that gave a hypergradient, in extended precision."""

    case: Case
    problem: RandomProblem
    found: hg.Hypergradient
    hparams: Tensors
    params: Tensors
    carry: Any

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.known = Known.of(self.problem)
        self.hp, self.w = of_tensors(self.hparams), flat(of_tensors(self.found.params))
        self.grad, self.eps = flat(of_tensors(self.found.grad)), torch.finfo(DTYPES[self.case.spec.dtype]).eps

    def wrong(self) -> list[str]:
        """What is claimed and not true."""
        shapes = {k: x.shape for k, x in self.found.grad.items()} != {k: x.shape for k, x in self.hparams.items()}
        dtypes = {x.dtype for x in self.found.grad.values()} | {x.dtype for x in self.found.params.values()}
        wrong = ["shapes"] if shapes else []
        wrong += [f"dtypes {dtypes}"] if dtypes != {DTYPES[self.case.spec.dtype]} else []
        try:
            kind = self.case.call.kind
            if kind in ("unrolled", "forward"):
                return wrong + self._of_run()
            return wrong + (self._of_direction() if kind == "single loop" else self._of_solution())
        except (ZeroDivisionError, OverflowError):
            return [*wrong, "a number where the problem has none"]

    def _of_run(self) -> list[str]:
        call, rng = self.case.call, np.random.default_rng(0)
        noise = (self.eps, 0.0)
        if call.tape in ("reversible", "auto"):
            noise = (max(self.eps, 1e-9), 2.0**-32)  # n multiples of 2^−48 for a decay n/d
        name, numbers = call.solver
        horizon = call.inner_steps if call.horizon is None else call.horizon
        start = flat(of_tensors(self.params))
        run = Run(self.known, name, dict(numbers), call.inner_steps, horizon, start, (0.0, 0.0))
        assert name in UPDATES
        entries = sorted(rng.permutation(len(self.grad))[:MOST_ENTRIES].tolist())
        truth = run.derivative(self.hp, entries)
        error = norm(self.grad[entries] - truth)
        wrong = self._of_bias(run, entries, truth) if horizon < call.inner_steps else []
        if error <= 1e3 * self.eps * norm(truth):
            return wrong
        spread = Run(self.known, name, dict(numbers), call.inner_steps, horizon, start, noise).spread(
            self.hp, entries, truth
        )
        if error > TIMES * SAMPLED * spread + 1e3 * self.eps * norm(truth):
            wrong.append(
                f"derivative of the run off by {_ratio(error, norm(truth))}, rounding {_ratio(spread, norm(truth))}"
            )
        return wrong

    def _of_bias(self, run: Run, entries: list[int], truth: Array) -> list[str]:
        stated = self.found.stats.get("truncation_bias", math.nan)
        if math.isnan(float(stated)):
            return []
        whole = Run(run.known, run.solver, run.options, run.steps, run.steps, run.start).derivative(self.hp, entries)
        bias = _ratio(norm(whole - truth), norm(truth))
        if bias > TIMES * float(stated) + 1e3 * self.eps:
            self.notes.append(f"truncation bias {bias:.1e}, stated {float(stated):.1e}")
        return []

    def _of_direction(self) -> list[str]:
        memory = None if self.carry is None else self.carry["memory"]
        if self.case.call.method not in ("soba", "masoba") or not isinstance(memory, Mapping) or "v" not in memory:
            return []
        if self.case.call.method == "masoba":
            return []
        v, w = of_tensor(memory["v"]), flat(of_tensors(self.params))

        def direction(known: Known, w: Array, hp: dict[str, Array], v: Array) -> Array:
            return flat(known.outer(w, hp)[1]) + v @ known.mixed(w, hp)

        return self._same("direction", self.grad, direction, (w, self.hp, v))

    def _of_solution(self) -> list[str]:
        call, stats = self.case.call, self.found.stats
        exact_product = call.product != "differences" and (
            call.product != "gauss-newton" or is_linear_in_outputs(self.case.spec)
        )
        wrong = []
        reported = np.array([stats["inner_grad_norm"]], dtype=object)
        wrong += self._same(
            "inner_grad_norm",
            reported,
            lambda k, w, hp: np.array([norm(k.phi(w, hp))], dtype=object),
            (self.w, self.hp),
        )
        if stats["inner_status"] == "converged":
            wrong += self._of_tolerance()
        v = self.found.carry
        if self.known.is_at_kink(self.w, self.hp):
            return wrong
        if isinstance(v, Tensor) and call.product != "differences":
            wrong += self._of_adjoint(of_tensor(v), exact_product)
        return wrong + self._of_error_bar()

    def _of_tolerance(self) -> list[str]:
        start = flat(of_tensors(self.problem.init_params()))
        first, last = norm(self.known.phi(start, self.hp)), norm(self.known.phi(self.w, self.hp))
        if last <= 2 * self.case.call.inner_tol * first:
            return []
        close = self.known.shaken(self.eps, np.random.default_rng(1))
        rounding = norm(
            close.phi(shaken(self.w, self.eps, np.random.default_rng(2)), self.hp) - self.known.phi(self.w, self.hp)
        )
        if last <= 2 * self.case.call.inner_tol * first + SAMPLED * rounding:
            return []
        return [f"inner converged with ‖φ‖ {_ratio(last, first):.1e} of the start"]

    def _of_adjoint(self, v: Array, exact_product: bool) -> list[str]:
        call, stats = self.case.call, self.found.stats

        def gradient(known: Known, w: Array, hp: dict[str, Array], v: Array) -> Array:
            return flat(known.outer(w, hp)[1]) - v @ known.mixed(w, hp)

        wrong = self._same("grad of its adjoint", self.grad, gradient, (self.w, self.hp, v))
        if not exact_product:
            return wrong

        def residual(known: Known, w: Array, hp: dict[str, Array], v: Array) -> Array:
            outer, _ = known.outer(w, hp)
            return outer - known.jacobian(w, hp) @ v - call.damping * v

        b, r = norm(self.known.outer(self.w, self.hp)[0]), residual(self.known, self.w, self.hp, v)
        stated = float(stats["adjoint_residual"])
        if norm(r) > 2 * stated * b and norm(r) > 2 * stated * b + TIMES * SAMPLED * self._spread(
            residual, (self.w, self.hp, v), r
        ):
            wrong.append(f"residual {_ratio(norm(r), b):.1e}, stated {stated:.1e}")
        return wrong

    def _of_error_bar(self) -> list[str]:
        stats = self.found.stats
        bar = float(stats.get("error_estimate", math.nan))
        is_said = bool(inexactness(self.found))
        if math.isnan(bar) and is_said:
            return []
        truth = None
        solution = self.known.stationary(self.w, self.hp)
        if solution is not None:
            truth = self.known.hypergradient(solution, self.hp)
        if truth is None:
            if bar < norm(self.grad) and self.case.spec.is_smooth:
                return [f"an error bar of {bar:.1e} without a solution"]
            return []
        error = norm(self.grad - truth)
        if math.isnan(bar):
            if error > norm(truth) / 10 and stats["adjoint_status"] == "converged":
                self.notes.append(f"error {_ratio(error, norm(truth)):.1e} without a bar and without a word")
            return []
        if error > bar:
            self.notes.append(f"error {_ratio(error, bar):.1e} bars")
        if error > TIMES * bar:
            return [f"error {_ratio(error, norm(truth)):.1e}, {_ratio(error, bar):.1e} bars"]
        return []

    def _same(self, name: str, met: Array, function: Any, arguments: tuple[Any, ...]) -> list[str]:
        """Whether a number is the value of a function, up to what rounding does to it."""
        truth = function(self.known, *arguments)
        error = norm(met - truth)
        # In float32 numbers below 1e-38 lose digits.
        if error <= 100 * self.eps * norm(truth) or error <= 1e6 * torch.finfo(DTYPES[self.case.spec.dtype]).tiny:
            return []
        if not error <= 100 * self.eps * norm(truth) + TIMES * SAMPLED * self._spread(function, arguments, truth):
            return [f"{name} off by {_ratio(error, norm(truth)):.1e}"]
        return []

    def _spread(self, function: Any, arguments: tuple[Any, ...], truth: Array) -> Any:
        off, eps = [], self.eps * (1 if self.case.spec.is_smooth else 30)  # which crosses kinks that rounding may cross
        for seed in range(3):
            rng = np.random.default_rng(seed)
            moved = [
                unflat(shaken(flat(x), eps, rng), x) if isinstance(x, dict) else shaken(x, eps, rng) for x in arguments
            ]
            off.append(norm(function(self.known.shaken(eps, rng), *moved) - truth))
        return max(off)


def _ratio(a: Any, b: Any) -> float:
    return float(a / b) if b else math.inf
