"""The error bar of one random estimate against its true error.

python tests/fuzz/error_bar_cases.py [--cases N] [--seed S] [--family NAME …] [--number K]
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from families import CONVEX, EACH, Composed, composed
from solved import Exactly, Truth, norm

import hypergrad as hg
from hypergrad.core.autodiff import flatten, unflatten

FAMILIES = (
    *(f"{loss}" for loss in EACH),
    "quartic",
    "tanh network",
    "softplus network",
    "float32",
    "bfloat16",
    "mini-batch",
    "many parameters",
)


@dataclass
class Row:
    """One estimate: its true error, its bar, and what it was.

    Attributes:
        error: ‖estimate − dF/dλ‖, less what is uncertain in dF/dλ; NaN if the estimate was refused.
        bar: NaN if unknown.
        size: ‖dF/dλ‖.
        condition: κ.
        name: what it was.
        status: of the bar, or the refusal.
    """

    error: float
    bar: float
    size: float
    condition: float
    name: str
    status: str

    @property
    def ratio(self) -> float:
        """Bar over error."""
        return self.bar / max(self.error, 1e-300)

    @property
    def is_known(self) -> bool:
        return not math.isnan(self.bar)

    @property
    def is_refused(self) -> bool:
        return math.isnan(self.error)

    @property
    def holds(self) -> bool:
        return self.error <= self.bar


def _linear_solver(rng: np.random.Generator) -> hg.LinearSolver:
    tol = 10 ** rng.uniform(-10, -1)
    most = int(rng.choice([3, 20, 2000]))
    return (
        hg.CG(max_iter=most, tol=tol),
        hg.CG(max_iter=2000, tol=tol, preconditioner=hg.Jacobi()),
        hg.CG(max_iter=2000, tol=tol, preconditioner=hg.Nystrom(rank=5)),
        hg.Nystrom(rank=10, tol=tol),
        hg.MINRES(max_iter=most, tol=tol),
        hg.GMRES(max_iter=most, tol=tol),
        hg.Dense(),
        hg.Dense(definite=False),
        hg.Neumann(num_terms=most, tol=tol),
        hg.Auto(tol=tol),
    )[rng.integers(10)]


def _product(rng: np.random.Generator) -> hg.Product:
    return (hg.Reverse(), hg.Traced(), hg.ForwardOverReverse(), hg.CentredDifferences(), hg.GaussNewton())[
        rng.integers(5)
    ]


def _solver(rng: np.random.Generator, steepest: float) -> hg.InnerSolver:
    lr = 10 ** rng.uniform(-1, 0) / steepest
    return (
        hg.GradientDescent(lr=lr),
        hg.Momentum(lr=lr, momentum=0.5),
        hg.Adam(lr=10 ** rng.uniform(-3, -1)),
        hg.LBFGS(),
        hg.Newton(),
    )[rng.integers(5)]


def _point(rng: np.random.Generator, exactly: Exactly, start: np.ndarray) -> np.ndarray | None:
    """Parameters between a start and its minimum."""
    how = ("flow", "near", "descent", "optimum")[rng.choice(4, p=[0.35, 0.35, 0.2, 0.1])]
    if how == "descent":  # some steps only
        return _descent(exactly, start, int(10 ** rng.uniform(0, 2.3)))
    w = exactly.minimum(start)
    if w is None:
        return None
    w, H = w.astype(float), exactly.hessian(w)
    if how == "near":
        xi = rng.standard_normal(len(w))
        return w + 10 ** rng.uniform(-12, 0) * norm(w) * xi / norm(xi)
    if how == "flow":  # where gradient flow on the model at the minimum has brought the gradient down
        curvatures, U = np.linalg.eigh(H)
        curvatures, away = np.maximum(curvatures, 0), U.T @ (start.astype(float) - w)
        times = 10.0 ** np.linspace(-3, 17, 200) / curvatures[-1]
        sizes = np.linalg.norm(curvatures * np.exp(-times[:, None] * curvatures) * away, axis=1)
        enough = np.flatnonzero(sizes <= 10 ** rng.uniform(-10, -0.3) * sizes[0])
        return w + U @ (np.exp(-times[enough[0] if len(enough) else -1] * curvatures) * away)
    return w


def _descent(exactly: Exactly, w: np.ndarray, steps: int) -> np.ndarray:
    rate = 1 / max(abs(np.linalg.eigvalsh(exactly.hessian(w))))
    value, slope = exactly.gradient(w)
    for _ in range(steps):
        there = w - rate * slope
        after, sloped = exactly.gradient(there)
        if after <= value:
            w, value, slope, rate = there, after, sloped, 1.2 * rate
        else:
            rate = rate / 2
    return w.astype(float)


def problem_of(family: str, rng: np.random.Generator) -> Composed:
    """A random problem of a family."""
    dtype = torch.float32 if family in ("float32", "bfloat16") else torch.float64
    if family == "many parameters":
        loss = CONVEX[rng.choice([0, 1, 3, 4, 5, 6])]
        return composed(loss, "linear", rng, size=int(rng.integers(101, 120)), examples=50, dtype=dtype)
    model = "linear"
    loss = family if family in EACH else str(rng.choice(list(EACH)))
    if family == "quartic" or family.endswith("network"):
        loss = str(rng.choice(["quadratic", "logistic", "softmax"]))
        model = {"quartic": "quartic", "tanh network": "tanh", "softplus network": "softplus network"}[family]
    elif family in ("float32", "bfloat16", "mini-batch"):
        model = str(rng.choice(["linear", "linear", "tanh"]))
    size = int(rng.integers(1, 5 if model != "linear" else 12))
    problem = composed(loss, model, rng, size=size, examples=int(rng.integers(6, 25)), dtype=dtype)
    if family == "mini-batch":
        count = len(problem.data["X"])
        problem.formula.rows = sorted(rng.permutation(count)[: max(2, count // 3)].tolist())
    return problem


def case(family: str, seed: int, number: int) -> Row | None:
    """One estimate; None if the problem has no minimum that is known well."""
    rng = np.random.default_rng([seed, FAMILIES.index(family), number])
    problem = problem_of(family, rng)
    hparams, like_w = problem.init_hparams(), problem.init_params()
    dtype = next(iter(like_w.values())).dtype
    exactly = Exactly(problem, hparams)
    start = flatten(like_w).double().numpy().astype(np.longdouble)
    with np.errstate(all="ignore"):
        point = _point(rng, exactly, start)
    if point is None or not np.isfinite(point).all():
        return None
    given = unflatten(torch.from_numpy(point).to(dtype), like_w)
    settings: dict = {"linsolve": _linear_solver(rng), "product": _product(rng), "inner_steps": 0}
    if rng.integers(5) == 0:
        settings["damping"] = float(10 ** rng.uniform(-8, 0))
    if rng.integers(4) == 0:
        with np.errstate(all="ignore"):
            steepest = float(np.linalg.eigvalsh(exactly.hessian(start))[-1])
        settings |= {
            "solver": _solver(rng, abs(steepest)),
            "inner_steps": int(10 ** rng.uniform(0.5, 2.5)),
            "inner_tol": float(10 ** rng.uniform(-10, -1)),
        }
        given = like_w
    shown = problem
    if family == "bfloat16":
        shown = _in_precision(problem, str(rng.choice(["bf16-mixed", "bf16-true", "bf16"])))
        if isinstance(shown, Composed):
            given = {k: x.to(torch.bfloat16) for k, x in given.items()}
            hparams = shown.init_hparams()
            exactly = Exactly(shown, hparams)
    f, k = problem.formula, dict(settings)
    name = (
        f"{family} {number}: {f.loss}, {f.model}, {'+'.join(f.kinds)}{' direct' if f.direct else ''}, {dtype}, "
        + ", ".join(f"{a}={type(x).__name__ if not isinstance(x, float | int) else f'{x:.1e}'}" for a, x in k.items())
    )
    try:
        found = hg.Implicit(**settings).estimate(shown, hparams, given)
    except (hg.HypergradError, ValueError, NotImplementedError) as error:
        return Row(math.nan, math.nan, math.nan, math.nan, name, f"refused: {type(error).__name__}: {error}"[:120])
    w = flatten(found.params).double().numpy().astype(np.longdouble)
    with np.errstate(all="ignore"):
        truth = exactly.truth(w)
    if truth is None or not math.isfinite(truth.uncertainty):  # nothing is known to compare with
        return None
    return _row(found, truth, name)


def _in_precision(problem: Composed, precision: str) -> hg.InnerProblem:
    from hypergrad.problem.precision import InPrecision

    return problem.to(torch.bfloat16) if precision == "bf16" else InPrecision(problem, precision)


def _row(found: hg.Hypergradient, truth: Truth, name: str) -> Row:
    error = norm(flatten(found.grad).double().numpy().astype(np.longdouble) - truth.grad)
    bar, status = float(found.stats["error_estimate"]), str(found.stats["error_status"])
    name += f", κ = {truth.condition:.1e}"
    return Row(max(0.0, error - 3 * truth.uncertainty), bar, norm(truth.grad), truth.condition, name, status)


def rows_of(family: str, seed: int, numbers: Iterable[int]) -> list[Row]:
    """The estimates that a family has among these numbers."""
    return [row for number in numbers if (row := case(family, seed, number)) is not None]


def line(family: str, rows: list[Row]) -> str:
    """What a family comes to."""
    tried, known = [r for r in rows if not r.is_refused], [r for r in rows if r.is_known]
    held = [r for r in known if r.holds]
    ratios = [r.ratio for r in known if r.error > 0]
    if not ratios:
        return f"{family:18} {len(rows):5} {len(tried):5} {len(known):5}"
    return (
        f"{family:18} {len(rows):5} tried {len(tried):5} known {len(known) / len(tried):.3f} "
        f"holds {len(held) / len(known):.4f} worst {min(ratios):.2g} median {np.median(ratios):.3g} "
        f"95 % {np.quantile(ratios, 0.95):.2g}"
    )


def main() -> None:
    """Print a line for each family, and what did not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=50, help="of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="+", default=FAMILIES)
    parser.add_argument("--number", type=int, default=None, help="one case only")
    parser.add_argument("--why", action="store_true", help="count the reasons")
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    for family in given.family:
        numbers = range(given.cases) if given.number is None else [given.number]
        rows = rows_of(family, given.seed, numbers)
        print(line(family, rows), flush=True)
        for r in rows:
            if r.is_known and not r.holds or given.number is not None:
                print(f"   {r.bar:.2e} < {r.error:.2e} of {r.size:.1e}: {r.name} [{r.status}]", flush=True)
        if given.why:
            for why, count in Counter(r.status[:90] for r in rows if not r.is_known).most_common(8):
                print(f"   {count} {why}")


if __name__ == "__main__":
    main()
