"""What an outer step costs against the number of hyperparameters: time and peak memory, in training steps."""

import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import Local, Work, clocked, interleaved, ratios
from hypergrad.core.autodiff import detach
from hypergrad.training.dynamics import Dynamics

HIDDEN, TERMS, BATCH = (0, 40, 130, 400, 1300), 10, 500
MOMENTUM = hg.Momentum(lr=0.05, momentum=0.9)
NEUMANN = hg.Neumann(num_terms=TERMS, scale=0.02, tol=0)
PRODUCTS: dict[str, tuple[hg.Product, float]] = {
    "Gauss–Newton": (hg.GaussNewton(), 0.0),
    "Hessian": (hg.Reverse(), 10.0),  # damped, because that of an untrained network is indefinite
}


def network(hidden: int, seed: int = 0) -> nn.Module:
    """784-hidden-10 without biases; 784-10 where hidden is 0."""
    torch.manual_seed(seed)
    if hidden == 0:
        return nn.Linear(784, 10, bias=False)
    return nn.Sequential(nn.Linear(784, hidden, bias=False), nn.Tanh(), nn.Linear(hidden, 10, bias=False))


def work(name: str) -> Work:
    """One of a network: "HIDDEN gradient", "HIDDEN step" of training, or "HIDDEN PRODUCT", a hypergradient by it."""
    hidden, kind = name.split()
    problem = hg.Supervised(
        model=network(int(hidden)),
        loss=cross_entropy,
        train=(torch.randn(BATCH, 784), torch.arange(BATCH) % 10),  # from no file, which would leave memory behind
        dev=(torch.randn(BATCH, 784), torch.arange(BATCH) % 10),
        hyperparameters={"l2": hg.L2(init=1e-3, per="weight")},
    )
    w, hparams = problem.init_params(), detach(problem.init_hparams())
    with torch.no_grad():
        state = MOMENTUM.start(problem, w, hparams)

    def gradient() -> Tensor:
        with torch.no_grad():
            return next(iter(problem.inner_loss_and_gradient(w, hparams, None)[1].values()))

    def step() -> Tensor:
        with torch.no_grad():
            return next(iter(MOMENTUM.params(Dynamics(problem, MOMENTUM, hparams).transition(state, 0)).values()))

    if kind in ("gradient", "step"):
        return {"gradient": gradient, "step": step}[kind]
    product, damping = PRODUCTS[kind]
    judged = hg.Implicit(
        solver=MOMENTUM, linsolve=NEUMANN, product=product, damping=damping, inner_steps=0, error_bar=False
    )
    return lambda: judged.estimate(problem, hparams, w).grad["l2"]


def growth(hidden: int) -> dict[str, float | int]:
    """Time and peak memory of a hypergradient of a network, in plain training steps and in vectors of d numbers."""
    names = {kind: f"{hidden} {kind}" for kind in ("gradient", "step", *PRODUCTS)}
    calls = 1 if hidden > 200 else 5
    times = interleaved({name: clocked(work(name), calls, time.process_time) for name in names.values()}, repeats=7)
    size = sum(p.numel() for p in network(hidden).parameters())
    row: dict[str, float | int] = {"hyperparameters": size}
    for unit, of in (("step", ("gradient", *PRODUCTS)), ("gradient", tuple(PRODUCTS))):
        for kind in of:
            ratio, spread = ratios(times[names[kind]], times[names[unit]])
            row |= {f"{kind} / {unit}": round(ratio, 3), f"{kind} / {unit}, quartiles apart": round(spread, 3)}
    for kind in ("step", *PRODUCTS):
        row[f"{kind}, MB"] = round(Local.of(work, names[kind]).megabytes(), 2)
    return row
