"""What is built on hypergradients, on several processes, each against one process."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import parity_table as table
import torch
from parity_cases import distance, same_bits

import hypergrad as hg
from hypergrad.core.autodiff import Tensors
from hypergrad.influence.examples import influences
from hypergrad.problem.precision import in_precision

BATCHED: dict[str, Any] = {"train": 23, "dev": 11, "batch_size": 7, "fixed_batches": True}
WHOLE: dict[str, Any] = {"train": 23, "dev": 11}
TRAINED = replace(table.IMPLICIT, solver=hg.LBFGS(), inner_steps=200, inner_tol=1e-11, damping=0.0)
MOVES = 20

Find = Callable[[Any], Tensors]


def solved(problem: Any) -> tuple[Tensors, Tensors]:
    """w*(λ) and λ."""
    hp = problem.init_hparams()
    return TRAINED.estimate(problem, hp, problem.init_params()).params, hp


def tuned(problem: Any, **settings: Any) -> Tensors:
    """λ and w at the end of a run."""
    optimizer = partial(torch.optim.SGD, lr=0.05)
    last = hg.Trainer(problem=problem, **{"optimizer": optimizer, **settings}).fit().last
    return {f"λ {k}": x for k, x in last.hparams.items()} | {f"w {k}": x for k, x in last.params.items()}


def moved(problem: Any, method: str) -> Tensors:
    return tuned(problem, estimator=hg.SingleLoop(method=table.METHODS[method]), outer_steps=MOVES)


def error_bar(problem: Any) -> Tensors:
    found = replace(TRAINED, error_bar=True, inner_tol=1e-5).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    bar = found.error_bar
    assert bar is not None
    assert bar.status == "estimated"
    return {"bar": torch.tensor(bar.estimate)}


def loose_bar(problem: Any) -> Tensors:
    """The verdict on an estimate that is too far from the solution for a bar."""
    found = replace(table.IMPLICIT, error_bar=True, damping=1.0).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    assert found.error_bar is not None
    assert found.error_bar.status.startswith("unknown")
    return {found.error_bar.status: torch.ones(1)}


def checked(problem: Any) -> Tensors:
    rows = hg.check_hypergradient(problem, estimators={"implicit": TRAINED, "unrolled": table.UNROLLED}).rows
    assert {row.verdict for row in rows} == {"agrees"}
    return {"both": torch.tensor([[row.witness, row.derivative] for row in rows])}


def response(problem: Any) -> Tensors:
    return {"jacobian": hg.LinearResponse().at(problem, *solved(problem)).jacobian()}


def taylor(problem: Any) -> Tensors:
    w, hp = solved(problem)
    expansion = hg.TaylorExpansion(order=3).at(problem, w, hp)
    return expansion.predict({"l2": 1.1 * hp["l2"]}) | {
        "by entry": expansion.derivatives({"l2": torch.eye(4)})[2]["0.weight"]
    }


def jackknife(problem: Any) -> Tensors:
    return {"jacobian": hg.InfinitesimalJackknife().at(problem, *solved(problem)).jacobian}


def argmin(problem: Any) -> Tensors:
    w, hp = solved(problem)
    l2 = hp["l2"].requires_grad_()
    response = hg.argmin(problem, w, hp)({"l2": l2})
    size = torch.stack([x.square().sum() for x in response.values()]).sum()
    return {"gradient": torch.autograd.grad(size, l2)[0]}


def folds(problem: Any) -> Tensors:
    whole = hg.k_fold(problem, 3)
    return table.IMPLICIT.estimate(whole, whole.init_hparams(), whole.init_params()).grad


def tied(problem: Any) -> Tensors:
    whole = hg.Tied(problem, name="weights", groups=4)
    return table.IMPLICIT.estimate(whole, whole.init_hparams(), whole.init_params()).grad


def in_single(problem: Any) -> Tensors:
    coarse = in_precision(problem, "float32")
    found = replace(table.IMPLICIT, linsolve=hg.CG(tol=1e-3), error_bar=True)
    return found.estimate(coarse, coarse.init_hparams(), coarse.init_params()).grad


RUNS: dict[str, dict[str, Any]] = {
    "accepted": {"estimator": TRAINED, "outer_steps": 4, "acceptance": hg.Acceptance()},
    "l-bfgs-b": {"estimator": TRAINED, "outer_steps": 3, "optimizer": hg.LBFGSB},
    "retrained": {"estimator": TRAINED, "outer_steps": 2, "retrain": True},
}
FOUND: dict[str, tuple[Find, dict[str, Any]]] = {
    **{method: (partial(moved, method=method), BATCHED) for method in table.METHODS},
    **{name: (partial(tuned, **settings), WHOLE) for name, settings in RUNS.items()},
    "records": (partial(tuned, estimator=table.UNROLLED, outer_steps=6, record_every=3), BATCHED | {"dev_sample": 5}),
    "error bar": (error_bar, WHOLE),
    "loose bar": (loose_bar, WHOLE),
    "checked": (checked, WHOLE),
    "linear response": (response, WHOLE),
    "taylor": (taylor, WHOLE),
    "jackknife": (jackknife, WHOLE),
    "jackknife of weights": (jackknife, WHOLE | {"weighted": True}),
    "argmin": (argmin, WHOLE),
    "folds": (folds, BATCHED),
    "tied": (tied, BATCHED | {"weighted": True}),
    "in float32": (in_single, BATCHED),
}
QUICK = ["soba", "records", "error bar", "taylor", "folds", "in float32"]


def compared(find: Find, batches: dict[str, Any]) -> list[Any]:
    """The distance, and whether all ranks have the same bits."""
    wanted, found = find(table.made(**batches)), find(hg.DataParallel(table.made(**batches)))
    return [distance(found, wanted), same_bits(found)]


class Condition(hg.Quadratic):
    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return super().optimality(params, hparams, batch)


def influence() -> Any:
    problem: Any = hg.DataParallel(table.made(**WHOLE))
    return influences(problem, *solved(problem))


REFUSED: dict[str, Callable[[], Any]] = {
    "l1": lambda: hg.DataParallel(hg.Lasso(hg.diabetes())),
    "condition": lambda: hg.DataParallel(Condition(size=3)),
    "no parts": lambda: hg.DataParallel(hg.Quadratic(size=3)),
    "twice": lambda: hg.DataParallel(hg.DataParallel(table.made(**WHOLE))),
    "influences": influence,
}


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except (TypeError, ValueError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return "served"


def cases() -> dict[str, Callable[[], Any]]:
    found = {name: partial(compared, *FOUND[name]) for name in QUICK}
    return found | {f"refused {name}": partial(refusal, call) for name, call in REFUSED.items()}


def slow() -> dict[str, Callable[[], Any]]:
    return {name: partial(compared, *FOUND[name]) for name in FOUND if name not in QUICK}
