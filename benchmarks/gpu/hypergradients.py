"""One hypergradient: through training by every tape, and by the implicit function theorem."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import hypergrad as hg
from benchmarks.by_hand import conjugate_gradient
from benchmarks.gpu.table import Row, Work, measure, require
from benchmarks.gpu.workload import Workload, workloads
from hypergrad.core.autodiff import flatten

MOMENTUM = 0.9
PRODUCTS = 10
"""In each implicit hypergradient."""
SCALE = 1e-4
"""Of Neumann's series."""
CHECKPOINT, REVERSIBLE = "Checkpoint", "Reversible"


def unrolled(name: str, device: torch.device, *, tiny: bool) -> bool:
    """Through T steps of one model, by every tape."""
    work = workloads(device, tiny=tiny)[name]
    rows = {
        "plain training, in place": Row(partial(_plain, work), checked=False),
        "loop by hand, create_graph": Row(partial(_by_hand, work)),
        "Graph": Row(partial(_tape, work, hg.Graph)),
        "Store": Row(partial(_tape, work, hg.Store)),
        CHECKPOINT: Row(partial(_tape, work, hg.Checkpoint)),
        REVERSIBLE: Row(partial(_tape, work, hg.Reversible)),
        "Store, offloaded": Row(partial(_tape, work, hg.Store, offload="cpu" if device.type == "cuda" else "disk")),
        "Store, blocks recomputed": Row(partial(_recomputed, work)),
    }
    if name != "gpt":
        del rows["Store, blocks recomputed"]
    elif not tiny:
        del rows[REVERSIBLE]  # its embeddings have no deterministic kernel, and four int64 of 124 M take 4 GB
    return measure(f"through T = {work.num_steps}, {work.title}", rows, device, tolerance=_allowed(work), rounds=2)


def compiled(name: str, device: torch.device, *, tiny: bool) -> bool:
    """Compiled steps and pull-backs."""
    work = workloads(device, tiny=tiny)[name]
    rows = {
        "plain training, in place": Row(partial(_plain, work), checked=False),
        "Store": Row(partial(_tape, work, hg.Store)),
        "Store, compiled": Row(partial(_tape, work, hg.Store, compile=True)),
        "Checkpoint, compiled": Row(partial(_tape, work, hg.Checkpoint, compile=True)),
    }
    if name == "mlp":
        del rows["Checkpoint, compiled"]
    return measure(f"compiled, T = {work.num_steps}, {work.title}", rows, device, tolerance=_allowed(work), rounds=3)


def implicit(device: torch.device, *, tiny: bool) -> bool:
    """At the initial parameters, with a fixed number of products: CG if the loss is convex, else Neumann's series."""
    right = True
    for name, work in workloads(device, tiny=tiny).items():
        convex = name == "softmax"
        method = f"{'CG' if convex else 'Neumann'}, {PRODUCTS} products"
        rows = {
            f"by hand, {method}, retained graph": Row(partial(_adjoint_by_hand, work, convex)),
            method: Row(partial(_implicit, work, convex, hg.Reverse())),
            "the same by differences": Row(
                partial(_implicit, work, convex, hg.CentredDifferences()),
                tolerance=math.inf if name == "resnet" else 0.1,
            ),
        }
        right &= measure(f"implicit, {work.title}", rows, device, tolerance=_allowed(work), rounds=3)
    return right


def _allowed(work: Workload) -> float:
    """The relative error of a hypergradient that is rounding; with tf32, fused kernels and formulas differ by percents.

    That all are right is seen in the section `correctness`, in float64.
    """
    return 1e-7 if work.dtype == torch.float64 else 0.05


def _plain(work: Workload) -> Work:
    """Training as one would without hypergradients, by torch's optimiser."""
    module, (X, y), _ = work.parts
    start = [p.detach().clone() for p in module.parameters()]

    def run() -> None:
        with torch.no_grad():
            for p, first in zip(module.parameters(), start, strict=True):
                p.copy_(first)
        optimizer = torch.optim.SGD(module.parameters(), work.lr, momentum=MOMENTUM)
        module.train()
        for _ in range(work.num_steps):
            optimizer.zero_grad(set_to_none=True)
            work.loss(module(X), y).backward()
            optimizer.step()
        with torch.no_grad():  # the module is the start of the other rows
            for p, first in zip(module.parameters(), start, strict=True):
                p.copy_(first)

    return run


def _by_hand(work: Workload) -> Work:
    """The shortest loop that keeps the graph."""
    start = work.start()

    def run() -> Tensor:
        l2 = torch.full((), 1e-4, device=work.device, dtype=work.dtype, requires_grad=True)
        w, velocity = start, dict.fromkeys(start, 0.0)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for _ in range(work.num_steps):
                grads = torch.autograd.grad(work.inner_loss(w, l2), tuple(w.values()), create_graph=True)
                velocity = {name: MOMENTUM * velocity[name] + g for name, g in zip(w, grads, strict=True)}
                w = {name: x - work.lr * velocity[name] for name, x in w.items()}
            return torch.autograd.grad(work.outer_loss(w), l2)[0].reshape(1)

    return run


def _tape(work: Workload, kind: Callable[..., hg.Tape], compile: bool = False, **settings: Any) -> Work:
    require(kind, *settings)
    return _through(work, work.problem(), kind(**settings), compile=compile)


def _recomputed(work: Workload) -> Work:
    require(hg.Supervised, "recompute")
    return _through(work, work.problem(recompute=True), hg.Store())


def _through(work: Workload, problem: hg.Supervised, tape: hg.Tape, *, compile: bool = False) -> Work:
    solver = hg.Momentum(lr=work.lr, momentum=MOMENTUM)
    estimator = hg.Unrolled(solver=solver, tape=tape, inner_steps=work.num_steps, compile=compile)
    hparams, params = problem.init_hparams(), problem.init_params()
    return lambda: flatten(estimator.estimate(problem, hparams, params).grad)


def _implicit(work: Workload, convex: bool, product: hg.Product) -> Work:
    problem = work.problem()
    linsolve = hg.CG(max_iter=PRODUCTS, tol=0.0) if convex else hg.Neumann(num_terms=PRODUCTS, scale=SCALE, tol=0.0)
    estimator = hg.Implicit(
        linsolve=linsolve, product=product, inner_steps=0, damping=_damping(convex), error_bar=False
    )
    hparams, params = problem.init_hparams(), problem.init_params()
    return lambda: flatten(estimator.estimate(problem, hparams, params).grad)


def _adjoint_by_hand(work: Workload, convex: bool) -> Work:
    params = work.start()

    def run() -> Tensor:
        w = tuple(params.values())
        l2 = torch.full((), 1e-4, device=work.device, dtype=work.dtype, requires_grad=True)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            grads = torch.autograd.grad(work.inner_loss(params, l2), w, create_graph=True)
            gradient = torch.cat([g.reshape(-1) for g in grads])
            b = torch.cat([g.reshape(-1) for g in torch.autograd.grad(work.outer_loss(params), w)])

            def product(v: Tensor) -> Tensor:
                pieces = torch.autograd.grad(gradient, w, v, retain_graph=True)
                return torch.cat([x.reshape(-1) for x in pieces]) + _damping(convex) * v

            v = conjugate_gradient(product, b, PRODUCTS) if convex else _series(product, b)
            return -torch.autograd.grad(gradient, l2, v)[0].reshape(1)

    return run


def _damping(convex: bool) -> float:
    """So much for networks that the series halves its residual, whatever their curvature is."""
    return 1e-2 if convex else 0.5 / SCALE


def _series(product: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """SCALE Σ_k (I − SCALE A)ᵏ b for k < PRODUCTS; the last product forms the residual."""
    v = SCALE * b
    for _ in range(PRODUCTS - 1):
        v = v + SCALE * (b - product(v))
    return v
