"""What becomes of a case: right, refused, wrong in silence, or a traceback."""

import linecache
import traceback
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from choices import Choices
from claims import Claims
from layers import LayeredProblem, with_layers
from methods import Call, draw_call, draw_kind
from problems import RandomProblem, Spec, draw_spec
from problems_known import Known, flat, of_tensors

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, unflatten
from hypergrad.core.errors import HypergradError

RIGHT, REFUSED, WRONG, TRACEBACK = "right", "refused", "wrong in silence", "traceback"
OURS = (HypergradError, ValueError, TypeError, NotImplementedError, ImportError)


@dataclass(frozen=True)
class Case:
    """A problem and a way to its hypergradient."""

    spec: Spec
    call: Call


@dataclass(frozen=True)
class Verdict:
    """What became of a case.

    Attributes:
        kind: right, refused, wrong in silence or traceback.
        why: of a refusal its message; of others what is wrong.
        notes: what may be remarkable, such as a large error that nothing was said about.
    """

    kind: str
    why: str = ""
    notes: tuple[str, ...] = ()


def draw_case(choices: Choices) -> Case:
    kind = draw_kind(choices)
    spec = draw_spec(choices, unrolled=kind in ("unrolled", "forward"))
    if kind == "layers":
        spec = with_layers(choices, spec)
    return Case(spec, draw_call(choices, kind, spec))


def judge(case: Case, run: Call | None = None) -> Verdict:
    """Run a case, and compare what is claimed with the truth.

    Args:
        case: what is claimed.
        run: what is run in its place, to see that a wrong number is noticed.
    """
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # torch says it of itself
        try:
            problem, found, given = _run(case if run is None else replace(case, call=run))
        except Exception as error:
            return _of_error(error)
    foreign = [f"{w.category.__name__}: {w.message}" for w in met if not _is_ours(w.category)]
    claims = Claims(case.spec, case.call, problem, found, *given)
    wrong = claims.wrong()
    if foreign:
        wrong += [f"warning of others: {foreign[0]}"]
    if wrong:
        return Verdict(WRONG, "; ".join(wrong), tuple(claims.notes))
    return Verdict(RIGHT, notes=tuple(claims.notes))


def _is_ours(category: type) -> bool:
    return category.__module__.startswith("hypergrad")


def _of_error(error: Exception) -> Verdict:
    """Refused if it is an error that the library raises itself, with a sentence; else a traceback of internals."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    is_raised = "/hypergrad/" in frame.filename and (line.startswith("raise") or isinstance(error, HypergradError))
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, OURS) and is_raised and str(error).rstrip().endswith((".", ")", "?")):
        return Verdict(REFUSED, message)
    return Verdict(TRACEBACK, f"{message} [{frame.filename.split('/hypergrad/')[-1]}:{frame.lineno} {line}]")


Given = tuple[Tensors, Tensors, Any]
"""λ, w and the carry with which an estimate begins."""


def _run(case: Case) -> tuple[RandomProblem, hg.Hypergradient, Given]:
    kind, call = case.call.kind, case.call
    problem = (LayeredProblem if kind == "layers" else RandomProblem)(case.spec)
    tuned = problem.supervised() if isinstance(problem, LayeredProblem) else problem
    hparams, params = tuned.init_hparams(), tuned.init_params()
    if kind not in ("unrolled", "forward") and call.point != "start":
        params = _solved(problem, hparams, params, call)
    if kind == "function":
        return problem, _of_functions(problem, hparams, params, call), (hparams, params, None)
    estimator, carry = call.make(), None
    if kind == "single loop":
        for step in range(call.moves):
            before = estimator.estimate(tuned, hparams, params, outer_step=step, inner_step=step, carry=carry)
            params, carry = before.params, before.carry
        where = {"outer_step": call.moves, "inner_step": call.moves}
        return problem, estimator.estimate(tuned, hparams, params, **where, carry=carry), (hparams, params, carry)
    found = estimator.estimate(tuned, hparams, params)
    if call.online:
        found = estimator.estimate(
            tuned, hparams, found.params, outer_step=1, inner_step=call.inner_steps, carry=found.carry
        )
    return problem, found, (hparams, params, None)


def _of_functions(problem: RandomProblem, hparams: Tensors, params: Tensors, call: Call) -> hg.Hypergradient:
    estimator = call.make()
    assert isinstance(estimator, hg.Implicit)
    return hg.hypergradient(
        lambda w, hp: problem.inner_loss(w, hp, None),
        lambda w, hp: problem.outer_loss(w, hp, None),
        params,
        hparams,
        linsolve=estimator.linsolve,
        product=estimator.product,
        damping=estimator.damping,
        error_bar=estimator.error_bar,
    )


def _solved(problem: RandomProblem, hparams: Tensors, params: Tensors, call: Call) -> Tensors:
    """The optimum in the dtype of the problem, or a point near it; the given parameters if there is none."""
    try:
        found = Known.of(problem).stationary(flat(of_tensors(params)), of_tensors(hparams))
    except ZeroDivisionError:  # λ was rounded to a bound
        return params
    if found is None:
        return params
    w = torch.from_numpy(found.astype(float))
    if call.point == "near":
        w = w + 10.0**call.away * w.norm() * torch.from_numpy(np.random.default_rng(0).standard_normal(len(w)))
    return unflatten(w.to(problem.start), params)
