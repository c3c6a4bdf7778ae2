"""Influence through training, against training again with another weight of an example."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.peak import PeakBytes
from hypergrad.influence.terms import Terms
from hypergrad.training.training import Training

STEPS = 12
SOLVERS = {
    "gradient descent": hg.GradientDescent(lr=0.3),
    "momentum": hg.Momentum(lr=0.1, momentum=0.7),
    "nesterov": hg.Momentum(lr=0.1, momentum=0.6, nesterov=True, weight_decay=0.1),
    "adam": hg.Adam(lr=0.05, eps=1e-3),
    "adagrad": hg.Adagrad(lr=0.1),
    "a learning rate that is a hyperparameter": hg.Momentum(lr=hg.Cosine(base="lr", steps=STEPS), momentum=0.5),
}
EVERY = torch.arange(9)
"""All dev examples."""


def network(middle: nn.Module | None = None, **settings) -> hg.Supervised:
    """A network on 20 train and 9 dev examples in 3 features and 3 classes, trained on batches of 8."""
    torch.manual_seed(0)
    X, y = torch.randn(29, 3), torch.randint(3, (29,))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), middle or nn.Identity(), nn.Linear(4, 3))
    given = {"model": model, "loss": cross_entropy, "batch_size": 8, "hyperparameters": {"l2": hg.L2(init=0.02)}}
    return hg.Supervised(train=(X[:20], y[:20]), dev=(X[20:], y[20:]), **given | settings)


def through(problem: hg.Supervised, solver: hg.InnerSolver, inner_steps: int = STEPS, **settings: Any) -> Tensor:
    """The scores of all dev examples, and as a last row of their mean."""
    method = hg.UnrolledInfluence(solver=solver, inner_steps=inner_steps, **settings)
    run = method.train(problem, problem.init_hparams())
    return torch.cat([run.scores(EVERY), run.scores()[None]])


def slopes(problem: hg.Supervised, solver: hg.InnerSolver, example: int, step: float = 1e-4) -> Tensor:
    """−∂f_j/∂ω_i for all dev examples j and one train example i, by training again."""
    weighted = problem.weighted("c", whole=False)
    hparams = weighted.init_hparams()

    def losses(weight: float) -> Tensor:
        moved = hparams | {"c": hparams["c"].index_fill(0, torch.tensor(example), weight)}
        trained = Training(solver=solver, steps=STEPS).run(weighted, moved, problem.init_params()).params
        return Terms(problem, trained, problem.init_hparams(), 1).dev(trained, slice(0, 9)).detach()

    return (losses(1 - step) - losses(1 + step)) / (2 * step)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_scores_are_the_slopes_of_training_again(solver):
    uses = {} if isinstance(solver.coefficients()["lr"], float) else {"lr": hg.Hyperparameter(0.2)}
    problem = network(nn.Dropout(0.3), hyperparameters={"l2": hg.L2(init=0.02)} | uses)
    found = through(problem, solver, dev_block=4)
    for example in (0, 7, 13):
        wanted = slopes(problem, solver, example)
        torch.testing.assert_close(found[:-1, example], wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item())
    torch.testing.assert_close(found[-1], found[:-1].mean(0), rtol=1e-12, atol=1e-14)


def test_it_is_what_implicit_differentiation_gives_at_the_optimum():
    problem = network(nn.Linear(4, 4), batch_size=None, hyperparameters={"l2": hg.L2(init=0.1)})
    solver, hparams = hg.Momentum(lr=0.3, momentum=0.8), problem.init_hparams()
    run = hg.UnrolledInfluence(solver=solver, inner_steps=700).train(problem, hparams)
    wanted = hg.influence_scores(problem, run.params, hparams)
    torch.testing.assert_close(run.scores(EVERY), wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item())
    few = hg.UnrolledInfluence(solver=solver, inner_steps=20).train(problem, hparams).scores(EVERY)
    assert (few - wanted).norm() > 0.1 * wanted.norm()


def test_it_is_one_of_the_methods_and_trains_by_itself():
    problem, hparams = network(nn.Dropout(0.3)), network().init_hparams()
    method = hg.UnrolledInfluence(solver=hg.Adam(lr=0.05), inner_steps=STEPS)
    run = method.train(problem, hparams)
    elsewhere = {name: w + 1 for name, w in run.params.items()}
    rows = torch.tensor([4, 2])
    assert torch.equal(hg.influence_scores(problem, elsewhere, hparams, method=method, dev=rows), run.scores(rows))
    assert torch.equal(hg.influence_scores(problem, elsewhere, hparams, method=method, mean=True), run.scores())
    trained = Training(solver=method.solver, steps=STEPS).run(problem, hparams, problem.init_params()).params
    assert all(torch.allclose(w, trained[name], rtol=1e-12) for name, w in run.params.items())
    assert run.dev_loss == pytest.approx(problem.outer_loss(trained, hparams, None).item())


@pytest.mark.parametrize("solver", [hg.Adam(lr=0.05), hg.Momentum(lr=0.1)], ids=["adam", "momentum"])
def test_the_bits_do_not_depend_on_the_tape(solver):
    problem = network(nn.Dropout(0.3))
    found = [through(problem, solver, tape=tape) for tape in (hg.Graph(), hg.Store(), hg.Checkpoint(slots=2))]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_steps_that_share_a_graph_give_the_same():
    problem, solver = network(), hg.Momentum(lr=0.1)
    shared = through(problem, solver, inner_steps=70, tape=hg.Graph())
    torch.testing.assert_close(shared, through(problem, solver, inner_steps=70), rtol=1e-12, atol=1e-14)


def test_the_reversible_tape_takes_several_adjoints():
    problem, solver = network(), hg.Momentum(lr=0.1)
    torch.testing.assert_close(through(problem, solver, tape=hg.Reversible()), through(problem, solver))


def test_a_block_is_the_same_by_itself():
    method = hg.UnrolledInfluence(solver=hg.Adam(lr=0.05), inner_steps=STEPS, dev_block=4)
    run = method.train(network(), network().init_hparams())
    whole = run.scores(EVERY)
    again = method.train(network(), network().init_hparams())
    for block in EVERY.split(4):
        assert torch.equal(again.scores(block), whole[block])
    one = through(network(), method.solver, dev_block=1)[:-1]
    torch.testing.assert_close(one, whole, rtol=1e-12, atol=1e-15)


def test_the_last_steps_alone():
    solver, K = hg.GradientDescent(lr=0.3), 5
    problem = network(nn.Dropout(0.3))
    hparams = problem.init_hparams()
    found = through(problem, solver, horizon=K)
    middle = Training(solver=solver, steps=STEPS - K).run(problem, hparams, problem.init_params()).params
    weighted = problem.weighted("c", whole=False)
    at = weighted.init_hparams()

    def loss(weight: float) -> float:
        moved = at | {"c": at["c"].index_fill(0, torch.tensor(3), weight)}
        trained = Training(solver=solver, steps=K).run(weighted, moved, middle, first_step=STEPS - K).params
        return problem.outer_loss(trained, hparams, None).item()

    assert found[-1, 3].item() == pytest.approx((loss(1 - 1e-4) - loss(1 + 1e-4)) / 2e-4, rel=1e-6)
    assert torch.equal(through(problem, solver, horizon=STEPS), through(problem, solver))


class Square(torch.autograd.Function):
    """x², whose derivative cannot be batched."""

    @staticmethod
    def forward(ctx, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return 2 * x * grad if bool(grad.isfinite().all()) else grad


class Squared(nn.Module):
    def __init__(self, square):
        super().__init__()
        self.square = square

    def forward(self, x):
        return x + 0.1 * self.square(x)


def test_an_operation_without_a_batched_rule_goes_back_one_by_one():
    solver = hg.Momentum(lr=0.1)
    found = through(network(Squared(Square.apply)), solver)
    torch.testing.assert_close(found, through(network(Squared(torch.square)), solver))


def test_weights_of_the_problem_and_streamed_examples():
    solver = hg.Adam(lr=0.05)
    weighted = network(hyperparameters={"l2": hg.L2(init=0.02), "omega": hg.ExampleWeights(init=0.5)})
    wanted = slopes(weighted, solver, 3)
    torch.testing.assert_close(through(weighted, solver)[:-1, 3], wanted, rtol=1e-5, atol=1e-9)
    assert torch.equal(through(network(stream=True), solver), through(network(), solver))
    torch.testing.assert_close(through(network(micro_batch=3), solver), through(network(), solver))
    torch.testing.assert_close(through(network(dev_batch_size=4, dev_sample=5), solver), through(network(), solver))


def test_memory_is_flat_in_the_steps():
    problem = network(nn.Linear(4, 4))
    state = 2 * sum(w.nbytes for w in problem.init_params().values())

    def most(steps: int) -> int:
        method = hg.UnrolledInfluence(solver=hg.Momentum(lr=0.1), inner_steps=steps, tape=hg.Checkpoint(slots=3))
        run = method.train(problem, problem.init_hparams())
        with PeakBytes() as peak:
            run.scores(EVERY[:3])
        return peak.peak

    assert most(60) - most(12) <= state


def test_what_cannot_be_differentiated_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="UnrolledInfluence differentiates .* a step of LBFGS cannot be"):
        hg.UnrolledInfluence(solver=hg.LBFGS())
    with pytest.raises(ValueError, match="horizon must be at most inner_steps = 5, but it is 6"):
        hg.UnrolledInfluence(inner_steps=5, horizon=6)
    with pytest.raises(ValueError, match="dev_block must be at least 1, but it is 0"):
        hg.UnrolledInfluence(dev_block=0)
    solver = hg.GradientDescent(lr=0.3)
    with pytest.raises(ValueError, match="need a loss for each of the examples"):
        through(network(loss=lambda z, y: cross_entropy(z, y)), solver)
    with pytest.raises(hg.DivergenceError, match="Training blew up"):
        through(network(batch_size=None), hg.GradientDescent(lr=1e9))
    normalised = network(nn.BatchNorm1d(4))
    run = hg.UnrolledInfluence(solver=solver, inner_steps=STEPS).train(normalised, normalised.init_hparams())
    assert run.scores().shape == (20,)
    with pytest.raises(ValueError, match="the layer .* normalises by the statistics of its batch"):
        run.scores(EVERY)
