"""The training runs that tapes and forward mode are checked against: problems × solvers, all with something to tune."""

import torch
from tables import synthetic

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, central_difference, detach, flatten
from hypergrad.solver.base import InnerSolver
from hypergrad.training.training import Training

STEPS = 12


class Coefficients(hg.InnerProblem):
    """Adds a learning rate per step and a momentum to the hyperparameters of a problem."""

    def hyperparameters(self):
        more = {"lr": hg.Hyperparameter(torch.linspace(0.03, 0.08, STEPS)), "beta": hg.Hyperparameter(0.6)}
        return super().hyperparameters() | more  # pyright: ignore[reportAbstractUsage]


class Quadratic(Coefficients, hg.Quadratic):
    pass


class Ridge(Coefficients, hg.Ridge):
    pass


class Network(hg.InnerProblem):
    """Two tanh layers, the first weight in both, on batches that are a function of the step.

    λ: the scale of the initial first layer, the labels of the train data, an L2 penalty, lr and momentum.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.data = synthetic(3, n=24, p=4)
        self.W = torch.randn(4, 4, generator=generator)
        self.v = torch.randn(4, generator=generator)

    def init_params(self):
        return {"W": self.W, "v": self.v, "b": torch.zeros(())}

    def hyperparameters(self):
        return {
            "init_scale": hg.Hyperparameter(0.5),
            "labels": hg.Hyperparameter(self.data.train.y / 4),
            "l2": hg.Hyperparameter(0.1, shape=(3,)),
            "lr": hg.Hyperparameter(0.07),
            "beta": hg.Hyperparameter(0.7),
        }

    def initial(self, params, hparams):
        return params | {"W": hparams["init_scale"] * params["W"]}

    def inner_batch(self, step):
        return torch.randperm(24, generator=torch.Generator().manual_seed(step))[:9]

    def predict(self, params, X):
        hidden = torch.tanh(torch.tanh(X @ params["W"]) @ params["W"].T + params["b"])
        return hidden @ params["v"]

    def inner_loss(self, params, hparams, batch):
        gap = self.predict(params, self.data.train.X[batch]) - hparams["labels"][batch]
        penalties = torch.stack([w.square().sum() for w in params.values()])
        return gap.square().mean() + hparams["l2"] @ penalties

    def outer_loss(self, params, hparams, batch):
        return (self.predict(params, self.data.dev.X) - self.data.dev.y / 4).square().mean()


SOLVERS: dict[str, InnerSolver] = {
    "gradient descent": hg.GradientDescent(lr="lr"),
    "momentum": hg.Momentum(lr="lr", momentum="beta"),
    "nesterov": hg.Momentum(lr="lr", momentum="beta", nesterov=True),
    "dampened": hg.Momentum(lr="lr", momentum="beta", dampening=0.3, weight_decay=0.2),
    "adam": hg.Adam(lr="lr", beta1="beta", beta2=0.8, eps=0.1),
    "adamw": hg.AdamW(lr="lr", beta1="beta", beta2=0.8, eps=0.1, weight_decay=0.2),
    "adagrad": hg.Adagrad(lr="lr", lr_decay="beta", initial_accumulator_value="beta", eps=0.1, weight_decay=0.2),
    "rmsprop": hg.RMSprop(lr="lr", alpha="beta", eps=0.1, momentum=0.4, centered=True),
}


def problems() -> dict[str, hg.InnerProblem]:
    return {"quadratic": Quadratic(size=7), "ridge": Ridge(synthetic(0), l2=0.3), "network": Network()}


def case(problem: str, solver: str) -> tuple[hg.InnerProblem, InnerSolver, Tensors, Tensors]:
    """Problem, solver, λ (as far as the solver uses it) and a start away from zero."""
    found = problems()[problem]
    solving = SOLVERS[solver]
    unused = {"lr", "beta"} - {name for name in solving.coefficients().values() if isinstance(name, str)}
    hparams = {name: value for name, value in found.init_hparams().items() if name not in unused}
    generator = torch.Generator().manual_seed(2)
    start = {name: w + 0.3 * torch.randn(w.shape, generator=generator) for name, w in found.init_params().items()}
    return found, solving, hparams, start


def retrained(problem: hg.InnerProblem, solver: InnerSolver, start: Tensors, hparams: Tensors) -> torch.Tensor:
    end = Training(solver=solver, steps=STEPS).run(problem, hparams, start)
    return problem.outer_loss(detach(end.params), hparams, problem.outer_batch(0))


def slope(problem: hg.InnerProblem, solver: InnerSolver, start: Tensors, hparams: Tensors, name: str) -> tuple:
    """A direction in one hyperparameter, or in "params", and the central difference along it."""
    point = start if name == "params" else hparams
    generator = torch.Generator().manual_seed(8)
    direction = {k: torch.zeros_like(x) for k, x in point.items()}
    for k in point if name == "params" else [name]:
        direction[k] = torch.randn(point[k].shape, generator=generator)

    def dev_loss(at: Tensors) -> torch.Tensor:
        w, hp = (at, hparams) if name == "params" else (start, at)
        return retrained(problem, solver, w, hp)

    return flatten(direction), central_difference(dev_loss, point, direction, step=1e-5).item()
