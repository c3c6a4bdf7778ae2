"""Schedules against those of torch.optim."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim import lr_scheduler

import hypergrad as hg
import hypergrad.solver.schedule
from hypergrad.training.dynamics import Dynamics

BASE, STEPS = 0.3, 30
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "schedule").glob("*.yaml"))
SCHEDULES = {
    "cosine": (
        hg.Cosine(base=BASE, steps=20, end=0.1),
        # past its end, torch's cosine rises again and ours stays
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1 * BASE), lr_scheduler.ConstantLR(o, 0.1, 100)],
            [20],
        ),
    ),
    "step": (hg.StepDecay(base=BASE, every=7, ratio=0.4), lambda o: lr_scheduler.StepLR(o, 7, gamma=0.4)),
    "inverse root": (hg.InverseRoot(base=BASE), lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / math.sqrt(1 + t))),
    "inverse power": (
        hg.InverseRoot(base=BASE, power=0.4),
        lambda o: lr_scheduler.LambdaLR(o, hg.InverseRoot(base=1.0, power=0.4)),
    ),
    "warm-up": (hg.Warmup(base=BASE, steps=9), lambda o: lr_scheduler.LinearLR(o, 1 / 9, total_iters=8)),
    "warm-up of a step": (
        hg.Warmup(base=hg.StepDecay(base=BASE, every=7, ratio=0.4), steps=9),
        lambda o: lr_scheduler.ChainedScheduler([
            lr_scheduler.StepLR(o, 7, gamma=0.4),
            lr_scheduler.LinearLR(o, 1 / 9, total_iters=8),
        ]),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("schedule", "theirs"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_values_are_those_of_torch(schedule, theirs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler, expected = theirs(optimizer), []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert schedule.values(STEPS).tolist() == pytest.approx(expected, rel=1e-12)
    assert [schedule(t) for t in range(STEPS)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in SCHEDULES.values()], ids=SCHEDULES)
def test_a_fixed_schedule_and_a_tuned_one_that_starts_at_it_train_alike(schedule):
    """The first as a coefficient, the second as the initial values of a hyperparameter."""

    class Tuned(hg.Quadratic):
        def hyperparameters(self):
            values = schedule.values(STEPS)
            base = {"base": hg.Hyperparameter(BASE)}
            return super().hyperparameters() | base | {"lr": hg.Hyperparameter(values, constraint=hg.positive)}

    problem = Tuned(size=4)
    hparams, start = problem.init_hparams(), problem.init_params()

    def end(lr):
        state = (solver := hg.Momentum(lr=lr)).init(start)
        for t in range(STEPS):
            state = Dynamics(problem, solver, hparams).step(state, t)
        return solver.params(state)["a"]

    named = _rebased(schedule, "base")
    assert torch.allclose(end(schedule), end("lr"), rtol=1e-12)
    assert torch.allclose(end(schedule), end(named), rtol=1e-12)


def _rebased(schedule: Any, base: str) -> Any:
    inner = schedule.base
    return replace(schedule, base=_rebased(inner, base) if isinstance(inner, hg.Schedule) else base)


def test_a_schedule_over_a_hyperparameter_passes_its_derivative_on():
    """dF/dbase = Σ_t factor(t) dF/dlr_t."""
    schedule = hg.Cosine(base="base", steps=6)
    values = torch.tensor([schedule.factor(t) for t in range(6)])

    class Tuned(hg.Quadratic):
        def hyperparameters(self):
            return super().hyperparameters() | {"base": hg.Hyperparameter(0.1), "lr": hg.Hyperparameter(0.1 * values)}

        def outer_loss(self, params, hparams, batch):
            unseen = 0 * (hparams["lr"].sum() + hparams["base"])  # each run uses only one of the two
            return super().outer_loss(params, hparams, batch) + unseen

    problem = Tuned(size=4)

    def hypergradient(lr):
        estimator = hg.Unrolled(solver=hg.GradientDescent(lr=lr), inner_steps=6)
        return estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad

    assert hypergradient(schedule)["base"].item() == pytest.approx(
        (values @ hypergradient("lr")["lr"]).item(), rel=1e-10
    )


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        (hg.Cosine, {"base": 0.1, "steps": 0}, "Cosine.steps must be at least 1, but it is 0"),
        (hg.Cosine, {"base": 0.1, "steps": 5, "end": 1.5}, "Cosine.end must be at most 1, but it is 1.5"),
        (hg.Cosine, {"base": None, "steps": 5}, "Cosine.base must be a number, but it is None"),
        (hg.StepDecay, {"base": 0.1, "every": 2.5}, "StepDecay.every must be an integer, but it is 2.5"),
        (hg.StepDecay, {"base": 0.1, "every": 2, "ratio": 0.0}, "StepDecay.ratio must be greater than 0"),
        (hg.InverseRoot, {"base": 0.1, "power": 1.5}, "InverseRoot.power must be at most 1, but it is 1.5"),
        (hg.Warmup, {"base": math.inf, "steps": 5}, "Warmup.base must be finite, but it is inf"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_schedule_out_of_range_is_refused(kind, setting, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kind(**setting)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_schedule_has_a_config_with_all_of_its_settings(path):
    config = yaml.safe_load(path.read_text())
    kind = getattr(hg, config.pop("_target_").rsplit(".", 1)[1])
    assert set(config) == {field.name for field in fields(kind)}
    kind(**config | ({"steps": 5} if "steps" in config else {}))
    assert len(CONFIGS) == len(hg.Schedule.__subclasses__())


def test_the_values_of_a_schedule_over_a_name_are_not_known():
    with pytest.raises(TypeError, match="Cosine.base is the name 'lr'"):
        hg.Warmup(base=hg.Cosine(base="lr", steps=3), steps=2).values(3)
    with pytest.raises(TypeError, match="InverseRoot.base is the name 'lr'"):
        hg.InverseRoot(base="lr")(3)
