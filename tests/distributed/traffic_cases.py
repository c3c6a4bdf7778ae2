"""All-reduces of each piece of a hypergradient, and its parity with one process, on every rank."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.core.all_reduce import _all_reduce
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.core.collectives import Ranks, Traffic
from hypergrad.core.order import first_order
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Product
from hypergrad.training.dynamics import Dynamics

STEPS = 6
Count = list[int]
SOLVER = hg.Momentum(lr=0.2)


def problem(weights: bool = False, lr: bool = False, batch_size: int | None = None) -> hg.Supervised:
    """A small network on 13 examples, which two processes share unevenly: 35 parameters, 4 penalties."""
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)) for n in (13, 9)]
    torch.manual_seed(0)
    hyperparameters: dict[str, Any] = {"l2": hg.L2(init=1e-1, per="tensor")}
    if weights:
        hyperparameters["weights"] = hg.ExampleWeights()
    if lr:
        hyperparameters["lr"] = hg.Hyperparameter(0.2, constraint=hg.positive)
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)),
        loss=nn.functional.cross_entropy,
        train=parts[0],
        dev=parts[1],
        hyperparameters=hyperparameters,
        batch_size=batch_size,
    )


def counted(work: Callable[[], Any]) -> Count:
    """[all-reduces, numbers in them] of a call."""
    traffic = Traffic()
    with traffic.counting():
        work()
    return [traffic.calls, traffic.numbers]


def pieces(product: Product) -> dict[str, Count]:
    """Of a linearization and its products."""
    many = hg.DataParallel(problem())
    w, hp, found = many.init_params(), many.init_hparams(), {}
    oracle, made = Oracle(many, hp, many.inner_batch(0)), []
    found["linearize"] = counted(lambda: made.append(product.linearize(oracle, w)))
    v = torch.ones(len(made[0].phi))
    found["product"] = counted(lambda: made[0].product(v))
    found["mixed"] = counted(lambda: made[0].mixed(v))
    found["columns"] = counted(lambda: made[0].product(torch.eye(len(v))[:, :5]))
    return found


def training_step() -> Count:
    """Of a step without a graph."""
    many = hg.DataParallel(problem())
    dynamics = Dynamics(many, SOLVER, leaves(many.init_hparams()))
    state = SOLVER.init(many.init_params())
    return counted(lambda: dynamics.step(state, 0))


def loss(kind: str, twice: bool) -> dict[str, Any]:
    """Of a loss with its gradients, or with second derivatives, and how far these are from those of one process."""
    one, found, counts = problem(), [], [0, 0]
    for each in (one, hg.DataParallel(one)):
        w, hp = leaves(each.init_params()), leaves(each.init_hparams())
        ins = (*w.values(), *hp.values())
        batch = each.inner_batch(0) if kind == "inner_loss" else each.outer_batch(0)

        def grads(each=each, w=w, hp=hp, ins=ins, batch=batch) -> list[Tensor]:
            value = getattr(each, kind)(w, hp, batch)
            got = torch.autograd.grad(value, ins, create_graph=twice, allow_unused=True, materialize_grads=True)
            if twice:
                size = torch.cat([x.reshape(-1) for x in got]).square().sum()
                got = torch.autograd.grad(size, ins, allow_unused=True, materialize_grads=True)
            return [value.detach().reshape(1), *got]

        with torch.enable_grad():
            counts = counted(lambda grads=grads: found.append(grads() if twice else first_order(grads)))
    return {"count": counts, "error": max((a - b).abs().max().item() for a, b in zip(*found, strict=True))}


def estimate(estimator: Any, **of_problem: Any) -> dict[str, Any]:
    """Of a hypergradient, and how far it is from that of one process."""
    one = problem(**of_problem)
    many, hp, w = hg.DataParallel(one), one.init_hparams(), one.init_params()
    # Compiling takes half a minute.
    eager = replace(estimator, compile=False) if getattr(estimator, "compile", False) else estimator
    wanted, found = eager.estimate(one, hp, w), []
    count = counted(lambda: found.append(estimator.estimate(many, hp, w)))
    a, b = flatten(wanted.grad), flatten(found[0].grad)
    stats = {key: found[0].stats.get(key) for key in ("training_remark", "adjoint_remark", "truncation_bias")}
    wanted_bias = wanted.stats.get("truncation_bias")
    return {
        "count": count,
        "error": ((a - b).norm() / a.norm()).item(),
        "grad": b.tolist(),
        "matvecs": found[0].stats["num_matvecs"],
        "wanted_bias": wanted_bias,
        **stats,
    }


def second_move(method: Any) -> dict[str, Any]:
    """Of the second move of a single loop, and how far it is from that of one process."""
    one, estimator = problem(), hg.SingleLoop(method=method)
    hp, found, count = one.init_hparams(), [], [0, 0]
    for each in (one, hg.DataParallel(one)):
        first = estimator.estimate(each, hp, one.init_params())
        at = {"inner_step": 1, "outer_step": 1, "carry": first.carry}
        count = counted(partial(_append, found, partial(estimator.estimate, each, hp, first.params, **at)))
    a, b = (flatten(each.grad) for each in found)
    return {"count": count, "error": ((a - b).norm() / a.norm()).item()}


def fit(compile: bool | str) -> dict[str, Any]:
    """A run whose steps are to be compiled, and how far it ends from an eager one of one process."""
    one, found = problem(), []
    for each, setting in ((one, False), (hg.DataParallel(one), compile)):
        estimator, optimizer = hg.SingleLoop(method=hg.SOBA(), compile=setting), partial(torch.optim.SGD, lr=0.02)
        run = hg.Trainer(problem=each, estimator=estimator, optimizer=optimizer, outer_steps=6, record_every=3)
        found.append(run.fit())
    a, b = (flatten(each.last.hparams) for each in found)
    remark = found[1].last.stats["training_remark"]
    return {"error": (a - b).norm().item(), "training_remark": remark}


def _append(found: list[Any], work: Callable[[], Any]) -> None:
    found.append(work())


def batched() -> dict[str, Any]:
    """A batched backward pass through both collectives: against column by column, and inside another one."""
    ranks, x = Ranks.of(None), torch.arange(1.0, 4.0).requires_grad_()
    (own,) = ranks.vary([x])
    (y,) = ranks.total([own.square() * (1 + ranks.rank)])
    found: list[Tensor] = []
    count = counted(
        lambda: found.extend(torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True, retain_graph=True))
    )
    wanted = torch.stack([torch.autograd.grad(y, x, e, retain_graph=True)[0] for e in torch.eye(3)])
    inside = torch._add_batch_dim(torch._add_batch_dim(torch.ones(2, 3), 0, 1), 0, 2)  # type: ignore[attr-defined]
    try:
        _all_reduce(inside, ranks.name)
        refused = ""
    except NotImplementedError as error:
        refused = str(error)
    return {"count": count, "error": (found[0] - wanted).abs().max().item(), "refused": refused}


UNROLLED = {
    "store": hg.Unrolled(solver=SOLVER, tape=hg.Store(), inner_steps=STEPS),
    "graph": hg.Unrolled(solver=SOLVER, tape=hg.Graph(), inner_steps=STEPS),
    "reversible": hg.Unrolled(solver=SOLVER, tape=hg.Reversible(), inner_steps=STEPS),
    "adam": hg.Unrolled(solver=hg.Adam(lr=0.02), tape=hg.Store(), inner_steps=STEPS),
    "forward": hg.Forward(solver=SOLVER, inner_steps=STEPS),
}
IMPLICIT = hg.Implicit(solver=SOLVER, inner_steps=5, inner_tol=0, damping=1.0)


def cases() -> dict[str, Callable[[], Any]]:
    """By name."""
    truncated = hg.Unrolled(solver=SOLVER, tape=hg.Store(), inner_steps=12, horizon=8)
    tuned = hg.Unrolled(solver=hg.Momentum(lr="lr"), tape=hg.Store(), inner_steps=STEPS)
    linsolves = {"dense": hg.Dense(), "nystrom": hg.Nystrom(rank=6, rho=0.1), "cg": hg.CG(tol=1e-12)}
    compiled: dict[str, HypergradEstimator] = {
        "unrolled": hg.Unrolled(solver=SOLVER, inner_steps=STEPS, compile=True),
        "auto": hg.Unrolled(solver=SOLVER, inner_steps=STEPS, compile="auto"),
        "implicit": replace(IMPLICIT, compile=True),
        "forward": hg.Forward(solver=SOLVER, inner_steps=STEPS, compile=True),
        "traced": replace(IMPLICIT, linsolve=hg.CG(tol=1e-12), product=hg.Traced()),
    }
    return {
        "step": training_step,
        "batched": batched,
        "soba": partial(second_move, hg.SOBA()),
        "f2sa": partial(second_move, hg.F2SA()),
        "reverse": partial(pieces, hg.Reverse()),
        "gauss newton": partial(pieces, hg.GaussNewton()),
        "forward over reverse": partial(pieces, hg.ForwardOverReverse()),
        "differences": partial(pieces, hg.CentredDifferences()),
        **{f"{k} {twice}": partial(loss, k, twice) for k in ("inner_loss", "outer_loss") for twice in (False, True)},
        **{name: partial(estimate, estimator) for name, estimator in UNROLLED.items()},
        "store weights": partial(estimate, UNROLLED["store"], weights=True, batch_size=5),
        "truncated": partial(estimate, truncated),
        "tuned": partial(estimate, tuned, lr=True),
        **{
            name: partial(estimate, replace(IMPLICIT, linsolve=linsolve, error_bar=False))
            for name, linsolve in linsolves.items()
        },
        "compiled fit": partial(fit, True),
        "compiled auto fit": partial(fit, "auto"),
        **{f"compiled {name}": partial(estimate, estimator) for name, estimator in compiled.items()},
    }
