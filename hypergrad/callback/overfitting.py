"""Whether a run overfitted the dev loss: the test loss rose by more than chance explains."""

from dataclasses import dataclass

import torch

from hypergrad.callback.base import OUTER_LOSS, Record, Result
from hypergrad.problem.base import InnerProblem

_RISE = 1.01
"""A test loss above its minimum by more than this factor counts as a rise. A judgement: less hardly matters."""
_ERRORS = 2
"""A rise of more standard errors than this is more than chance: by chance alone, one in about 40 is as large."""
_REMEDY = "More dev examples help, or folds, or fewer hyperparameters: see Validation in the documentation."


@dataclass(frozen=True)
class Rise:
    """The mean rise of the test loss between two records, over the same examples.

    Attributes:
        mean: of the differences, in units of the loss.
        error: its standard error, the standard deviation of the differences divided by √n.
    """

    mean: float
    error: float

    @property
    def is_more_than_chance(self) -> bool:
        """Whether it is beyond two standard errors."""
        return self.mean > _ERRORS * self.error

    def __str__(self) -> str:
        return f"{self.mean:.2g} ± {self.error:.1g}"


@torch.no_grad()
def rise(problem: InnerProblem, before: Record, after: Record) -> Rise | None:
    """The rise of the test loss from one record to another; None if the problem has no loss for each test example."""
    losses = [problem.test_losses(record.params, record.hparams) for record in (before, after)]
    if losses[0] is None or losses[1] is None or len(losses[0]) < 2:
        return None
    gap = losses[1] - losses[0]
    return Rise(gap.mean().item(), (gap.std() / len(gap) ** 0.5).item())


def overfitting(result: Result, problem: InnerProblem, lowest: Record | None, what: str) -> list[str]:
    """A sentence, and one on what helps, if the test loss at the best step is above that at the start or a step before.

    Args:
        result: of the run.
        problem: what was tuned.
        lowest: the record of the lowest test loss, if it is known.
        what: the words for the monitored number.
    """
    before, after = (record.metrics.get("test_loss") for record in (result.first, result.best))
    if before is not None and after is not None and after > before and result.best.step > 0:
        where = "its minimum" if result.monitor == OUTER_LOSS else f"the minimum of the {what}"
        text = f"at {where} the test loss is {after:.6g}, higher than the {before:.6g} of the initial hyperparameters"
        if said := _said(rise(problem, result.first, result.best), what, text):
            return [said, _REMEDY]
    said = [] if result.stopped == "budget" else _rose_again(result, problem, lowest, what)
    return [*said, _REMEDY] if said else []


def _rose_again(result: Result, problem: InnerProblem, lowest: Record | None, what: str) -> list[str]:
    """A sentence if the monitored number went on falling while the test loss rose again."""
    tests = {int(row["step"]): row["loss/test"] for row in result.history if "loss/test" in row}
    if result.best.step not in tests:
        return []
    step, after = min(tests, key=lambda k: tests[k]), tests[result.best.step]
    if step >= result.best.step or after <= _RISE * tests[step]:
        return []
    (before,) = (row for row in result.history if row["step"] == step)
    if result.monitor == OUTER_LOSS and result.best.scalars()["loss/dev"] > before["loss/dev"]:
        return []  # their problems differ, if each outer step has its own
    text = f"after step {step} it went on falling while the test loss rose, from {tests[step]:.6g} to {after:.6g}"
    if lowest is None or lowest.step != step:
        unknown = f"The run was resumed after step {step}, without the parameters that could tell these apart."
        return [f"The {what} may have been overfitted, or it is chance: {text}. {unknown}"]
    said = _said(rise(problem, lowest, result.best), what, text)
    return [said] if said else []


def _said(found: Rise | None, what: str, text: str) -> str:
    """The sentence on a rise; "" if chance explains it."""
    if found is None:
        return f"The {what} may have been overfitted: {text}. Its standard error is not known."
    if not found.is_more_than_chance:
        return ""
    return f"The {what} was overfitted: {text}, by {found} (standard error)."
