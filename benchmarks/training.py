"""A training run that is differentiated, and handwritten code for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import hypergrad as hg
from benchmarks.problem.base import PenalisedClassifier
from benchmarks.problem.mlp import TanhMLP
from benchmarks.problem.softmax import Digits
from hypergrad.core.autodiff import flatten, leaves


@dataclass(frozen=True)
class Training:
    """T steps of gradient descent or momentum from the problem's initial parameters.

    Attributes:
        title: of its table.
        make: builds the problem.
        num_steps: T.
        lr: learning rate.
        momentum: decay of the velocity; 0 is gradient descent.
        dtype: of everything.
        tolerance: largest relative distance of two hypergradients that counts as rounding.
    """

    title: str
    make: Callable[[], PenalisedClassifier]
    num_steps: int
    lr: float
    momentum: float = 0.0
    dtype: torch.dtype = torch.float64
    tolerance: float = 1e-8

    @property
    def solver(self) -> hg.InnerSolver:
        """The same steps as a solver of ours."""
        return hg.Momentum(lr=self.lr, momentum=self.momentum) if self.momentum else hg.GradientDescent(lr=self.lr)

    def plain(self) -> Callable[[], Tensor]:
        """Training without a hypergradient, handwritten."""
        problem, start, hparams = self._parts()

        def work() -> Tensor:
            w = leaves({name: x.clone() for name, x in start.items()})
            velocity = [torch.zeros_like(x) for x in start.values()]
            for _ in range(self.num_steps):
                grads = torch.autograd.grad(problem.inner_loss(w, hparams, None), tuple(w.values()))
                with torch.no_grad():
                    for x, v, g in zip(w.values(), velocity, grads, strict=True):
                        x -= self.lr * (v.mul_(self.momentum).add_(g) if self.momentum else g)
            return flatten(w).detach()

        return work

    def by_hand(self) -> Callable[[], Tensor]:
        """The shortest possible create_graph loop."""
        problem, start, hparams = self._parts()

        def work() -> Tensor:
            w, l2 = leaves(start), leaves(hparams)
            velocity = dict.fromkeys(w, 0.0)
            for _ in range(self.num_steps):
                grads = torch.autograd.grad(problem.inner_loss(w, l2, None), tuple(w.values()), create_graph=True)
                velocity = {
                    name: self.momentum * velocity[name] + g if self.momentum else g
                    for name, g in zip(w, grads, strict=True)
                }
                w = {name: x - self.lr * velocity[name] for name, x in w.items()}
            found = torch.autograd.grad(problem.outer_loss(w, l2, None), tuple(l2.values()))
            return flatten(dict(zip(l2, found, strict=True)))

        return work

    def estimate(self, tape: hg.Tape, compile: bool) -> Callable[[], Tensor]:
        """The same hypergradient by a tape of ours."""
        problem, start, hparams = self._parts()
        estimator = hg.Unrolled(solver=self.solver, tape=tape, inner_steps=self.num_steps, compile=compile)
        return lambda: flatten(estimator.estimate(problem, hparams, start).grad)

    def save(self, folder: Path) -> Path:
        """All arrays and settings, for peers."""
        problem, start, hparams = self._parts()
        path = folder / "training.npz"
        np.savez(
            path,
            **{name: getattr(problem, name).numpy() for name in ("X", "y", "X_dev", "y_dev")},
            w=flatten(start).numpy(),
            l2=flatten(hparams).numpy(),
            shapes=np.array(json.dumps([list(w.shape) for w in start.values()])),
            lr=np.array(self.lr),
            momentum=np.array(self.momentum),
        )
        return path

    def _parts(self) -> tuple[PenalisedClassifier, hg.Tensors, hg.Tensors]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            problem = self.make()
            return problem, problem.init_params(), problem.init_hparams()
        finally:
            torch.set_default_dtype(before)


TRAININGS = {
    "a": Training("softmax regression on digits, T = 1000, float64", Digits, 1000, lr=0.5),
    "am": Training("the same with momentum", Digits, 1000, lr=0.05, momentum=0.9),
    "c": Training(
        "784-256-10 tanh MLP, n = 5000, momentum, T = 100, float32",
        TanhMLP,
        100,
        lr=0.05,
        momentum=0.9,
        dtype=torch.float32,
        tolerance=1e-4,
    ),
}
