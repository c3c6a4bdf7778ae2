import pytest
import torch
from torch.nn.functional import cross_entropy

import hypergrad as hg
from experiments.weight_decay.cost import NEUMANN, TERMS
from experiments.weight_decay.table import ADAM, NEUMANN_STEP, EarlyStopping, Parts
from hypergrad.core.cost import Spent


def parts():
    """A network with a penalty for each weight, on the digits."""
    data = hg.digits(dev=0.3, test=0.4)
    torch.manual_seed(0)
    problem = hg.Supervised(
        model=torch.nn.Sequential(torch.nn.Linear(64, 5, bias=False), torch.nn.Tanh(), torch.nn.Linear(5, 10)),
        loss=cross_entropy,
        train=data.train,
        dev=(data.dev.X[::2], data.dev.y[::2]),
        test=data.test,
        hyperparameters={"l2": hg.L2(init=1e-3, per="weight")},
    )
    return Parts(problem, hg.Split(data.dev.X[1::2], data.dev.y[1::2]))


def test_a_hypergradient_is_two_gradients_and_a_product_for_each_term():
    problem, cost = parts().problem, Spent()
    judged = hg.Implicit(linsolve=NEUMANN, product=hg.GaussNewton(), inner_steps=0, error_bar=False)
    with cost.counting():
        found = judged.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.stats["num_matvecs"] == TERMS
    assert cost.gradients <= 2


def test_the_terms_are_those_of_the_series_by_dense_matrices():
    """−2 w_j x_j with x = s Σ_{k<K} (I − s G)^k ∂f/∂w, in which G is the damped Gauss–Newton matrix."""
    problem = parts().problem
    w, hparams = problem.init_params(), problem.init_hparams()
    flat = torch.cat([x.reshape(-1) for x in w.values()])

    def named(v):
        sizes = [x.numel() for x in w.values()]
        return {name: part.view_as(x) for (name, x), part in zip(w.items(), v.split(sizes), strict=True)}

    J = torch.func.jacrev(lambda v: problem.outputs(named(v), hparams, None))(flat)
    p = torch.softmax(problem.outputs(w, hparams, None), 1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    G = torch.einsum("nki,nkl,nlj->ij", J, curvature, J) / len(J) + torch.diag(2 * hparams["l2"])
    b = torch.func.grad(lambda v: problem.outer_loss(named(v), hparams, None))(flat)
    x, scale = torch.zeros_like(b), NEUMANN.scale
    for _ in range(TERMS):
        x = x + scale * (b - G @ x)
    judged = hg.Implicit(linsolve=NEUMANN, product=hg.GaussNewton(), inner_steps=0, error_bar=False)
    found = judged.estimate(problem, hparams, w).grad["l2"]
    torch.testing.assert_close(found, -2 * flat * x, rtol=1e-8, atol=1e-12)


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")  # ten terms of a series, after few steps
def test_early_stopping_keeps_the_step_of_the_lowest_loss_on_the_unseen_part():
    made = parts()
    stopping = EarlyStopping(made)
    run = hg.fit(made.problem, NEUMANN_STEP, ADAM, 6, progress=False, callbacks=[stopping])
    assert len(stopping.path["stop"]) == 7
    assert stopping.lowest == made.stop_loss(stopping.best.params) <= made.stop_loss(run.last.params)
    assert run.last.outer_loss < run.first.outer_loss
