"""Who takes part, and one run of each: the value gap and ‖∇F‖² against oracles and seconds."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

import hypergrad as hg
from benchmarks.single_loop_by_hand import Array, Problem, Seen, Steps, by_numpy, saba_by_numpy
from hypergrad.callback.base import Callback, Record

Rate = float | hg.Schedule
RECORDS = 100
"""Points of a path, at most."""


@dataclass
class Path:
    """λ along a run, and what it cost to come there: one entry per record.

    Attributes:
        epochs: oracles spent, in units of 3n + m; one oracle is a gradient or a product on one example.
        seconds: CPU time.
        hparams: λ.
    """

    epochs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    hparams: list[hg.Tensors] = field(default_factory=list)

    def last(self, count: int) -> "Path":
        """The last records."""
        return Path(self.epochs[-count:], self.seconds[-count:], self.hparams[-count:])

    def judged(self, problem: Problem, least: float) -> dict[str, list[float]]:
        """The columns `epochs`, `seconds`, `gap` = F(λ) − F* and `grad` = ‖∇F(λ)‖²."""
        values = [problem.value(hparams) for hparams in self.hparams]
        return {
            "epochs": self.epochs,
            "seconds": self.seconds,
            "gap": [F - least for F, _ in values],
            "grad": [(grad @ grad).item() for _, grad in values],
        }


class Entrant:
    """Who takes part. Step sizes are those of w and v, and of u: λ on the quadratic, log λ on logistic regression."""

    def run(self, problem: Callable[[int | None], Problem], step: float, ratio: float, epochs: float) -> Path:
        """Run for a number of epochs.

        Args:
            problem: of a batch size, None for all data.
            step: of w and v.
            ratio: that step / the step of u.
            epochs: oracles to spend, in units of 3n + m.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Ours(Entrant):
    """An estimator and `Trainer`.

    Attributes:
        estimator: from the step of w and v.
        mixed: products with ∂²g/∂λ∂w in an outer step, or gradients with respect to λ in their own walk.
        falls: whether all steps are divided by √(t + 1).
        batch_size: of both losses; None for all data.
        in_batches: gradients and products of batches of a mean outer step, from the batches of train and dev together;
            None counts those of a short run.
    """

    estimator: Callable[[Rate], hg.HypergradEstimator]
    mixed: int = 1
    falls: bool = False
    batch_size: int | None = 64
    in_batches: Callable[[int], float] | None = None

    def run(self, problem: Callable[[int | None], Problem], step: float, ratio: float, epochs: float) -> Path:
        made = problem(self.batch_size)
        epoch = 3 * len(made.X) + len(made.X_dev)
        a_step = self._oracles(made, step, ratio) / epoch
        steps = max(1, math.floor(epochs / a_step))
        path, start = Path(), time.process_time()

        def note(record: Record) -> None:
            path.epochs.append(a_step * record.step)
            path.seconds.append(time.process_time() - start)
            path.hparams.append(record.hparams)

        try:
            self._fit(made, step, ratio, steps, note, every=max(1, steps // RECORDS))
        except hg.HypergradError as error:
            path.hparams.append({name: x * math.nan for name, x in made.init_hparams().items()})
            path.epochs.append(epochs)
            path.seconds.append(time.process_time() - start)
            print(f"{type(error).__name__} at step {step}, ratio {ratio}")
        return path

    def _oracles(self, problem: Problem, step: float, ratio: float) -> float:
        """Gradients and products of examples in an outer step."""
        K, L = problem.inner_partition.num_batches, problem.outer_partition.num_batches
        inner, outer = len(problem.X) / K, len(problem.X_dev) / L
        if self.in_batches is not None:
            return self.in_batches(K + L) * inner
        *_, one, two = self._fit(problem, step, ratio, 3, lambda record: None, every=1).history
        spent = sum(two[name] - one[name] for name in ("run/gradients", "run/products"))
        return inner * (spent + self.mixed) + outer

    def _fit(
        self, problem: Problem, step: float, ratio: float, steps: int, note: Callable[[Record], None], *, every: int
    ) -> hg.Result:
        class Noting(Callback):
            def on_step(self, record: Record) -> None:
                note(record)

        falls = hg.InverseRoot(base=1.0).factor
        trainer = hg.Trainer(
            problem=problem,
            estimator=self.estimator(hg.InverseRoot(base=step) if self.falls else step),
            optimizer=partial(torch.optim.SGD, lr=step / ratio),
            scheduler=partial(LambdaLR, lr_lambda=falls) if self.falls else None,
            outer_steps=steps,
            record_every=every,
            exact_every=every * (steps // every + 1),
            callbacks=[Noting()],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hg.NotConvergedWarning)
            return trainer.fit()


@dataclass(frozen=True)
class ByHand(Entrant):
    """A loop in numpy with closed forms.

    Attributes:
        loop: moves u by the steps, and tells each u before it moves.
        falls: whether all steps are divided by √(t + 1).
    """

    loop: Callable[[Problem, Steps, Seen], Array]
    falls: bool = False

    def run(self, problem: Callable[[int | None], Problem], step: float, ratio: float, epochs: float) -> Path:
        made = problem(64)
        ((name, h),) = made.hyperparameters().items()
        epoch = 3 * len(made.X) + len(made.X_dev)
        n, m = len(made.X) / made.inner_partition.num_batches, len(made.X_dev) / made.outer_partition.num_batches
        a_step = (3 * n + m) / epoch
        steps = max(1, math.floor(epochs / a_step))
        path, every, start = Path(), max(1, steps // RECORDS), time.process_time()

        def note(t: int, u: Array) -> None:
            if t % every == 0:
                path.epochs.append(t * a_step)
                path.seconds.append(time.process_time() - start)
                path.hparams.append({name: h.to_natural(torch.from_numpy(u))})

        note(every * steps, self.loop(made, Steps(steps, step, step / ratio, self.falls), note))
        path.epochs[-1] = steps * a_step
        return path


def single_loop(method: Callable[..., Any], **settings: Any) -> Callable[[Rate], hg.HypergradEstimator]:
    """The estimator of a method whose w moves by gradient descent."""
    return lambda lr: hg.SingleLoop(method=method(solver=hg.GradientDescent(lr=lr), **settings))


def implicit(linsolve: Callable[[float], hg.LinearSolver], steps: int) -> Callable[[Rate], hg.HypergradEstimator]:
    """The implicit function theorem after some steps of gradient descent."""
    return lambda lr: hg.Implicit(
        solver=hg.GradientDescent(lr=lr),
        linsolve=linsolve(float(lr)),
        inner_steps=steps,
        error_bar=False,  # pyright: ignore[reportArgumentType]
    )


def srba(batches: int) -> float:
    """What SRBA uses in the mean: everything once in K + L moves, and two sets of batches in each of the others."""
    return (4 * batches / 2 + 8 * (batches - 1)) / batches


ENTRANTS: dict[str, Entrant] = {
    "SOBA": Ours(single_loop(hg.SOBA)),
    "SOBA, steps falling as 1/√t": Ours(single_loop(hg.SOBA), falls=True),
    "MA-SOBA": Ours(single_loop(hg.MASOBA)),
    "AmIGO, 10 and 10 steps": Ours(single_loop(hg.AmIGO)),
    "F2SA": Ours(single_loop(hg.F2SA), mixed=0),
    "BOME, 10 steps": Ours(single_loop(hg.BOME), mixed=0),
    "MEHA": Ours(single_loop(hg.MEHA), mixed=0),
    "Implicit, 1 step, 1 Neumann term": Ours(implicit(lambda lr: hg.Neumann(num_terms=1, scale=lr), 1)),
    "Implicit, 10 steps, 10 Neumann terms": Ours(implicit(lambda lr: hg.Neumann(num_terms=10, scale=lr), 10)),
    "Implicit, 10 steps, 10 of CG": Ours(implicit(lambda lr: hg.CG(max_iter=10, tol=1e-13), 10)),
    "Implicit, all data, 10 steps, 10 of CG": Ours(
        implicit(lambda lr: hg.CG(max_iter=10, tol=1e-13), 10), batch_size=None
    ),
    "SOBA by hand, numpy": ByHand(by_numpy),
    "SABA by hand, numpy": ByHand(saba_by_numpy),
}
