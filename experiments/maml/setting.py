"""Tasks, a network and how it is adapted: what the tables of `maml` and `imaml` have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.model.network import perceptron
from hypergrad.training.training import Training

SEEDS = range(3)
RATES, STEPS = (0.01, 0.05, 0.2), (1, 10, 100, 300)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A family of tasks and how a network is adapted to one of them.

    Attributes:
        family: the tasks by seed.
        widths: of the network's inputs and outputs.
        loss: ℓ.
        lr: of gradient descent on a task.
        inner_steps: of it, while meta-learning.
        outer_steps: of Adam on the start, each on 25 tasks.
        outer_lr: of Adam.
        test_tasks: held-out ones that judge.
    """

    family: Callable[[int], hg.TaskFamily]
    widths: tuple[int, int]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    lr: float
    inner_steps: int
    outer_steps: int
    test_tasks: int
    outer_lr: float = 1e-3

    def problem(self, seed: int, *, tasks: int = 25, test_tasks: int = 0, proximity: float = 0.0) -> hg.MetaLearning:
        """The problem of a seed: its tasks, its held-out classes and its random start."""
        torch.manual_seed(seed)
        model = perceptron(*self.widths, hidden=(40, 40))
        return hg.MetaLearning(
            model=model,
            loss=self.loss,
            tasks=self.family(seed),
            tasks_per_step=tasks,
            test_tasks=test_tasks,
            proximity=proximity,
            seed=seed,
        )

    def learned(self, seed: int, estimator: hg.HypergradEstimator, *, proximity: float = 0.0) -> hg.Result:
        """The result of meta-learning."""
        problem, adam = self.problem(seed, proximity=proximity), partial(torch.optim.Adam, lr=self.outer_lr)
        return hg.fit(problem, estimator, adam, self.outer_steps, progress=False, warm_start=False)

    def judged(
        self,
        seed: int,
        start: hg.Tensors,
        solver: hg.InnerSolver,
        steps: int,
        *,
        proximity: float = 0.0,
        tol: float = 0.0,
    ) -> dict[str, float]:
        """Metrics on held-out tasks after adaptation from a start."""
        problem = self.problem(seed, tasks=1, test_tasks=self.test_tasks, proximity=proximity)
        w = Training(solver=solver, steps=steps, tol=tol).run(problem, start, problem.init_params()).params
        return {name: float(x) for name, x in problem.metrics(w, start).items()}

    def from_scratch(self, seed: int) -> tuple[float, int]:
        """The learning rate and number of steps that are best on 50 tasks to learn from, from the random start."""
        problem = self.problem(seed, tasks=50)
        start, found = problem.init_hparams(), {}
        for lr in RATES:
            for steps in STEPS:
                try:
                    training = Training(solver=hg.GradientDescent(lr=lr), steps=steps)
                    w = training.run(problem, start, problem.init_params()).params
                except hg.DivergenceError:
                    break
                found[problem.outer_loss(w, start, None).item()] = (lr, steps)
        return found[min(found)]


def waves() -> Setting:
    """Sine waves, ten points to fit and ten to judge."""
    return Setting(
        family=lambda seed: hg.Sinusoids(),
        widths=(1, 1),
        loss=mse_loss,
        lr=0.05,
        inner_steps=1,
        outer_steps=1500,
        test_tasks=300,
    )


def images(data: hg.Splits, shots: int) -> Setting:
    """Three of six classes, and of four others for the tests; which they are, is by the seed."""
    return Setting(
        family=lambda seed: hg.FewShot(data=data, shots=shots, seed=seed),
        widths=(data.train.X.shape[1], 3),
        loss=cross_entropy,
        lr=0.1,
        inner_steps=3,
        outer_steps=300,
        test_tasks=200,
    )
