"""The tables of README.md: leave-one-out fits of logistic regression by series, next to exact refits.

python -m experiments.leave_one_out.table [--examples 5000] [--penalties 0.1 1 10]
"""

import argparse
import time
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.nn.functional import softplus

import hypergrad as hg


@dataclass(frozen=True)
class Logistic:
    """Logistic regression g(w, ω) = Σ_i ω_i ℓ_i(w) + ½ c ‖w‖².

    Attributes:
        X: inputs, shape (n, p), with a column of ones.
        y: 0 or 1, shape (n,).
        penalty: c.
    """

    X: Tensor
    y: Tensor
    penalty: float

    @classmethod
    def cancer(cls, penalty: float) -> "Logistic":
        """The 569 tumours of scikit-learn's breast cancer data with 30 standardised features."""
        X, y = (torch.tensor(array, dtype=torch.float64) for array in load_breast_cancer(return_X_y=True))
        X = (X - X.mean(0)) / X.std(0)
        return cls(torch.cat([X, torch.ones(len(X), 1)], 1), y, penalty)

    @classmethod
    def synthetic(cls, n: int, p: int, penalty: float) -> "Logistic":
        """Normal features and a noisy linear rule."""
        generator = torch.Generator().manual_seed(0)
        X = torch.randn(n, p, generator=generator)
        rule = X @ torch.randn(p, generator=generator) / p**0.5
        return cls(X, (rule + torch.randn(n, generator=generator) > 0).to(X), penalty)

    def loss(self, w: Tensor, weights: Tensor) -> Tensor:
        """g(w, ω), shape ()."""
        z = self.X @ w
        return (weights * (softplus(z) - self.y * z)).sum() + self.penalty * w @ w / 2

    def fit(self, weights: Tensor, w: Tensor) -> Tensor:
        """Newton's method from w until a step is below 1e-10 of w: two or three steps from a neighbouring fit."""
        eye = self.penalty * torch.eye(len(w))
        for _ in range(30):
            p = torch.sigmoid(self.X @ w)
            gradient = self.X.T @ (weights * (p - self.y)) + self.penalty * w
            step = torch.linalg.solve((self.X.T * (weights * p * (1 - p))) @ self.X + eye, gradient)
            w = w - step
            if step.norm() < 1e-10 * w.norm():
                break
        return w

    def refits(self, w: Tensor) -> Tensor:
        """The n fits without one example, each from the fit with all, shape (n, p)."""
        ones = torch.ones(len(self.y))
        return torch.stack([self.fit(ones.index_fill(0, torch.tensor(i), 0.0), w) for i in range(len(ones))])


def correlation(a: Tensor, b: Tensor) -> float:
    """Of all entries."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def accuracy(problem: Logistic, orders: tuple[int, ...]) -> list[list[str]]:
    """One row per order: how the predictions compare with the refits."""
    ones = torch.ones(len(problem.y))
    w0 = problem.fit(ones, torch.zeros(problem.X.shape[1]))
    refits = problem.refits(w0)
    held_out = partial(torch.linalg.vecdot, problem.X)
    rows = [[f"{problem.penalty:g}", "no change", "", "", f"{(w0 - refits).norm(dim=1).mean():.2e}", ""]]
    for order in orders:
        found = hg.InfinitesimalJackknife(order=order).at(problem.loss, w0, ones).leave_out()
        errors = (found - refits).norm(dim=1)
        rows.append([
            f"{problem.penalty:g}",
            str(order),
            f"{correlation(held_out(found), held_out(refits)):.6f}",
            f"{correlation(found - w0, refits - w0):.4f}",
            f"{errors.mean():.2e}",
            f"{errors.max():.2e}",
        ])
    return rows


def speed(problem: Logistic, orders: tuple[int, ...]) -> list[list[str]]:
    """Seconds for all n fits without one example, by refits and by series."""
    ones = torch.ones(len(problem.y))
    w0 = problem.fit(ones, torch.zeros(problem.X.shape[1]))
    begin = time.perf_counter()
    refits = problem.refits(w0)
    refitting = time.perf_counter() - begin
    rows = [["refits", f"{refitting:.2f}", "1", "", ""]]
    for order in orders:
        hg.InfinitesimalJackknife(order=order).at(problem.loss, w0, ones).leave_out(torch.arange(2))  # warms up
        begin = time.perf_counter()
        found = hg.InfinitesimalJackknife(order=order).at(problem.loss, w0, ones).leave_out()
        seconds = time.perf_counter() - begin
        logits = (torch.linalg.vecdot(problem.X, fits) for fits in (found, refits))
        error = (found - refits).norm(dim=1).mean().item()
        cells = [f"{seconds:.3f}", f"{refitting / seconds:.0f}", f"{correlation(*logits):.6f}", f"{error:.2e}"]
        rows.append([f"order {order}", *cells])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--penalties", type=float, nargs="+", default=[0.1, 1.0, 10.0])
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    console = Console(width=130)
    shown = Table(
        *(
            "penalty",
            "order",
            "correlation, held-out logits",
            "correlation, changes of w",
            "mean error of w",
            "largest",
        ),
        title="breast cancer, 569 fits without one example",
        title_justify="left",
    )
    for penalty in options.penalties:
        for row in accuracy(Logistic.cancer(penalty), (1, 2, 3)):
            shown.add_row(*row)
    console.print(shown)
    title = f"synthetic, n = {options.examples}, p = {options.features}, penalty 1"
    timed = Table("", "s", "times as fast", "correlation, held-out logits", "mean error of w", title=title)
    for row in speed(Logistic.synthetic(options.examples, options.features, 1.0), (1, 2)):
        timed.add_row(*row)
    console.print(timed)


if __name__ == "__main__":
    main()
