"""What a method claims about its hypergradient, and whether it is true.

- Every implicit estimate: the gradient norm and the residual that it reports, and that `grad` is direct + indirect term
  of its own adjoint. With an error bar also ‖grad − dF/dλ‖ ≤ 10 bars, where the bar is known. Without one nothing is
  claimed about dF/dλ.
- `Unrolled` and `Forward`: the derivative of the run, up to what rounding of each step does to it.
- Single loop: the direction and the next parameters, as its formulas say.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from methods import METHODS, Call, is_linear_in_outputs
from moves_known import MOVES, Memory, Terms, memory_of, step_of
from problems import DTYPES, RandomProblem, Spec
from problems_known import Array, Known, flat, norm, of_tensor, of_tensors, shaken, unflat
from runs_known import UPDATES, Run
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import Tensors
from hypergrad.estimator.inexact import inexactness

TIMES = 10.0
"""Times the stated error that count as wrong."""
SAMPLED = 30.0
"""The effect of rounding over the largest of three samples of it."""
MOST_ENTRIES = 6


@dataclass
class Claims:
    """What a case claims that gave a hypergradient, in extended precision.

    Attributes:
        problem: on whose data the truth is found.
        params: w before the estimate.
        carry: what the estimate went on from.
    """

    spec: Spec
    call: Call
    problem: RandomProblem
    found: hg.Hypergradient
    hparams: Tensors
    params: Tensors
    carry: Any

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.known = Known.of(self.problem)
        self.hp, self.w = of_tensors(self.hparams), flat(of_tensors(self.found.params))
        self.grad, self.eps = flat(of_tensors(self.found.grad)), torch.finfo(DTYPES[self.spec.dtype]).eps

    def wrong(self) -> list[str]:
        """What is claimed and not true."""
        shapes = {k: x.shape for k, x in self.found.grad.items()} != {k: x.shape for k, x in self.hparams.items()}
        dtypes = {x.dtype for x in self.found.grad.values()} | {x.dtype for x in self.found.params.values()}
        wrong = ["shapes"] if shapes else []
        wrong += [f"dtypes {dtypes}"] if dtypes != {DTYPES[self.spec.dtype]} else []
        try:
            kind = self.call.kind
            if kind in ("unrolled", "forward"):
                return wrong + self._of_run()
            return wrong + (self._of_move() if kind == "single loop" else self._of_solution())
        except (ZeroDivisionError, OverflowError):
            return [*wrong, "a number where the problem has none"]

    def _of_run(self) -> list[str]:
        call, rng = self.call, np.random.default_rng(0)
        noise = (self.eps, 0.0)
        if call.tape in ("reversible", "auto"):
            noise = (max(self.eps, 1e-9), 2.0**-32)  # n multiples of 2^−48 for a decay n/d
        name, numbers = call.solver
        steps = 2 * call.inner_steps if call.online else call.inner_steps
        horizon = steps if call.horizon is None else call.horizon
        start = flat(of_tensors(self.params))
        run = Run(self.known, name, dict(numbers), steps, horizon, start, (0.0, 0.0))
        assert name in UPDATES
        entries = sorted(rng.permutation(len(self.grad))[:MOST_ENTRIES].tolist())
        truth = run.derivative(self.hp, entries)
        error = norm(self.grad[entries] - truth)
        wrong = self._of_bias(run, entries, truth) if horizon < steps else []
        if error <= 1e3 * self.eps * norm(truth):
            return wrong
        spread = replace(run, noise=noise).spread(self.hp, entries, truth)
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

    def _of_move(self) -> list[str]:
        before = flat(of_tensors(self.params))
        if any(self.known.is_at_kink(w, self.hp) for w in (before, self.w)):
            return []
        memory = {"w": before} | memory_of(self.call.method, self.carry["memory"], self.eps)
        truth, met = self._moved(memory, self.known, self.hp, lambda x: x), (self.grad, self.w)
        samples = [self._noisy_move(memory, seed) for seed in range(3)]
        wrong = []
        for k, name in enumerate(("direction", "next parameters")):
            error, size = norm(met[k] - truth[k]), norm(truth[k])
            # Adam's slope is lr / eps at a gradient of 0, and far smaller at one of the size of its rounding.
            is_steep = name == "direction" and 0 in memory.get("square", ())
            if is_steep or self._is_rounding(error, size):
                continue
            spread = max(norm(sample[k] - truth[k]) for sample in samples)
            if not error <= 100 * self.eps * size + TIMES * SAMPLED * spread:
                wrong.append(f"{name} off by {_ratio(error, size):.1e}, rounding {_ratio(spread, size):.1e}")
        return wrong

    def _moved(
        self, memory: Memory, known: Known, hp: dict[str, Array], rounded: Callable[[Array], Array]
    ) -> tuple[Array, Array]:
        method, carry = self.call.method, self.carry
        lr = step_of(METHODS[method], carry["memory"])
        return MOVES[method](Terms(known, hp, rounded), memory, lr, carry["t"])

    def _noisy_move(self, memory: Memory, seed: int) -> tuple[Array, Array]:
        eps, rng = self._noise, np.random.default_rng(seed)
        memory, hp = (unflat(shaken(flat(x), eps, rng), x) for x in (memory, self.hp))
        return self._moved(memory, self.known.shaken(eps, rng), hp, lambda x: shaken(x, eps, rng))

    def _of_solution(self) -> list[str]:
        call, stats = self.call, self.found.stats
        exact_product = call.product != "differences" and (
            call.product != "gauss-newton" or is_linear_in_outputs(self.spec)
        )
        wrong = []
        reported = np.array([stats["inner_grad_norm"]], dtype=object)

        def grad_norm(known: Known, w: Array, hp: dict[str, Array]) -> Array:
            return np.array([norm(known.phi(w, hp))], dtype=object)

        # Across a kink the gradient may change its sign and keep its norm.
        wrong += self._same("inner_grad_norm", reported, grad_norm, (self.w, self.hp), through=Known.phi)
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
        if last <= 2 * self.call.inner_tol * first:
            return []
        close = self.known.shaken(self.eps, np.random.default_rng(1))
        rounding = norm(
            close.phi(shaken(self.w, self.eps, np.random.default_rng(2)), self.hp) - self.known.phi(self.w, self.hp)
        )
        if last <= 2 * self.call.inner_tol * first + SAMPLED * rounding:
            return []
        return [f"inner converged with ‖φ‖ {_ratio(last, first):.1e} of the start"]

    def _of_adjoint(self, v: Array, exact_product: bool) -> list[str]:
        call, stats = self.call, self.found.stats

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
            if bar < norm(self.grad) and self.spec.is_smooth:
                return [f"an error bar of {bar:.1e} without a solution"]
            return []
        error = norm(self.grad - truth)
        if math.isnan(bar):
            if error > norm(truth) / 10 and stats["adjoint_status"] == "converged":
                self.notes.append(f"error {_ratio(error, norm(truth)):.1e} without a bar and without a word")
            return []
        if error > bar:
            self.notes.append(f"error {_ratio(error, bar):.1e} bars")
        if error > TIMES * bar and not self._is_rounding(error, 0):
            return [f"error {_ratio(error, norm(truth)):.1e}, {_ratio(error, bar):.1e} bars"]
        return []

    def _same(self, name: str, met: Array, function: Any, arguments: tuple[Any, ...], through: Any = None) -> list[str]:
        """Whether a number is the value of a function, up to what rounding does to it, or to what it is made from."""
        truth = function(self.known, *arguments)
        error = norm(met - truth)
        if self._is_rounding(error, norm(truth)):
            return []
        through = through or function
        spread = self._spread(through, arguments, through(self.known, *arguments))
        if not error <= 100 * self.eps * norm(truth) + TIMES * SAMPLED * spread:
            return [f"{name} off by {_ratio(error, norm(truth)):.1e}"]
        return []

    def _is_rounding(self, error: Any, size: Any) -> bool:
        """Whether an error is a few units of the last place, also where numbers are so small that they lose digits."""
        return error <= 100 * self.eps * size or error <= 1e6 * torch.finfo(DTYPES[self.spec.dtype]).tiny

    @property
    def _noise(self) -> float:
        """ε, or more of it where rounding may cross kinks."""
        return self.eps * (1 if self.spec.is_smooth else 30)

    def _spread(self, function: Any, arguments: tuple[Any, ...], truth: Array) -> Any:
        off, eps = [], self._noise
        for seed in range(3 if self.spec.is_smooth else 16):  # a kink may be on the same side of a few
            rng = np.random.default_rng(seed)
            moved = [
                unflat(shaken(flat(x), eps, rng), x) if isinstance(x, dict) else shaken(x, eps, rng) for x in arguments
            ]
            off.append(norm(function(self.known.shaken(eps, rng), *moved) - truth))
        return max(off)


def _ratio(a: Any, b: Any) -> float:
    return float(a / b) if b else math.inf
