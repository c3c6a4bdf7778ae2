"""The table of README.md: 50 dev images overfitted by a penalty for each weight, by six estimators.

python -m experiments.overfit_validation.table
"""

from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.numbers import save
from hypergrad.data.selection import first_of

SEEDS, OUTER_STEPS, INNER_STEPS = range(3), 60, 50
IMPLICIT = partial(hg.Implicit, solver=hg.LBFGS(), inner_steps=INNER_STEPS, inner_tol=1e-3, error_bar=False)
ESTIMATORS = {
    **{f"Neumann, K = {K}": IMPLICIT(linsolve=hg.Neumann(num_terms=K)) for K in (0, 1, 5, 20)},
    "CG": IMPLICIT(linsolve=hg.CG(tol=1e-3)),
    "unrolled, 50 steps": hg.Unrolled(solver=hg.Momentum(lr=0.02), inner_steps=INNER_STEPS),
}


class WithDevAccuracy(hg.Supervised):
    """Reports the accuracy on dev too."""

    def metrics(self, params: hg.Tensors, hparams: hg.Tensors) -> dict[str, Any]:
        right = self.model(params, self.X_dev, None).argmax(1) == self.y_dev
        return super().metrics(params, hparams) | {"dev_accuracy": right.double().mean()}


def problem_of(seed: int) -> hg.Supervised:
    """Softmax regression with 7,850 penalties, on 50 training and 50 dev images of Fashion-MNIST."""
    data = first_of(hg.idx_images(seed=seed), train=50, dev=50, test=2000)
    torch.manual_seed(seed)
    return WithDevAccuracy(
        model=torch.nn.Linear(784, 10),
        loss=cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={"l2": hg.L2(init=1e-2, per="weight")},
    )


def main() -> None:
    """Measure, keep the numbers, and print the table."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    numbers: dict[str, Any] = {}
    table = Table("estimator", "seed", "dev accuracy", "100 % from step", "dev loss", "test accuracy", "products")
    optimizer = partial(torch.optim.Adam, lr=0.3)
    problems = {seed: problem_of(seed) for seed in SEEDS}
    for name, estimator in ESTIMATORS.items():
        for seed, problem in problems.items():
            trainer = hg.Trainer(problem=problem, estimator=estimator, optimizer=optimizer, outer_steps=OUTER_STEPS)
            history = trainer.fit().history
            dev = [row["metric/dev_accuracy"] for row in history]
            last, reached = history[-1], next((str(k) for k, accuracy in enumerate(dev) if accuracy == 1), "never")
            cells = (
                f"{last['loss/dev']:.4f}",
                f"{history[0]['metric/test_accuracy']:.3f} → {last['metric/test_accuracy']:.3f}",
            )
            table.add_row(
                name, str(seed), f"{dev[0]:.2f} → {dev[-1]:.2f}", reached, *cells, f"{last['run/products']:.0f}"
            )
            numbers.setdefault(name, []).append({"dev": dev, "loss": [row["loss/dev"] for row in history]})
        save("overfit_validation", numbers)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
