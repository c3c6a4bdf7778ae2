"""What a hypergradient through training costs each of some ranks."""

import torch

from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.estimator.own_terms import OwnTerms
from hypergrad.estimator.rank_plan import Effort, Part, RankPlan
from hypergrad.estimator.rehearsal import Rehearsal
from hypergrad.estimator.tally import Tally
from hypergrad.solver.base import InnerSolver
from hypergrad.tape.auto import AutoTape
from hypergrad.tape.base import Tape
from hypergrad.tape.footprint import measure
from hypergrad.training.states import Partial


def plan_unrolled(rehearsal: Rehearsal, solver: InnerSolver, tape: Tape, inner_steps: int, horizon: int) -> RankPlan:
    """The parts of one estimate with eager steps.

    Raises:
        ValueError: if the tape does not serve the solver.
    """
    problem, hparams, params = rehearsal.problem, rehearsal.hparams, rehearsal.params
    run, look = rehearsal.cost(lambda: DifferentiatedRun.of(problem, solver, hparams, params, 0, inner_steps))
    own = OwnTerms.of(run)
    dynamics = own.run.dynamics
    with torch.no_grad():
        start = run.start()
        _, step = rehearsal.cost(lambda: dynamics.step(start, 0))
    outer, judge = rehearsal.cost(lambda: run.evaluate(start, 0))
    plain, measured, memory, gradients = inner_steps - horizon, 0, 0, 0
    if horizon > 0:
        footprint, steps = measure(dynamics, start, 0), range(inner_steps - horizon, inner_steps)
        cost = tape.cost(dynamics, footprint, steps)
        if cost is None:
            raise ValueError(f"{type(tape).__name__} does not serve {type(solver).__name__}; use Store or Checkpoint.")
        memory, gradients, measured = cost.memory, cost.gradients, 2 if isinstance(tape, AutoTape) else 0
    stretch, linearize = rehearsal.cost(lambda: dynamics.linearize(start, 0))
    _, whole = rehearsal.cost(lambda: stretch.pull_back(outer.adjoint))
    # The first step of the horizon is pulled back to λ alone, unless the start of training depends on λ.
    is_cut = horizon > 0 and not (horizon == inner_steps and run.moves_start)
    stretch = dynamics.linearize(start, 0)
    terms, last = rehearsal.cost(lambda: stretch.terms(outer.adjoint)[0])
    _, end = rehearsal.cost(lambda: own.sum(_filled(Tally(horizon, inner_steps), terms)))
    parts = [
        Part("loss and gradient at the start", 1, look),
        Part("training step", plain + max(gradients - horizon, 0), step),
        Part("training step with its graph", horizon + measured, linearize),
        Part("both losses at the end", 1, judge),
        Part("pull-back of a step", horizon - is_cut, whole),
        Part("pull-back of the first step", int(is_cut), last),
        Part("sum of the terms of all steps", int(end != Effort()), end),
    ]
    return RankPlan(rehearsal.world, parts, memory, rehearsal.itemsize)


def _filled(tally: Tally, terms: Partial) -> Tally:
    """A tally after all steps, as if all of them had these terms."""
    while tally.count < tally.horizon:
        tally.add(terms, min(max(tally.quarter, 1), tally.horizon - tally.count))
    return tally
