"""TAPES × SOLVERS × PROBLEMS: one hypergradient, whatever the tape, and the one that retraining gives."""

import gc

import pytest
import torch
from runs import SOLVERS, STEPS, case, problems, slope
from tables import relative_error
from torch import nn

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.states import entries

TAPES: dict[str, hg.Tape] = {
    "graph": hg.Graph(),
    "store": hg.Store(),
    "checkpoint": hg.Checkpoint(),
    "checkpoint-1": hg.Checkpoint(slots=1),
    "checkpoint-3": hg.Checkpoint(slots=3),
    "checkpoint-all": hg.Checkpoint(slots=STEPS),
    "auto": hg.AutoTape(),
    "auto-small": hg.AutoTape(budget=5e4),
    "reversible": hg.Reversible(),
}
SERVED = [(tape, solver) for tape in TAPES for solver in SOLVERS if tape != "reversible" or solver == "momentum"]
EVERY_TAPE_AND_SOLVER = pytest.mark.parametrize(("tape", "solver"), SERVED)
# The others give the bits of Graph, see `test_all_tapes_agree_to_the_bit`.
SOME_TAPES_AND_EVERY_SOLVER = pytest.mark.parametrize(
    ("tape", "solver"),
    [
        pytest.param(*pair, marks=[] if pair[0] in ("graph", "auto-small", "reversible") else pytest.mark.slow)
        for pair in SERVED
    ],
)
EVERY_TAPE = pytest.mark.parametrize("tape", TAPES.values(), ids=TAPES)
EVERY_PROBLEM = pytest.mark.parametrize("problem", problems())


def by_hand(problem, solver, hparams, start, horizon, first_step=0):
    """Autograd through the whole run in one graph; λ, where training started, and their gradients."""
    hp = {name: value.detach().clone().requires_grad_() for name, value in hparams.items()}
    w = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    dynamics, state = Dynamics(problem, solver, hp, first_step), solver.start(problem, w, hp)
    for t in range(STEPS):
        if t == STEPS - horizon > 0:
            state = {group: {k: x.detach() for k, x in tensors.items()} for group, tensors in state.items()}
        state = dynamics.transition(state, t)
    loss = problem.outer_loss(solver.params(state), hp, problem.outer_batch(0))
    wanted = (*hp.values(), *w.values())
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return dict(zip(hp, grads, strict=False)), dict(zip(w, grads[len(hp) :], strict=True))


@EVERY_PROBLEM
@EVERY_TAPE_AND_SOLVER
def test_is_autograd_through_the_whole_run(tape, solver, problem):
    require_autograd(tape, solver, problem, STEPS)


@pytest.mark.parametrize("horizon", [5, 1])
@EVERY_PROBLEM
@SOME_TAPES_AND_EVERY_SOLVER
def test_is_autograd_through_the_last_steps(tape, solver, problem, horizon):
    require_autograd(tape, solver, problem, horizon)


def require_autograd(tape, solver, problem, horizon):
    problem, solver, hparams, start = case(problem, solver)
    estimator = hg.Unrolled(solver=solver, tape=TAPES[tape], inner_steps=STEPS, horizon=horizon)
    if horizon < STEPS:
        hparams = {name: value for name, value in hparams.items() if name != "init_scale"}
        problem.initial = lambda params, hparams: params
    truth, truth_start = by_hand(problem, solver, hparams, start, horizon, first_step=24)
    found = estimator.estimate(problem, hparams, start, inner_step=24)
    assert relative_error(found.grad, truth) <= 1e-10
    if horizon < STEPS:
        assert found.start is None
        return
    assert found.start is not None
    scale = hparams.get("init_scale", torch.ones(()))
    pulled = found.start["params"] | ({"W": scale * found.start["params"]["W"]} if "W" in start else {})
    assert relative_error(pulled, truth_start) <= 1e-10


@EVERY_PROBLEM
@SOME_TAPES_AND_EVERY_SOLVER
def test_agrees_with_central_differences_through_retraining(tape, solver, problem):
    problem, solver, hparams, start = case(problem, solver)
    found = hg.Unrolled(solver=solver, tape=TAPES[tape], inner_steps=STEPS).estimate(problem, hparams, start)
    for name in hparams:
        direction, witness = slope(problem, solver, start, hparams, name)
        grads = {k: found.grad[k] if k == name else torch.zeros_like(v) for k, v in hparams.items()}
        assert flatten(grads) @ direction == pytest.approx(witness, rel=1e-6), name
    if "init_scale" not in hparams:
        assert found.start is not None
        direction, witness = slope(problem, solver, start, hparams, "params")
        assert flatten(found.start["params"]) @ direction == pytest.approx(witness, rel=1e-6)


@pytest.mark.parametrize("horizon", [STEPS, 7])
@EVERY_PROBLEM
@pytest.mark.parametrize("solver", SOLVERS)
def test_all_tapes_agree_to_the_bit(solver, problem, horizon, monkeypatch):
    """Plain unrolling keeps the whole run in one graph; others share one among a few steps, or have one for each."""
    problem, solver, hparams, start = case(problem, solver)
    if horizon < STEPS:
        hparams = {name: value for name, value in hparams.items() if name != "init_scale"}
        problem.initial = lambda params, hparams: params

    def found(tape, pieces=32):
        monkeypatch.setattr("hypergrad.tape.graph._PIECES", pieces)
        estimator = hg.Unrolled(solver=solver, tape=tape, inner_steps=STEPS, horizon=horizon)
        estimate = estimator.estimate(problem, hparams, start)
        return [*estimate.grad.values(), *estimate.params.values(), *entries(dict(estimate.start or {}))]

    plain = found(hg.Graph(), pieces=1)
    assert len(plain) > len(hparams)
    for others in (
        *(found(hg.Graph(), pieces) for pieces in (3, 32)),
        *(found(TAPES[name]) for name in ("store", "checkpoint", "checkpoint-1", "checkpoint-3", "checkpoint-all")),
    ):
        assert all(torch.equal(x, y) for x, y in zip(others, plain, strict=True))


@pytest.mark.parametrize("tape", [hg.Store(), hg.Checkpoint()], ids=["store", "checkpoint"])
@pytest.mark.parametrize("layer", [nn.Tanh, nn.GELU, lambda: nn.LayerNorm(33), nn.SiLU])
def test_the_tapes_of_a_network_agree_to_the_bit(layer, tape):
    """On tensors large enough for products to round by how they lie in memory; T = 70 puts two steps into a graph."""
    torch.manual_seed(0)
    parts = [(torch.randn(101, 17), torch.randint(0, 5, (101,))) for _ in range(2)]
    problem = hg.Supervised(
        model=nn.Sequential(nn.Linear(17, 33), layer(), nn.Linear(33, 5)),
        loss=nn.functional.cross_entropy,
        train=parts[0],
        dev=parts[1],
        hyperparameters={"l2": hg.L2(init=1e-3, per="tensor"), "rate": hg.Hyperparameter(0.1)},
        batch_size=40,
    )
    point = problem.init_hparams(), problem.init_params()
    found, plain = (
        hg.Unrolled(solver=hg.Momentum(lr="rate", momentum=0.5), tape=each, inner_steps=70).estimate(problem, *point)
        for each in (tape, hg.Graph())
    )
    assert relative_error(found.grad, plain.grad) <= 1e-12
    if layer is not nn.SiLU:  # whose derivative PyTorch computes by another formula where it is differentiated again
        assert all(torch.equal(found.grad[name], plain.grad[name]) for name in plain.grad)


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("tape", [name for name in TAPES if name != "reversible"])
def test_proximal_steps(tape, per_feature):
    """Their state begins with the start twice, and they stay at zero in some entries."""
    problem, solver = hg.Lasso(hg.diabetes(seed=1), per_feature=per_feature), hg.ProximalGradient()
    hparams = problem.init_hparams()
    start = {name: torch.linspace(-0.2, 0.3, w.numel()).view_as(w) for name, w in problem.init_params().items()}
    truth, truth_start = by_hand(problem, solver, hparams, start, STEPS)
    found = hg.Unrolled(solver=solver, tape=TAPES[tape], inner_steps=STEPS).estimate(problem, hparams, start)
    assert any((w == 0).any() and w.any() for w in found.params.values())
    assert relative_error(found.grad, truth) <= 1e-10
    assert found.start is not None
    assert relative_error(found.start["params"], truth_start) <= 1e-10
    for name in (*hparams, "params"):
        direction, witness = slope(problem, solver, start, hparams, name)
        grads = found.start["params"] if name == "params" else found.grad
        assert flatten(grads) @ direction == pytest.approx(witness, rel=1e-6), name


@pytest.mark.parametrize("estimator", [hg.Unrolled, hg.Forward])
def test_what_cannot_be_differentiated_or_trained_is_refused(estimator):
    for solver in (hg.LBFGS(), hg.Newton(), hg.CoordinateDescent()):
        with pytest.raises(ValueError, match=f"{estimator.__name__} differentiates .* {type(solver).__name__}"):
            estimator(solver=solver)
    lasso = hg.Lasso(hg.diabetes(seed=1))
    with pytest.raises(ValueError, match="Momentum needs a smooth inner loss, but that of Lasso has an L1 penalty"):
        estimator(solver=hg.Momentum()).estimate(lasso, lasso.init_hparams(), lasso.init_params())
    ridge = hg.Ridge(hg.diabetes(seed=1))
    with pytest.raises(ValueError, match="ProximalGradient trains an L1Problem"):
        estimator(solver=hg.ProximalGradient()).estimate(ridge, ridge.init_hparams(), ridge.init_params())


@EVERY_TAPE
def test_no_graph_outlives_its_outer_step(tape):
    problem, solver, hparams, start = case("network", "momentum")
    estimator = hg.Unrolled(solver=solver, tape=tape, inner_steps=3)

    def tensors_alive(outer_steps):
        params = start
        for k in range(outer_steps):
            params = estimator.estimate(problem, hparams, params, inner_step=3 * k).params
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    gc.collect()
    gc.disable()  # what only the cycle collector can free would count as kept
    try:
        few = tensors_alive(2)
        assert tensors_alive(15) == few
    finally:
        gc.enable()


def test_initial_weights_are_tuned_through_their_scale_alone():
    problem, solver, hparams, start = case("network", "momentum")
    found = hg.Unrolled(solver=solver, inner_steps=STEPS).estimate(problem, hparams, start)
    assert found.start is not None
    assert found.grad["init_scale"].item() == pytest.approx((found.start["params"]["W"] * start["W"]).sum().item())
    with pytest.raises(hg.UnusedHyperparameterError, match="'init_scale'.*neither the last 5 training steps"):
        hg.Unrolled(solver=solver, inner_steps=STEPS, horizon=5).estimate(problem, hparams, start)
