"""All cases of problems that several processes share, for one launch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import norm_cases
import problem_cases
import refusal_cases
import stream_cases

import hypergrad as hg

PARITY = {**problem_cases.PARITY, **stream_cases.PARITY, **norm_cases.PARITY}
QUICK = [
    "own sum",
    "class weights",
    "ignored",
    "smoothed, in micro-batches",
    "one example",
    "weighted",
    "cleaning",
    "tasks",
    "folds over ranks",
    "streamed, an empty part",
    "streamed, random",
    "normalised",
    "returned",
    "metrics",
]
"""The cases of PARITY that always run; the others do so with the exhaustive ones."""
MOMENTUM = hg.Momentum(lr=0.05)
ESTIMATORS = {
    "forward over reverse": problem_cases.implicit(product=hg.ForwardOverReverse()),
    # A longer step than the default one, whose rounding, ε / h, is above what is compared.
    "differences": problem_cases.implicit(product=hg.CentredDifferences(step=1e-3)),
    "minres": problem_cases.implicit(linsolve=hg.MINRES(tol=1e-13)),
    "error bar": problem_cases.implicit(error_bar=True),
    "graph": hg.Unrolled(solver=MOMENTUM, inner_steps=4, tape=hg.Graph()),
    "reversible": hg.Unrolled(solver=MOMENTUM, inner_steps=4, tape=hg.Reversible()),
    "adam": hg.Unrolled(solver=hg.Adam(lr=0.02), inner_steps=4),
    "forward": hg.Forward(solver=MOMENTUM, inner_steps=4),
}
OTHERS = {
    "normalised": norm_cases.normalized,
    "tasks": partial(problem_cases.tasks, proximity=1.0, tasks_per_step=4),
    "folds": lambda: hg.k_fold(problem_cases.cleaning(batch_size=5), 3),
    "streamed": stream_cases.streamed,
}
EXHAUSTIVE = PARITY | {
    f"{kind}, {name}": partial(problem_cases.compared, make, estimator)
    for kind, make in OTHERS.items()
    for name, estimator in ESTIMATORS.items()
    if name != "forward" or kind != "tasks"  # it needs a start that does not depend on λ
}
PRECISIONS = ("float32", "bf16-mixed", "bf16-true")


def cases() -> dict[str, Callable[[], Any]]:
    refused = {f"refused: {name}": partial(refusal_cases.refusal, act) for name, act in refusal_cases.ACTIONS.items()}
    inside = {precision: partial(norm_cases.rounded, precision) for precision in PRECISIONS}
    sent = {f"traffic {k}": partial(norm_cases.traffic, k) for k in range(3)}
    quick = {name: PARITY[name] for name in QUICK}
    return {**quick, **inside, **refused, **sent, "rows read": stream_cases.rows_read, "draws": stream_cases.draws}


def exhaustive() -> dict[str, Callable[[], Any]]:
    return EXHAUSTIVE
