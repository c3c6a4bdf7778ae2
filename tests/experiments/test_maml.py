"""`maml`, `few_shot` and `imaml` at a tiny size: their meta-gradients, what they learn, and what they hold."""

from pathlib import Path

import pytest
import torch
from test_canonical import assert_differences_agree, configured

import hypergrad as hg
from experiments.imaml.live_bytes import LiveBytes

ROOT = Path(__file__).parent.parent.parent
TINY = ["problem.model.hidden=[8,8]", "problem.tasks_per_step=3", "problem.test_tasks=4"]


QUICK = ["problem.model.hidden=[20,20]", "outer_steps=75", "optimizer.lr=0.02"]
EXACT = {"maml": [], "few_shot": [], "imaml": ["estimator.inner_tol=1e-13", "linsolve.tol=1e-11"]}


@pytest.mark.parametrize("name", EXACT)
def test_the_meta_gradient_of_its_default_is_that_of_differences(name):
    trainer = configured(name, *TINY, *EXACT[name])
    assert isinstance(trainer.problem, hg.MetaLearning)
    assert_differences_agree(trainer.problem, trainer.estimator, trainer.problem.init_hparams(), step=1e-5, rel=1e-5)


def test_a_learned_start_is_worth_more_after_one_step_than_before_and_than_a_random_one():
    trainer = configured("maml", *TINY, "problem.test_tasks=100", "problem.tasks_per_step=10", *QUICK)
    first, last = (record.metrics for record in ends(trainer))
    assert last["test_loss"] < 0.75 * first["test_loss"]
    assert last["test_loss"] < 0.75 * last["test_loss_before"]


def test_a_start_that_was_learned_on_some_classes_serves_others():
    trainer = configured("few_shot", *TINY, "problem.test_tasks=100", "outer_steps=40", "optimizer.lr=0.01")
    first, last = (record.metrics for record in ends(trainer))
    assert last["test_accuracy"] > first["test_accuracy"] + 0.1
    assert last["test_accuracy"] > 0.5  # a guess is right in a third


def test_implicit_meta_learning_lowers_the_loss_on_held_out_tasks():
    trainer = configured("imaml", *TINY, "outer_steps=6", "optimizer.lr=0.05", "estimator.error_bar=false")
    first, last = (record.metrics for record in ends(trainer))
    assert last["test_loss"] < first["test_loss"]


def ends(trainer):
    result = trainer.fit()
    return result.first, result.last


def peak(problem, estimator):
    with LiveBytes() as count:
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    return count.peak


def test_an_implicit_meta_gradient_holds_no_more_after_more_inner_steps():
    problem = configured("imaml", *TINY).problem
    solver, cg = hg.GradientDescent(lr=0.01), hg.CG(tol=0.1)

    def implicit(steps):
        return hg.Implicit(solver=solver, linsolve=cg, inner_steps=steps, inner_tol=0.0, damping=10.0, error_bar=False)

    few, many = (peak(problem, implicit(steps)) for steps in (6, 60))
    assert many <= 1.01 * few
    few, many = (peak(problem, hg.Unrolled(solver=solver, inner_steps=steps)) for steps in (6, 60))
    assert many > 5 * few


def test_live_bytes_counts_what_lives():
    with LiveBytes() as count:
        a = torch.zeros(100)
        b = a.view(10, 10)
        del a
        assert count.live == 800
        c = b + 1
        assert count.live == 1600
        del b
        d = c.t() * 2
        assert count.live == 1600
        del c, d
    assert (count.live, count.peak) == (0, 1600)


@pytest.mark.parametrize("name", ["maml", "imaml"])
def test_it_has_its_readme_and_its_row(name):
    text = (ROOT / "experiments" / name / "README.md").read_text()
    for part in ("**Question.**", "**Command.**", "**Answer**", "**What did not work.**", f"experiment={name}"):
        assert part in text
    assert f"]({name}/README.md)" in (ROOT / "experiments" / "README.md").read_text()
