"""A layer that solves a convex programme, as an inner problem: its own gradient, and that of differences."""

import sys
from functools import partial
from typing import Any

import cvxpy as cp
import pytest
import torch
from tables import relative_error

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, leaves

# cvxpylayers 1.2 says this of numpy 2 at each call.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
TIGHT = {"eps": 1e-9, "max_iters": 100000}
SOLVED = hg.Implicit(solver=hg.FixedPoint(rate=1.0), linsolve=hg.GMRES(), error_bar=False)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """For a batch diffcp makes pools of threads, one for each core, and leaves them open, which Python warns of."""
    monkeypatch.setattr("diffcp.cone_program.mp.cpu_count", lambda: 1)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def own_gradient(problem, hparams):
    """Plain autograd through the layer."""
    point = leaves(hparams)
    loss = problem.outer_loss(problem.solution(point), point, None)
    return dict(zip(point, torch.autograd.grad(loss, list(point.values())), strict=True))


class Weighted(hg.ConvexLayer):
    """x = argmin ½ xᵀ(AᵀA + e^λ I)x − bᵀx and y = 2 x₀ by a formula, under a name of its own."""

    calls = 0

    def __init__(self, variables=("x", "y"), **settings):
        super().__init__(self.formula, variables, **settings)

    def formula(self, A, b, ridge, solver_args=None):
        self.calls += 1
        x = torch.linalg.solve(A.T @ A + ridge * torch.eye(3), b)
        return x, 2 * x[:1]

    def layer_parameters(self, hparams):
        return hparams["A"], hparams["b"] + hparams["log"], hparams["log"].exp()

    def hyperparameters(self):
        spaces = {"A": drawn(0, 4, 3), "b": drawn(1, 3), "log": torch.tensor(0.3)}
        return {name: hg.Hyperparameter(value) for name, value in spaces.items()}

    def outer_loss(self, params, hparams, batch):
        return (params["x"] ** 2).sum() + params["y"].exp().sum() * hparams["log"]


ESTIMATORS = {
    "fixed point": SOLVED,
    "conjugate gradient": hg.Implicit(solver=hg.FixedPoint(rate=1.0), error_bar=False),
    "unrolled": hg.Unrolled(solver=hg.FixedPoint(rate=1.0), inner_steps=1),
    "gradient descent": hg.Implicit(solver=hg.GradientDescent(lr=0.5), inner_tol=1e-13, error_bar=False),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_hypergradient_is_the_layers_own_with_the_direct_term(estimator):
    problem = Weighted()
    hparams = problem.init_hparams()
    found = estimator.estimate(problem, hparams, problem.init_params())
    assert relative_error(found.grad, own_gradient(problem, hparams)) < 1e-10

    def dev_loss(hp):
        return problem.outer_loss(problem.solution(hp), hp, None)

    for name, value in hparams.items():
        direction = {k: torch.zeros_like(x) for k, x in hparams.items()} | {name: drawn(5, *value.shape)}
        truth = central_difference(dev_loss, hparams, direction, step=1e-5).item()
        assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(truth, rel=1e-6)


def test_an_estimate_calls_the_layer_once_to_solve_it_and_once_to_differentiate_it():
    problem = Weighted()
    hparams, start = problem.init_hparams(), problem.init_params()
    before = problem.calls
    moved = hparams | {"log": torch.tensor(0.5)}
    found = SOLVED.estimate(problem, moved, start)
    assert problem.calls == before + 2
    assert found.stats["inner_status"] == "converged"
    assert found.stats["inner_grad_norm"] == 0


def test_what_is_remembered_is_not_what_was_changed_in_place():
    problem = Weighted()
    hparams = problem.init_hparams()
    with torch.no_grad():
        first = problem.solution(hparams)["x"].clone()
        hparams["A"].mul_(2)
        assert not torch.allclose(problem.solution(hparams)["x"], first)


def test_variables_without_a_name_and_layers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="must name the 2 tensors that the layer returns, but it is x"):
        Weighted(("x",)).init_params()
    with pytest.raises(TypeError, match="as a CvxpyLayer does, but it is None"):
        hg.ConvexLayer.__init__(Weighted(), None)  # type: ignore[arg-type]


class Programme(hg.ConvexLayer):
    """min ½ ‖R z‖² + pᵀz with G z ≤ h and a z = c, for two p at once that share the rest."""

    def __init__(self):
        z, R, p, G, h = cp.Variable(4), cp.Parameter((4, 4)), cp.Parameter(4), cp.Parameter((3, 4)), cp.Parameter(3)
        a, c = cp.Parameter((1, 4)), cp.Parameter(1)
        programme = cp.Problem(cp.Minimize(cp.sum_squares(R @ z) / 2 + p @ z), [G @ z <= h, a @ z == c])
        super().__init__(hg.cvxpy_layer(programme, [R, p, G, h, a, c], [z]), ("z",), solver_args=TIGHT)

    def layer_parameters(self, hparams):
        return [hparams[name] for name in ("R", "p", "G", "h", "a", "c")]

    def hyperparameters(self):
        values = {
            "R": torch.eye(4) + 0.2 * drawn(0, 4, 4),
            "p": drawn(1, 2, 4),
            "G": drawn(2, 3, 4),
            "h": 0.1 + drawn(3, 3).abs(),
            "a": drawn(4, 1, 4),
            "c": 0.1 * drawn(5, 1),
        }
        return {name: hg.Hyperparameter(value) for name, value in values.items()}

    def outer_loss(self, params, hparams, batch):
        return (params["z"] * drawn(6, 2, 4)).sum() + (params["z"] ** 2).sum()


def test_a_batch_of_cvxpy_programmes_and_what_they_share():
    problem = Programme()
    hparams = problem.init_hparams()
    found = SOLVED.estimate(problem, hparams, problem.init_params())
    z, G, h = found.params["z"], hparams["G"], hparams["h"]
    slack = h - z @ G.T
    assert slack.min() > -1e-8
    assert (slack < 1e-6).any()  # a constraint is at work, and another is not
    assert (slack > 1e-3).any()
    assert relative_error(found.grad, own_gradient(problem, hparams)) < 1e-8

    def dev_loss(hp):
        return problem.outer_loss(problem.solution(hp), hp, None)

    for name, value in hparams.items():
        direction = {k: torch.zeros_like(x) for k, x in hparams.items()} | {name: drawn(7, *value.shape)}
        with torch.no_grad():
            truth = central_difference(dev_loss, hparams, direction, step=1e-5).item()
        assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(truth, rel=1e-5), name


class Denoising(hg.ConvexLayer):
    """The programme of `hg.TotalVariation` on its own signals, with strength · D as the layer's one matrix."""

    def __init__(self, signals):
        m, size = signals.noisy.shape[1] - 1, signals.noisy.shape[1]
        z, y, matrix = cp.Variable(size), cp.Parameter(size), cp.Parameter((m, size))
        programme = cp.Problem(cp.Minimize(cp.sum_squares(z - y) / 2 + cp.norm1(matrix @ z)))
        super().__init__(hg.cvxpy_layer(programme, [y, matrix], [z]), ("z",), solver_args=TIGHT)
        self.signals = signals

    def layer_parameters(self, hparams):
        return self.signals.noisy, hparams["strength"] * hparams["filters"]

    def hyperparameters(self):
        return self.signals.hyperparameters()

    def outer_loss(self, params, hparams, batch):
        rows = slice(None, self.signals.num_dev)
        return (params["z"][rows] - self.signals.clean[rows]).square().mean()


def test_total_variation_by_cvxpy_is_total_variation_by_projected_gradient():
    signals = hg.TotalVariation(size=8, num_dev=3, num_test=2, seed=2)
    problem, hparams = Denoising(signals), signals.init_hparams()
    hparams["filters"] = hparams["filters"] + 0.1 * drawn(3, 7, 8)
    theirs = SOLVED.estimate(problem, hparams, problem.init_params())
    kkt = hg.Implicit(
        solver=hg.FixedPoint(rate=1.0), linsolve=hg.GMRES(tol=1e-11, max_iter=500), inner_steps=20000, inner_tol=1e-11
    )
    ours = kkt.estimate(signals, hparams, signals.init_params())
    torch.testing.assert_close(theirs.params["z"], signals.denoised(ours.params, hparams), rtol=0, atol=1e-7)
    assert theirs.outer_loss == pytest.approx(ours.outer_loss, rel=1e-7)
    assert relative_error(theirs.grad, ours.grad) < 1e-5


def test_descent_through_a_cvxpy_layer_lowers_the_dev_loss_as_that_of_hand_written_training():
    signals = hg.TotalVariation(size=8, num_dev=3, num_test=2, seed=2)
    problem = Denoising(signals)
    adam = partial(torch.optim.Adam, lr=0.05)
    result = hg.fit(problem, SOLVED, adam, 5, progress=False)
    by_hand = hg.TotalVariation(size=8, num_dev=3, num_test=2, seed=2)
    kkt = hg.Implicit(
        solver=hg.FixedPoint(rate=1.0), linsolve=hg.GMRES(tol=1e-10), inner_steps=9000, inner_tol=1e-10, error_bar=False
    )
    other = hg.fit(by_hand, kkt, adam, 5, progress=False)
    assert result.last.outer_loss < result.first.outer_loss
    assert result.last.outer_loss == pytest.approx(other.last.outer_loss, rel=1e-4)


class Small(hg.ConvexLayer):
    """min x² with x ≥ λ and x ≤ 1, which has no solution above 1."""

    def __init__(self, **settings: Any):
        x, low = cp.Variable(1), cp.Parameter(1)
        programme = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= low, x <= 1])
        super().__init__(hg.cvxpy_layer(programme, [low], [x]), **settings)

    def layer_parameters(self, hparams):
        return [hparams["low"]]

    def hyperparameters(self):
        return {"low": hg.Hyperparameter(0.5, shape=(1,))}

    def outer_loss(self, params, hparams, batch):
        return params["x"].square().sum()


def test_a_programme_without_a_solution_is_told_so():
    with pytest.raises(hg.HypergradError, match="The layer found no solution: .*infeasible.* so that the programme"):
        SOLVED.estimate(Small(), {"low": torch.tensor([2.0])}, {"x": torch.zeros(1)})


def test_single_precision_stays_single():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        problem = Small()
        found = SOLVED.estimate(problem, problem.init_hparams(), problem.init_params())
    finally:
        torch.set_default_dtype(before)
    assert found.grad["low"].dtype == found.params["x"].dtype == torch.float32
    assert found.grad["low"].item() == pytest.approx(1, rel=1e-3)


def test_without_cvxpylayers_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpylayers.torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'torch-hypergrad\[convex\]'"):
        hg.cvxpy_layer(None, [], [])
