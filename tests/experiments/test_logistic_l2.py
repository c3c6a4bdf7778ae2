import pytest
import torch

import hypergrad as hg
from experiments.logistic_l2.table import brute_force, by_lbfgsb, estimator_of, problem_of
from hypergrad.core.autodiff import central_difference
from hypergrad.training.training import Training

SMALL = {"dev": 0.45, "test": 0.5}
EXACT = estimator_of(None, 1e-10)


@pytest.mark.parametrize("per", ["all", "feature", "weight"])
def test_the_hypergradient_is_that_of_differences(per):
    problem = problem_of(0, per, **SMALL)
    hparams, start = {"l2": 10 * problem.init_hparams()["l2"]}, problem.init_params()
    found = EXACT.estimate(problem, hparams, start)
    direction = {"l2": hparams["l2"] * torch.linspace(1, 2, hparams["l2"].numel()).reshape(hparams["l2"].shape)}

    def dev_loss(hp):
        return problem.outer_loss(
            Training(solver=hg.LBFGS(), steps=3000, tol=1e-11).run(problem, hp, found.params).params, hp, None
        )

    truth = central_difference(dev_loss, hparams, direction, step=1e-3).item()
    assert (found.grad["l2"] * direction["l2"]).sum().item() == pytest.approx(truth, rel=1e-5)


def test_tightening_ends_where_fixed_tolerances_do():
    problem = problem_of(0, "all", **SMALL)
    hparams, start = {"l2": torch.tensor(0.01)}, problem.init_params()
    loose = estimator_of("cubic")
    grads = [loose.estimate(problem, hparams, start, outer_step=k).grad["l2"].item() for k in (0, 100)]
    truth = EXACT.estimate(problem, hparams, start).grad["l2"].item()
    errors = [abs(grad / truth - 1) for grad in grads]
    assert errors[1] < 1e-4 < errors[0]


@pytest.mark.slow
def test_descent_ends_at_the_penalty_of_brute_force():
    problem = problem_of(1, "all", **SMALL)
    _, last = by_lbfgsb(problem)
    assert last.hparams["l2"].log().item() == pytest.approx(brute_force(problem), abs=1e-3)
