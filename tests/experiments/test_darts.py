"""Architecture weights: their hypergradient, what they stand for, and a search that finds what was planted."""

from functools import partial
from typing import Any

import pytest
import torch
from slow_cases import mostly_slow
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import central_difference
from hypergrad.model.cell import OPERATIONS, Cell, mixed_cell
from hypergrad.training.training import Training

SOLVER = hg.Momentum(lr=0.1)


def images(seed, n=12, side=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, side**2, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def searched(cell, loss=cross_entropy, parts: Any = None, **settings):
    parts = parts or {"train": images(1), "dev": images(2), "test": images(3)}
    return hg.Supervised(model=cell, loss=loss, hyperparameters={"alpha": hg.Buffer(name="alpha")} | settings, **parts)


def tiny(seed=0, **settings):
    torch.manual_seed(seed)
    return searched(mixed_cell(side=4, channels=2, num_outputs=3), **settings)


def drawn(like, seed):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at", [0.0, 1.0], ids=["uniform", "elsewhere"])
def test_the_hypergradient_of_the_mixing_weights_is_that_of_differences(at):
    problem = tiny()
    hparams = {"alpha": at * drawn(problem.init_hparams()["alpha"], 1)}
    start = problem.init_params()
    found = hg.Unrolled(solver=SOLVER, inner_steps=9).estimate(problem, hparams, start)
    assert found.grad["alpha"].shape == (3, len(OPERATIONS))

    def dev_loss(hp):
        return problem.outer_loss(Training(solver=SOLVER, steps=9).run(problem, hp, start).params, hp, None)

    for seed in range(3):
        direction = {"alpha": drawn(hparams["alpha"], 10 + seed)}
        truth = central_difference(dev_loss, hparams, direction, step=1e-5).item()
        assert (found.grad["alpha"] * direction["alpha"]).sum().item() == pytest.approx(truth, rel=1e-6)
    # The shares of an edge sum to one, so that a constant added to its row of α changes nothing.
    assert found.grad["alpha"].sum(1).abs().max() < 1e-12


def test_the_implicit_hypergradient_is_that_of_differences_of_trained_cells():
    torch.manual_seed(0)
    cell = mixed_cell(("identity", "tanh"), nodes=1, side=4, channels=2, num_outputs=2)
    parts = {name: (images(seed)[0], 3 * drawn(torch.zeros(12, 2), seed)) for seed, name in ((1, "train"), (2, "dev"))}
    problem = searched(cell, loss=mse_loss, parts=parts, l2=hg.L2(init=0.02))
    hparams = problem.init_hparams() | {"alpha": torch.tensor([[0.3, -0.2]])}
    exact = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12, max_iter=500), inner_tol=1e-11, error_bar=False)
    found = exact.estimate(problem, hparams, problem.init_params())

    def dev_loss(hp):
        end = Training(solver=hg.LBFGS(), steps=1000, tol=1e-12).run(problem, hp, found.params).params
        return problem.outer_loss(end, hp, None)

    for name, direction in (("alpha", torch.tensor([[1.0, 0.3]])), ("l2", torch.tensor(1e-2))):
        along = {key: torch.zeros_like(value) for key, value in hparams.items()} | {name: direction}
        truth = central_difference(dev_loss, hparams, along, step=1e-4).item()
        assert (found.grad[name] * direction).sum().item() == pytest.approx(truth, rel=1e-5)


def test_a_step_of_darts_is_the_unrolled_gradient_through_one_step():
    """∂f/∂α(w′, α) − ξ (∂²g/∂α∂w)(w, α) ∂f/∂w(w′, α) with w′ = w − ξ ∇_w g(w, α), written out."""
    problem, rate = tiny(), 0.3
    hparams = {"alpha": drawn(problem.init_hparams()["alpha"], 1).requires_grad_()}
    w = {name: x.clone().requires_grad_() for name, x in problem.init_params().items()}
    grads = torch.autograd.grad(problem.inner_loss(w, hparams, None), list(w.values()), create_graph=True)
    ahead = {name: (x - rate * g).detach().requires_grad_() for (name, x), g in zip(w.items(), grads, strict=True)}
    f = problem.outer_loss(ahead, hparams, None)
    *by_w, direct = torch.autograd.grad(f, [*ahead.values(), hparams["alpha"]])
    product = torch.stack([(g * v).sum() for g, v in zip(grads, by_w, strict=True)]).sum()
    expected = direct - rate * torch.autograd.grad(product, hparams["alpha"])[0]
    one = hg.Unrolled(solver=hg.GradientDescent(lr=rate), inner_steps=1)
    found = one.estimate(problem, {"alpha": hparams["alpha"].detach()}, problem.init_params())
    torch.testing.assert_close(found.grad["alpha"], expected, rtol=1e-10, atol=1e-14)


def test_an_architecture_is_the_mixture_in_which_its_operations_have_all_of_the_shares():
    cell = mixed_cell(side=4, channels=2, num_outputs=3)
    chosen = [OPERATIONS.index(name) for name in ("conv", "average", "tanh")]
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[range(3), chosen] = 1.0
    edges = cell.strongest(alpha)
    assert edges == [["conv"], ["average"], ["tanh"]]
    architecture = Cell(edges, side=4, channels=2, num_outputs=3)
    architecture.stem, architecture.head = cell.stem, cell.head
    for k, operation in enumerate(chosen):
        architecture.edges[k][0] = cell.edges[k][operation]  # type: ignore[index]
    cell.alpha = 1e3 * alpha
    X, _ = images(0)
    torch.testing.assert_close(architecture(X), cell(X), rtol=1e-12, atol=1e-14)


def test_zero_is_never_chosen():
    cell = mixed_cell()
    alpha = torch.zeros(3, len(OPERATIONS))
    alpha[:, OPERATIONS.index("zero")] = 5.0
    alpha[:, OPERATIONS.index("relu")] = 1.0
    assert cell.strongest(alpha) == [["relu"]] * 3


@pytest.mark.parametrize("planted", mostly_slow(["tanh", "conv", "identity", "relu"], ["tanh"]))
def test_a_planted_operation_gets_the_largest_share(planted):
    """Data from a cell of one edge: a search over all operations, from equal shares, finds which one made them."""
    torch.manual_seed(3)
    size: Any = {"side": 4, "channels": 3, "num_outputs": 4}
    # A convolution can do what a map of single pixels does, so that it stands only where it is the answer.
    candidates = [name for name in OPERATIONS if name != "conv" or planted == "conv"]
    teacher, student = Cell([[planted]], **size), mixed_cell(candidates, nodes=1, **size)
    student.stem, student.head = teacher.stem, teacher.head
    generator, parts = torch.Generator().manual_seed(0), {}
    for name in ("train", "dev"):
        X = 6 * torch.randn(100, 16, generator=generator)
        parts[name] = X, teacher(X).detach()
    problem = searched(student, loss=mse_loss, parts=parts)
    estimator = hg.Unrolled(solver=hg.Adam(lr=0.03), inner_steps=20)
    result = hg.fit(problem, estimator, partial(torch.optim.Adam, lr=0.3), 15, progress=False)
    shares = dict(zip(candidates, result.last.hparams["alpha"][0].softmax(0).tolist(), strict=True))
    assert max(shares, key=shares.__getitem__) == planted, shares
    assert shares[planted] > 0.5
    assert result.last.outer_loss < result.first.outer_loss / 3


class Leaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.out = nn.Linear(16, 5), nn.Linear(5, 3)
        self.register_buffer("slope", torch.tensor(0.2))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, X):
        z = self.linear(X)
        return self.out(torch.where(z > 0, z, self.slope * z))


def test_any_buffer_of_a_model_can_be_tuned_within_its_constraint():
    torch.manual_seed(0)
    model = Leaky()
    problem = searched(model, alpha=hg.Buffer(name="slope", constraint=hg.unit_interval))
    hparams = problem.init_hparams()
    assert hparams["alpha"] == pytest.approx(0.2)
    w = problem.init_params()
    X, y = images(2)
    with torch.no_grad():
        z = X @ model.linear.weight.T + model.linear.bias
        by_hand = cross_entropy(model.out(torch.where(z > 0, z, 0.7 * z)), y)
    at = {"alpha": torch.tensor(0.7)}
    assert problem.outer_loss(w, at, None).item() == pytest.approx(by_hand.item(), rel=1e-12)
    assert model.get_buffer("slope") == torch.tensor(0.2)
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=7)
    found = estimator.estimate(problem, at, w)

    def dev_loss(hp):
        return torch.tensor(estimator.estimate(problem, hp, w).outer_loss)

    truth = central_difference(dev_loss, at, {"alpha": torch.tensor(1.0)}, step=1e-5).item()
    assert found.grad["alpha"].item() == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("name", ["slop", "count", "linear.weight"])
def test_a_buffer_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(ValueError, match=f"but it is '{name}', and the model has slope"):
        searched(Leaky(), alpha=hg.Buffer(name=name))
    with pytest.raises(ValueError, match="the model has none; use register_buffer"):
        searched(nn.Linear(16, 3), alpha=hg.Buffer(name=name))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([["conv"], ["conv"]], "but they are 2 of 1 operations"),
        ([["conv"], ["conv"], ["conv", "tanh"]], "but they are 3 of 1, 2 operations"),
        ([], "but they are 0 of no operations"),
        ([[]], "but they are 1 of 0 operations"),
        ([["max"]], "but Cell.edges has 'max'"),
    ],
)
def test_edges_that_are_no_cell_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        Cell(edges)
