"""How the adjoint grows on the way back through training: known, and told where it explodes."""

import math

import pytest
import torch

import hypergrad as hg
from hypergrad.estimator.inexact import inexactness


class Waves(hg.InnerProblem):
    """g = cos(5 w + λ), on which a step of 1 throws w about, and a step of 0.01 leads to a minimum; f = w²."""

    def init_params(self):
        return {"w": torch.tensor(0.3)}

    def hyperparameters(self):
        return {"shift": hg.Hyperparameter(0.1)}

    def inner_loss(self, params, hparams, batch):
        return torch.cos(5 * params["w"] + hparams["shift"])

    def outer_loss(self, params, hparams, batch):
        return params["w"].square()


TAPES = [hg.Graph(), hg.Store(), hg.Checkpoint(slots=2)]


@pytest.mark.parametrize("tape", TAPES, ids=repr)
@pytest.mark.parametrize(("lr", "explodes"), [(1.0, True), (0.01, False)])
def test_it_is_the_product_of_the_slopes_of_the_steps(lr, explodes, tape):
    """w ↦ w + 5 lr sin(5 w + λ) has the slope 1 + 25 lr cos(5 w + λ); that of the first step is not needed."""
    problem, w, growth = Waves(), 0.3, 1.0
    for t in range(12):
        slope = 1 + 25 * lr * math.cos(5 * w + 0.1)
        growth *= abs(slope) if t > 0 else 1.0
        w += 5 * lr * math.sin(5 * w + 0.1)
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=lr), tape=tape, inner_steps=12)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.stats["adjoint_growth"] == pytest.approx(growth, rel=1e-6)
    assert ("adjoint_growth" in inexactness(found)) is explodes is (growth > 1e6)


def test_it_is_said_once_with_what_to_do():
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=1.0), inner_steps=12)
    with pytest.warns(hg.NotConvergedWarning, match="hypergradient explodes: .* Lower the solver's lr, .*by horizon"):
        hg.fit(Waves(), estimator, lambda u: torch.optim.SGD(u, lr=1e-12), 1, progress=False)
