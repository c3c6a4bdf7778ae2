"""What each rank finds with sharded parameters, beside what one process finds with the same data."""

import functools
import operator
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.collectives import Ranks, Traffic
from hypergrad.core.local_shard import LocalShard
from hypergrad.model.transformer import TransformerClassifier
from hypergrad.problem.distributed.products_check import ExactProducts
from hypergrad.problem.precision import InPrecision

TRAINING: dict[str, Any] = {"solver": hg.GradientDescent(lr=0.1), "inner_steps": 5, "inner_tol": 0.0, "damping": 1.0}
BY_DIFFERENCES: dict[str, Any] = {"product": hg.CentredDifferences(), "error_bar": False}
EXACT: dict[str, Any] = {"product": hg.Reverse(), "error_bar": False}
CG = hg.CG(tol=1e-10, max_iter=60)
NEUMANN = hg.Neumann(num_terms=10, scale=0.2, tol=0.0)
L2 = {"l2": hg.L2(init=0.1)}
ADAM = hg.Adam(lr=0.01, eps=1e-3)
"""With the usual eps, entries whose gradient is 0 but for rounding, such as biases of keys, would move by lr."""
SINGLE_LOOPS: dict[str, hg.Method] = {
    "f2sa": hg.F2SA(solver=ADAM, multiplier=5.0, inner_steps=2),
    "sama": hg.SAMA(solver=ADAM),
    "bome": hg.BOME(solver=hg.GradientDescent(lr=0.1), inner_steps=1),
}
PARTS: dict[str, Any] = {"batch_size": 9, "micro_batch": 4, "dev_batch_size": 5, "dev_sample": 11}


class Tied(nn.Module):
    """A network with a tensor that is used twice, one that is frozen, and one with fewer rows than ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale = nn.Linear(5, 5), nn.Parameter(torch.ones(1))
        self.second, self.last = nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight
        self.last.bias.requires_grad_(False)
        self.register_buffer("shift", torch.full((5,), 0.1))

    def forward(self, X: Tensor) -> Tensor:
        return self.last(self.second(torch.tanh(self.first(X))) * self.scale + self.shift)


def transformer(**settings: Any) -> hg.Supervised:
    """Texts of six words in three classes, by two layers of a transformer; 25 examples on 2 ranks are uneven."""
    torch.manual_seed(0)
    model = TransformerClassifier(vocabulary=12, num_outputs=3, length=6, width=8, layers=2)
    X, y = torch.randint(1, 12, (42, 6)), torch.randint(0, 3, (42,))
    hyperparameters = {"l2": hg.L2(init=0.1), "weights": hg.ExampleWeights()}
    return supervised(model, X, y, **{"hyperparameters": hyperparameters} | settings)


def network(model: nn.Module | None = None, **settings: Any) -> hg.Supervised:
    """Points in three classes."""
    torch.manual_seed(0)
    model = Tied() if model is None else model
    return supervised(model, torch.randn(42, 5), torch.arange(42) % 3, **settings)


def supervised(model: nn.Module, X: Tensor, y: Tensor, **settings: Any) -> hg.Supervised:
    usual: dict[str, Any] = {"loss": cross_entropy, "hyperparameters": {"l2": hg.L2(init=0.1, per="tensor")}}
    return hg.Supervised(model=model, probe=False, train=(X[:25], y[:25]), dev=(X[25:], y[25:]), **usual | settings)


PROBLEMS: dict[str, Callable[[], hg.Supervised]] = {
    "transformer": transformer,
    "network on mini-batches in parts": functools.partial(network, **PARTS),
}


@functools.cache
def sharded(name: str) -> tuple[hg.Supervised, hg.FullySharded]:
    """One problem, whole and sharded."""
    return PROBLEMS[name](), hg.FullySharded(PROBLEMS[name](), check=False)


def apart(found: Tensors, exact: Tensors) -> float:
    """The largest relative error of a tensor."""
    return max((torch.linalg.vector_norm(found[k] - x) / torch.linalg.vector_norm(x)).item() for k, x in exact.items())


def implicit(linsolve: hg.LinearSolver, name: str) -> dict[str, Any]:
    """The error of the hypergradient and of the trained parameters, and the hypergradient itself."""
    (problem, whole), kinds = sharded(name), (EXACT, BY_DIFFERENCES)
    exact, found = (
        hg.Implicit(linsolve=linsolve, **TRAINING, **kind).estimate(one, one.init_hparams(), one.init_params())
        for one, kind in zip((problem, whole), kinds, strict=True)
    )
    return {
        "error": apart(found.grad, exact.grad),
        "params": apart(whole.whole(found.params), exact.params),
        "grad": flatten(found.grad).tolist(),
        "residual": found.stats["adjoint_residual"],
        "loss": abs(found.outer_loss - exact.outer_loss),
    }


def moved(method: hg.Method, exact_problem: hg.InnerProblem, whole: hg.FullySharded) -> dict[str, float]:
    """The errors after three moves."""
    ends = []
    for problem in (exact_problem, whole):
        hparams, params, carry = problem.init_hparams(), problem.init_params(), None
        found = None
        for t in range(3):
            where = {"outer_step": t, "inner_step": t * method.num_batches}
            found = hg.SingleLoop(method=method).estimate(problem, hparams, params, carry=carry, **where)
            params, carry = found.params, found.carry
            hparams = {name: x - 0.01 * found.grad[name] for name, x in hparams.items()}
        ends.append(found)
    exact, found = ends
    return {"error": apart(found.grad, exact.grad), "params": apart(whole.whole(found.params), exact.params)}


def in_bfloat16() -> dict[str, Any]:
    """The errors of what is computed in bfloat16, beside one process in float32, and the format of the shards."""
    problem = network(hyperparameters=L2).float()
    whole = hg.FullySharded(network(hyperparameters=L2).float(), precision="bf16-mixed", check=False)
    coarse = InPrecision(network(hyperparameters=L2).float(), "bf16-mixed")
    settings: dict[str, Any] = {**TRAINING, **BY_DIFFERENCES, "linsolve": hg.CG(tol=0.1, max_iter=5)}
    found = [hg.Implicit(**settings).estimate(p, p.init_hparams(), p.init_params()) for p in (coarse, whole)]
    methods = {name: replace(SINGLE_LOOPS[name], solver=hg.GradientDescent(lr=0.1)) for name in ("f2sa", "sama")}
    return {
        **{name: moved(method, problem, whole)["error"] for name, method in methods.items()},
        "cg": apart(found[1].grad, found[0].grad),
        "formats": sorted({str(x.dtype) for x in found[1].params.values()}),
    }


def tuned() -> dict[str, Any]:
    """λ and metrics of a few outer steps, and what the trained modules say."""
    ends, outputs = [], []
    for problem, kind in ((network(), EXACT), (hg.FullySharded(network()), BY_DIFFERENCES)):
        estimator = hg.Implicit(linsolve=CG, **TRAINING | {"solver": hg.Adam(lr=0.05)}, **kind)
        optimizer = functools.partial(torch.optim.SGD, lr=1.0)
        trainer = hg.Trainer(problem=problem, estimator=estimator, optimizer=optimizer, outer_steps=3)
        with warnings.catch_warnings(action="ignore", category=hg.NotConvergedWarning):
            result = trainer.fit()
        module = problem.trained_module(result.last.params, result.last.hparams)
        outputs.append(module(network().X_dev))
        ends.append(result.last)
    exact, found = ends
    return {
        "hparams": apart(found.hparams, exact.hparams),
        "grad": apart(found.grad, exact.grad),
        "outputs": (outputs[1] - outputs[0]).abs().max().item(),
        "accuracy": [float(end.metrics["dev_accuracy"]) for end in ends],
    }


def evaluated_elsewhere() -> float:
    """By how much a loss differs after the loss at other parameters, whose gathered ones must not be kept."""
    problem, whole = sharded("transformer")
    hparams, params = problem.init_hparams(), problem.init_params()
    moved = {name: 2 * w + 0.1 for name, w in params.items()}
    with torch.no_grad():
        first = whole.outer_loss(whole.local(params), hparams, None)
        exact = [problem.outer_loss(w, hparams, None) for w in (params, moved)]
        second = whole.outer_loss(whole.local(moved), hparams, None)
    return max(abs(first - exact[0]).item(), abs(second - exact[1]).item())


def traffic() -> list[int]:
    """The all-reduces of a loss with its gradients: with and without a penalty; and their numbers."""
    counts = []
    for hyperparameters in ({"weights": hg.ExampleWeights()}, {"l2": hg.L2(init=0.1)}):
        problem = hg.FullySharded(transformer(hyperparameters=hyperparameters), check=False)
        with Traffic().counting() as met, torch.no_grad():
            problem.inner_loss_and_gradient(problem.init_params(), problem.init_hparams(), None)
        counts += [met.calls, met.numbers]
    return counts


def reductions() -> list[float]:
    """The errors of what is computed of vectors on both ranks, one of which holds 3 entries, and the other 4."""
    ranks = Ranks.of(None)
    x, y = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).unbind()
    cut = slice(0, 3) if ranks.rank == 0 else slice(3, 7)
    a, b = (LocalShard.of(v[cut].clone(), ranks) for v in (x, y))
    functions = [
        torch.dot,
        operator.matmul,
        lambda a, b: torch.linalg.vector_norm(2 * a - b / 3),
        lambda a, b: torch.linalg.vector_norm(a - b, torch.inf),
        lambda a, b: (a * b).sum(),
        lambda a, b: (a - b).abs().max(),
        lambda a, b: a.isfinite().all().double(),
        lambda a, b: (a > 0).sum(),
        lambda a, b: torch.cat([a, b]).add_(1.0, alpha=2.0).addcmul(torch.cat([b, a]), torch.dot(a, b)).sum(),
    ]
    return [abs(f(a, b).item() - f(x, y).item()) for f in functions]


def refusals() -> dict[str, str]:
    """What is said of that which is not served."""
    whole = hg.FullySharded(network(), check=False)
    shard = whole.init_params()["first.weight"]
    dropout = nn.Dropout(0.1)
    settings: dict[str, Any] = TRAINING | BY_DIFFERENCES
    estimators = {
        "unrolled": hg.Unrolled(solver=hg.GradientDescent(), inner_steps=2),
        "forward": hg.Forward(solver=hg.GradientDescent(), inner_steps=2),
        "reverse": hg.Implicit(**settings | EXACT),
        "error bar": hg.Implicit(**{**settings, "error_bar": True}),
        "gmres": hg.Implicit(linsolve=hg.GMRES(), **settings),
        "preconditioner": hg.Implicit(linsolve=hg.CG(preconditioner=hg.Jacobi()), **settings),
        "newton": hg.Implicit(**{**settings, "solver": hg.Newton()}),
        "soba": hg.SingleLoop(method=hg.SOBA()),
        "no step": hg.SingleLoop(method=hg.F2SA()),
    }
    at = whole.init_hparams(), whole.init_params()
    attempts = {name: functools.partial(one.estimate, whole, *at) for name, one in estimators.items()}
    attempts |= {
        "other problem": lambda: hg.FullySharded(hg.Quadratic()),  # type: ignore[arg-type]
        "precision": lambda: hg.FullySharded(network(), precision="float16"),
        "recompute": lambda: hg.FullySharded(network(nn.Sequential(nn.Linear(5, 3)), recompute=["0"])),
        "dropout": lambda: hg.FullySharded(network(nn.Sequential(nn.Linear(5, 3), dropout))),
        "units": lambda: hg.FullySharded(network(), units=["layers.*"]),
        "a whole tensor": lambda: shard * torch.ones(5),
        "a mean": lambda: shard.mean(),
        "an entry": lambda: shard[0],
        "a number": lambda: shard.tolist(),
        "per weight": lambda: hg.FullySharded(network(hyperparameters={"l2": hg.L2(init=0.1, per="weight")})),
        "a buffer": lambda: hg.FullySharded(network(Tied(), hyperparameters={"shift": hg.Buffer(name="shift")})),
        "another precision": lambda: InPrecision(whole, "bf16-mixed"),
        "wrong products": lambda: off_by_a_percent().require_close(whole),
        "examples that are mixed": lambda: hg.FullySharded(network(Mixed())),
    }
    return {name: said(attempt) for name, attempt in attempts.items()}


def off_by_a_percent() -> ExactProducts:
    """Products that differ from those of the network."""
    exact = ExactProducts.of(network())
    pairs = [(v, {name: 1.01 * x for name, x in of_w.items()}, of_hp) for v, of_w, of_hp in exact.pairs]
    return replace(exact, pairs=pairs)


class Mixed(nn.Module):
    """A network of which the outputs depend on all examples of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, X: Tensor) -> Tensor:
        z = torch.tanh(self.first(X))
        return self.last(z - z.mean(0))


def normalized() -> str:
    """What the check of the products says of batch normalisation: nothing, as its statistics are those of all ranks."""
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
    return said(lambda: hg.FullySharded(network(model)))


def said(attempt: Any) -> str:
    try:
        attempt()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


QUICK = ["cg, transformer", "f2sa, transformer", "sama, transformer"]


def compared() -> dict[str, Any]:
    """Every estimator on every problem."""
    found: dict[str, Any] = {}
    for name in PROBLEMS:
        found |= {
            f"cg, {name}": functools.partial(implicit, CG, name),
            f"neumann, {name}": functools.partial(implicit, NEUMANN, name),
            **{f"{key}, {name}": (lambda m=m, name=name: moved(m, *sharded(name))) for key, m in SINGLE_LOOPS.items()},
        }
    return found


def cases() -> dict[str, Any]:
    every = compared()
    return {name: every[name] for name in QUICK} | {
        "bfloat16": in_bfloat16,
        "tuned": tuned,
        "evaluated elsewhere": evaluated_elsewhere,
        "traffic": traffic,
        "reductions": reductions,
        "normalized": normalized,
        "scaled inputs": lambda: said(
            lambda: hg.FullySharded(network(hyperparameters={"scale": hg.InputScale(), "l1": hg.L1(init=0.01)}))
        ),
        "refusals": refusals,
    }
