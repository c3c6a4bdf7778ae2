"""Problem (c) as a module of layers, of which K-FAC and EK-FAC know the Kronecker factors."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.case import Case
from benchmarks.contestants import AUTO, Contestant, Local, implicit
from hypergrad.core.autodiff import flatten


def layered(case: Case) -> dict[str, Contestant]:
    """CG preconditioned by what is known of the layers, whose time includes it; and plain CG on the same module."""
    made = cache(partial(_twin, case))
    preconditioners = {
        "": None,
        " with K-FAC": hg.KFAC(fisher="mc"),
        " with EK-FAC": hg.EKFAC(fisher="mc"),
        " with the steepest directions": hg.LowRankGaussNewton(),
    }
    products = {"": hg.Reverse(), " on a trace": AUTO}
    return {
        f"of a module, CG{name}{way}": Local(_estimate(case, made, one, product))
        for way, product in products.items()
        for name, one in preconditioners.items()
    }


def _twin(case: Case) -> tuple[hg.Supervised, hg.Tensors, hg.Tensors]:
    """The problem with a module, its hyperparameters and its parameters.

    Its penalties are λ w², and those of (c) λ w² / 2.
    """
    problem, w = case.problem, case.params
    inputs, hidden = w["W1"].shape
    twin = hg.Supervised(
        model=nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 10)).to(w["W1"]),
        loss=cross_entropy,
        train=(problem.X, problem.y),
        dev=(problem.X_dev, problem.y_dev),
        hyperparameters={"l2": hg.L2(init=problem.l2 / 2, per="weight")},
    )
    return twin, {"l2": _of_module(case.hparams, "l2_") / 2}, twin_params(w)


def twin_params(w: hg.Tensors) -> hg.Tensors:
    """The parameters of (c), by the names and in the shapes of the module."""
    return {
        "0.weight": w["W1"].T.contiguous(),
        "0.bias": w["b1"],
        "2.weight": w["W2"].T.contiguous(),
        "2.bias": w["b2"],
    }


def _of_module(tensors: hg.Tensors, prefix: str = "") -> Tensor:
    """Tensors of the shapes of (c) as one vector in the order of the module."""
    return flatten(twin_params({name.removeprefix(prefix): x for name, x in tensors.items()}))


def _estimate(
    case: Case,
    made: Callable[[], tuple[hg.Supervised, hg.Tensors, hg.Tensors]],
    preconditioner: hg.Preconditioner | None,
    product: hg.Product,
) -> Callable[[float], tuple[Tensor, int]]:
    order = torch.arange(sum(w.numel() for w in case.params.values()))
    shaped = dict(zip(case.params, order.split([w.numel() for w in case.params.values()]), strict=True))
    place = _of_module({name: x.view_as(case.params[name]) for name, x in shaped.items()})

    def work(budget: float) -> tuple[Tensor, int]:
        twin, hparams, params = made()
        linsolve = hg.CG(max_iter=int(budget), tol=0.0, preconditioner=preconditioner)
        estimator = replace(implicit(linsolve=linsolve, product=product), damping=case.damping)
        found = estimator.estimate(twin, hparams, params)
        back = torch.empty_like(found.grad["l2"]).index_copy_(0, place, found.grad["l2"] / 2)
        return back, int(found.stats["num_matvecs"])

    return work
