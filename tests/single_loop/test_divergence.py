"""Steps that are too large: an error that says which, with its bound, and a last good state on disk."""

import math
import re

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg


def message_of(method, lr, record_every=1, callbacks=(), problem=None):
    trainer = hg.Trainer(
        problem=LeastSquares() if problem is None else problem,
        estimator=hg.SingleLoop(method=method),
        optimizer=lambda u: torch.optim.SGD(u, lr=lr),
        outer_steps=400,
        record_every=record_every,
        callbacks=callbacks,
    )
    with pytest.raises(hg.DivergenceError) as caught:
        trainer.fit()
    return str(caught.value)


def gradient_descent(lr):
    return hg.GradientDescent(lr=lr)


UNSTABLE = {
    "inner": (hg.SOBA(solver=gradient_descent(1.5), adjoint_lr=0.1), "SOBA.solver.lr = 1.50e+00"),
    "adjoint": (hg.SOBA(solver=gradient_descent(0.1), adjoint_lr=2.0), "SOBA.adjoint_lr = 2.00e+00"),
    "amigo": (hg.AmIGO(solver=hg.Adam(lr=1e-3), adjoint_lr=2.0, inner_steps=1), "AmIGO.adjoint_lr = 2.00e+00"),
}


@pytest.mark.parametrize("record_every", [1, 20])
@pytest.mark.parametrize(("method", "said"), UNSTABLE.values(), ids=UNSTABLE)
def test_a_step_above_its_bound_is_named_with_the_bound(method, said, record_every):
    message = message_of(method, 1e-3, record_every)
    (move,) = re.findall(r"^Move (\d+) of", message)
    assert int(move) % record_every == 0
    assert int(move) <= 100
    assert "an inner loss of" in message
    assert said in message
    bound, curvature = re.findall(r"is above (\S+), .* of a batch, (\S+), at the last good point; lower it", message)[0]
    assert float(bound) == pytest.approx(2 / float(curvature), rel=0.02)
    assert f"in outer step {move}" in message


@pytest.mark.parametrize("record_every", [1, 20])
def test_a_large_step_of_the_hyperparameters_is_not_blamed_on_the_inner_one(record_every):
    message = message_of(hg.SOBA(solver=gradient_descent(0.1)), 20.0, record_every)
    assert "lower the lr of the outer optimiser" in message
    assert "is above" not in message


def test_a_penalty_that_grew_beyond_the_inner_step_says_so():
    class Pushed(LeastSquares):
        def outer_loss(self, params, hparams, batch):
            f, penalty = super().outer_loss(params, hparams, batch), hparams["penalty"]
            return f - penalty**2 - 10 * penalty.log()

    message = message_of(hg.SOBA(solver=gradient_descent(0.1)), 0.01, 5, problem=Pushed())
    assert "SOBA.solver.lr = 1.00e-01 is above" in message
    assert "with the initial λ that is 5." in message
    assert "So lower the lr of the outer optimiser, or keep λ in a range (hg.interval)" in message


def test_the_last_good_state_stays_on_disk(tmp_path):
    method = hg.SOBA(solver=gradient_descent(1.5), adjoint_lr=0.1)
    message = message_of(method, 1e-3, 10, [hg.StateSaver(folder=tmp_path)])
    assert "in outer step 20" in message
    state = torch.load(tmp_path / "state-000010.pt", weights_only=True)
    assert state["step"] == 10
    assert all(w.isfinite().all() for w in [*state["params"].values(), *state["hparams"].values()])
    assert not (tmp_path / "state-000020.pt").exists()


def test_a_run_that_starts_at_its_solution_may_leave_it():
    """Losses and gradients of 1e-30 grow by more than 10⁶, but nothing explodes."""

    class Solved(LeastSquares):
        def __init__(self):
            super().__init__()
            self.y, self.t, self.D = 0 * self.y, 0 * self.t, 0 * self.D

        def init_params(self):
            return {name: w + 1e-15 for name, w in super().init_params().items()}

        def hyperparameters(self):
            return super().hyperparameters() | {"shift": hg.Hyperparameter(torch.full((3,), 1e-15))}

        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) - hparams["shift"].sum() * 1e-3

    result = hg.Trainer(
        problem=Solved(),
        estimator=hg.SingleLoop(method=hg.SOBA(solver=gradient_descent(0.1))),
        optimizer=lambda u: torch.optim.SGD(u, lr=0.1),
        outer_steps=30,
    ).fit()
    assert math.isfinite(result.last.outer_loss)
