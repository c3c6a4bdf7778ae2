"""Random estimators, with all that can be chosen."""

from dataclasses import dataclass
from typing import Any

from choices import Choices
from problems import NETWORKS, Spec

import hypergrad as hg

LINSOLVES: dict[str, hg.LinearSolver] = {
    "cg": hg.CG(),
    "auto": hg.Auto(),
    "dense": hg.Dense(),
    "dense-lu": hg.Dense(definite=False),
    "cg-tight": hg.CG(max_iter=500, tol=1e-12),
    "cg-loose": hg.CG(max_iter=3, tol=1e-2),
    "neumann": hg.Neumann(num_terms=50),
    "neumann-0": hg.Neumann(num_terms=0),
    "minres": hg.MINRES(),
    "gmres": hg.GMRES(),
    "gmres-restarted": hg.GMRES(restart=2),
    "nystrom": hg.Nystrom(rank=4),
    "nystrom-rho": hg.Nystrom(rank=3, rho=0.1),
    "cg-jacobi": hg.CG(preconditioner=hg.Jacobi()),
    "cg-nystrom": hg.CG(preconditioner=hg.Nystrom(rank=4)),
}
LAYERED: dict[str, hg.LinearSolver] = {
    "kfac": hg.KFAC(),
    "ekfac": hg.EKFAC(),
    "kfac-exact": hg.KFAC(damping=0.0),
    "ekfac-exact": hg.EKFAC(damping=0.0),
    "kfac-heuristic": hg.KFAC(heuristic=True),
    "ekfac-empirical": hg.EKFAC(fisher="empirical"),
    "cg-kfac": hg.CG(preconditioner=hg.KFAC()),
    "cg-ekfac": hg.CG(preconditioner=hg.EKFAC()),
    "cg-kfac-mc": hg.CG(preconditioner=hg.KFAC(fisher="mc", damping=0.01)),
}
"""For problems with layers."""
PRODUCTS: dict[str, hg.Product] = {
    "reverse": hg.Reverse(),
    "forward": hg.ForwardOverReverse(),
    "differences": hg.CentredDifferences(),
    "gauss-newton": hg.GaussNewton(),
    "traced": hg.Traced(),
    "traced-float32": hg.Traced(precision="float32"),
}
TAPES: dict[str, hg.Tape] = {
    "graph": hg.Graph(),
    "store": hg.Store(),
    "checkpoint": hg.Checkpoint(),
    "checkpoint-1": hg.Checkpoint(slots=1),
    "reversible": hg.Reversible(),
    "auto": hg.AutoTape(),
    "disk": hg.Store(offload="disk"),
}
METHODS: dict[str, hg.Method] = {
    "soba": hg.SOBA(),
    "masoba": hg.MASOBA(),
    "saba": hg.SABA(),
    "srba": hg.SRBA(),
    "sama": hg.SAMA(),
    "amigo": hg.AmIGO(),
    "bome": hg.BOME(),
    "f2sa": hg.F2SA(),
    "meha": hg.MEHA(),
}
POINTS = ("optimum", "near", "start")


@dataclass(frozen=True)
class Call:
    """An estimator and where it starts.

    Attributes:
        kind: implicit, function, unrolled, forward, single loop, or layers, which is implicit for a module.
        solver: the class and its numbers; `lr` None names the hyperparameter.
        point: the parameters: the rounded optimum, near it, or the start of training.
        away: log₁₀ of how far near is.
        online: whether a second forward estimate goes on from the first.
    """

    kind: str = "implicit"
    solver: tuple[str, tuple[tuple[str, Any], ...]] = ("LBFGS", ())
    linsolve: str = "cg"
    product: str = "reverse"
    tape: str = "graph"
    method: str = "soba"
    inner_steps: int = 0
    inner_tol: float = 1e-6
    horizon: int | None = None
    damping: float = 0.0
    error_bar: bool = True
    compile: bool | str = False
    point: str = "optimum"
    away: int = -4
    online: bool = False

    @property
    def moves(self) -> int:
        """Moves of a single-loop method before the one that is looked at; every second one of SRBA corrects."""
        return 3 if self.method == "srba" else 2

    def make_solver(self) -> hg.InnerSolver:
        name, numbers = self.solver
        given = {key: ("lr" if key == "lr" and value is None else value) for key, value in numbers}
        return getattr(hg, name)(**given)

    def make(self) -> hg.HypergradEstimator:
        if self.kind == "unrolled":
            return hg.Unrolled(
                solver=self.make_solver(),
                tape=TAPES[self.tape],
                inner_steps=self.inner_steps,
                horizon=self.horizon,
                compile=self.compile,
            )
        if self.kind == "forward":
            return hg.Forward(
                solver=self.make_solver(), inner_steps=self.inner_steps, online=self.online, compile=self.compile
            )
        if self.kind == "single loop":
            return hg.SingleLoop(method=METHODS[self.method])
        return hg.Implicit(
            solver=self.make_solver(),
            linsolve=(LINSOLVES | LAYERED)[self.linsolve],
            product=PRODUCTS[self.product],
            inner_steps=self.inner_steps,
            inner_tol=self.inner_tol,
            damping=self.damping,
            error_bar=self.error_bar,
            compile=self.compile,
        )


def draw_kind(choices: Choices) -> str:
    often = ("implicit",) * 4 + ("function",) + ("unrolled",) * 4
    return choices.one(often + ("forward",) * 2 + ("single loop",) * 2 + ("layers",))


def draw_call(choices: Choices, kind: str, spec: Spec) -> Call:
    """A random way to the hypergradient of a problem."""
    inner, _, unit = spec.scales
    tuned = kind in ("unrolled", "forward") and "lr" in spec.parts
    steps = choices.integer(1, 8)
    # The few compiled cases, which take half a minute each, are a tenth of the time of a run.
    compile = choices.one((False,) * 250 + ("auto",) * 49 + (True,))
    if kind in ("unrolled", "forward"):
        solver = _draw_solver(choices, tuned, spec)
        horizon = choices.one((None, None, None, 0, 1, 4))
        if horizon is not None:
            horizon = min(horizon, steps)
        return Call(
            kind,
            solver,
            tape=choices.one(_tapes(solver)),
            inner_steps=steps,
            horizon=horizon if kind == "unrolled" else None,
            compile=compile,
            online=kind == "forward" and choices.one((False, True)),
        )
    trained = kind in ("implicit", "layers") and choices.one((False, False, True))
    solver = ("LBFGS", ())
    if trained:
        solver = choices.one((solver, ("Newton", ()), _draw_solver(choices, False, spec)))
    products = [name for name in PRODUCTS if name != "gauss-newton" or kind != "function"]
    return Call(
        kind,
        solver,
        linsolve=choices.one(tuple(LAYERED if kind == "layers" else LINSOLVES)),
        product=choices.one(("reverse", "reverse", *products)),
        method=choices.one(tuple(METHODS)),
        inner_steps=choices.one((20, 100, 5)) if trained else 0,
        inner_tol=choices.one((1e-6, 1e-2, 1e-10, 0.0)),
        damping=choices.one((0.0, 0.0, 0.0, 1e-6, 1e-2, 1.0)) * 10.0 ** (inner - 2 * unit),
        error_bar=choices.one((True, True, True, False)),
        compile=compile if trained else False,
        point="start" if trained else choices.one(POINTS),
        away=choices.integer(-10, -1),
    )


def _tapes(solver: tuple[str, tuple[tuple[str, Any], ...]]) -> tuple[str, ...]:
    """The tapes that serve a solver, and now and then the one that does not."""
    name, numbers = solver
    plain = name == "Momentum" and not any(dict(numbers).get(k) for k in ("nesterov", "dampening"))
    others = tuple(tape for tape in TAPES if tape != "reversible")
    return (*others, *(("reversible",) * 4 if plain else others), "reversible")


def _draw_solver(choices: Choices, tuned: bool, spec: Spec) -> tuple[str, tuple[tuple[str, Any], ...]]:
    inner, _, unit = spec.scales
    adaptive = ("Adam", "AdamW", "Adagrad", "RMSprop")
    name = choices.one(("GradientDescent", "Momentum", *adaptive))
    if tuned and (inner or unit):
        name = "GradientDescent"  # whose unit the hyperparameter has
    rate = choices.one((0.1, 0.01, 0.5)) * (10.0**unit if name in adaptive else 10.0 ** (2 * unit - inner))
    numbers: dict[str, Any] = {"lr": None if tuned else rate}
    if name == "Momentum":
        numbers |= {"momentum": choices.one((0.9, 0.0, 0.837261)), "nesterov": choices.one((False, False, True))}
        if not numbers["nesterov"]:
            numbers["dampening"] = choices.one((0.0, 0.0, 0.3))
    if name in ("Adam", "AdamW"):
        numbers |= {"beta1": choices.one((0.9, 0.0)), "beta2": choices.one((0.999, 0.5))}
    if name == "AdamW":
        numbers["weight_decay"] = choices.one((0.0, 0.1)) * (10.0**-unit)
    if name == "RMSprop":
        numbers |= {"alpha": choices.one((0.99, 0.5)), "momentum": choices.one((0.0, 0.4))}
        numbers["centered"] = choices.one((False, True))
    if name in adaptive:
        # Below the root of the smallest number, the mean of squares underflows, as in torch.optim.
        least = 1e-15 if spec.dtype != "float64" else 1e-150
        numbers["eps"] = max(choices.one((0.1, 1e-8)) * 10.0 ** (inner - unit), least)
    return name, tuple(numbers.items())


def is_linear_in_outputs(spec: Spec) -> bool:
    """Whether Gauss–Newton products are those with the Hessian."""
    return spec.family not in NETWORKS
