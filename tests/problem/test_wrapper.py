"""Problems around another one: what they pass on, and the chain rule."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.problem.supervised.supervised import on_splits


def classifier(**hyperparameters):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10)).double()
    return on_splits(hg.digits(), model=model, loss=cross_entropy, hyperparameters=hyperparameters)


class Root(hg.InnerProblem):
    """A condition that is no gradient: w = λ + w³/10, coupled with its neighbour."""

    def init_params(self):
        return {"w": torch.zeros(4)}

    def hyperparameters(self):
        return {"shift": hg.Hyperparameter(0.3, shape=(4,))}

    def inner_loss(self, params, hparams, batch):
        return self.optimality(params, hparams, batch)["w"].square().sum() / 2

    def optimality(self, params, hparams, batch):
        w = params["w"]
        return {"w": w - hparams["shift"] - w**3 / 10 - 0.2 * w.roll(1)}

    def outer_loss(self, params, hparams, batch):
        return (params["w"] * torch.arange(4)).sum().square()


UNROLLED = hg.Unrolled(solver=hg.GradientDescent(lr=0.5), inner_steps=5)
CASES = {
    "penalties": (lambda: classifier(p=hg.L2(init=0.01, per="tensor")), UNROLLED),
    "Gauss-Newton": (
        lambda: classifier(p=hg.L2(init=0.01, per="tensor")),
        hg.Implicit(inner_steps=5, product=hg.GaussNewton(), error_bar=False, linsolve=hg.CG(max_iter=3)),
    ),
    "initial scales": (lambda: classifier(p=hg.InitScale(init=1.0, per="tensor")), UNROLLED),
    "a root": (Root, hg.Implicit(inner_steps=200, linsolve=hg.GMRES(tol=1e-12), error_bar=False)),
}


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
@pytest.mark.parametrize(("make", "estimator"), CASES.values(), ids=CASES)
def test_the_hypergradient_by_a_tied_value_is_the_sum_over_its_entries(make, estimator):
    problem = make()
    (name,) = problem.hyperparameters()
    tied = hg.Tied(problem, name=name, groups=2)
    alone = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    found = estimator.estimate(tied, tied.init_hparams(), tied.init_params())
    assert found.outer_loss == alone.outer_loss
    assert found.stats["inner_steps"] == alone.stats["inner_steps"]
    expected = torch.zeros(2).index_add(0, tied.group, alone.grad[name])
    assert expected.norm() > 0
    torch.testing.assert_close(found.grad[name], expected, rtol=1e-12, atol=0)


def test_a_problem_that_changes_from_step_to_step_changes_inside():
    torch.manual_seed(0)
    model = nn.Linear(1, 1).double()
    tasks = hg.MetaLearning(model=model, loss=mse_loss, tasks=hg.Sinusoids(shots=5, queries=7), tasks_per_step=3)
    learning = hg.LearningToLearn(tasks, {"lr": hg.Hyperparameter(0.1)})
    now, w = learning.at_outer_step(3), learning.init_params()
    losses = [
        problem.inner_loss(w, hparams, None).item()
        for problem, hparams in (
            (learning, {}),
            (now, {}),
            (tasks, tasks.init_hparams()),
            (tasks.at_outer_step(3), tasks.init_hparams()),
        )
    ]
    assert losses[:2] == losses[2:]
    assert losses[0] != losses[1]


def test_an_l1_penalty_is_refused():
    with pytest.raises(ValueError, match="Tied needs a smooth inner loss, but Lasso has an L1 penalty"):
        hg.Tied(hg.Lasso(hg.diabetes(), per_feature=True), name="l1", groups=2)
