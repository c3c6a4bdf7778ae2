"""Augmentations: what they do to images, when, and the gradients of what they do to the dev loss."""

from functools import partial

import pytest
import torch
from tables import relative_error
from torch import nn

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, flatten
from hypergrad.effect.random_affine import moved
from hypergrad.model.network import perceptron

SOLVER = hg.Momentum(lr=0.1, momentum=0.5)
EFFECTS = {
    "one strength": lambda: hg.RandomAffine(init=0.2),
    "six strengths": lambda: hg.RandomAffine(init=0.2, per_entry=True),
    "network": lambda: hg.AffineNetwork(network=perceptron(16, 12, (3,)), init=0.2),
}


def drawn(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 4 × 4 pixels in two classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=generator)
    return torch.rand(n, 16, generator=generator) + 0.5 * y[:, None] * torch.linspace(0, 1, 16), y


def small(effect: hg.Effect, **settings) -> hg.Supervised:
    torch.manual_seed(0)
    return hg.Supervised(
        model=perceptron(16, 2, (3,)),
        loss=torch.nn.functional.cross_entropy,
        train=drawn(6, 1),
        dev=drawn(20, 2),
        hyperparameters={"moves": effect, "l2": hg.L2(init=0.01)},
        **settings,
    )


def row(*entries: float) -> torch.Tensor:
    return torch.tensor([entries])


def test_maps_of_the_plane_are_what_they_are_called():
    X = torch.rand(1, 25, generator=torch.Generator().manual_seed(0))
    grid = X.view(5, 5)
    same, right, down = (moved(X, row(*D)).view(5, 5) for D in ((0,) * 6, (0, 0, 0.4, 0, 0, 0), (0, 0, 0, 0, 0, 0.4)))
    torch.testing.assert_close(same, grid)
    # One pixel is 2/5 of the half width; what is looked up to the right moves to the left.
    torch.testing.assert_close(right[:, :-1], grid[:, 1:])
    torch.testing.assert_close(down[:-1], grid[1:])
    assert (right[:, -1] == 0).all()
    quarter = moved(X, row(-1, -1, 0, 1, -1, 0)).view(5, 5)
    torch.testing.assert_close(quarter, grid.rot90())
    colours = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved(colours, torch.zeros(2, 6)), colours)


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_hypergradient_through_augmented_training_is_that_of_differences(effect, batch_size):
    problem = small(effect(), batch_size=batch_size)
    hparams, start = problem.init_hparams(), problem.init_params()
    estimator = hg.Unrolled(solver=SOLVER, inner_steps=6)
    found = estimator.estimate(problem, hparams, start)
    generator = torch.Generator().manual_seed(3)
    direction = {name: torch.randn(x.shape, generator=generator) for name, x in hparams.items()}

    def dev_loss(hp):
        return torch.tensor(estimator.estimate(problem, hp, start).outer_loss)

    truth = central_difference(dev_loss, hparams, direction, step=1e-6).item()
    assert sum((found.grad[k] * direction[k]).sum().item() for k in hparams) == pytest.approx(truth, rel=1e-6)
    forward = hg.Forward(solver=SOLVER, inner_steps=6).estimate(problem, hparams, start)
    assert relative_error(forward.grad, found.grad) < 1e-10


@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_the_indirect_term_is_minus_the_mixed_derivative_along_the_adjoint(effect):
    """dF/dλ = −∂(vᵀ ∇_w g)/∂λ on the draws of the step after the last, with H v = ∂f/∂w."""
    problem = small(effect())
    hparams, steps = problem.init_hparams(), 40
    implicit = hg.Implicit(
        solver=SOLVER, linsolve=hg.Neumann(num_terms=50), product=hg.GaussNewton(), inner_steps=steps, inner_tol=0.0
    )
    found = implicit.estimate(problem, hparams, problem.init_params())
    assert found.carry is not None
    v, batch = found.carry, problem.inner_batch(steps)

    def along(hp):
        return flatten(problem.inner_loss_and_gradient(found.params, hp, batch)[1]) @ v

    moves = {name: torch.ones_like(x) * (name == "moves") for name, x in hparams.items()}
    truth = -central_difference(along, hparams, moves, step=1e-6).item()
    assert found.grad["moves"].sum().item() == pytest.approx(truth, rel=1e-6)


def test_training_alone_sees_moved_images_new_at_each_step():
    problem = small(hg.RandomAffine(init=0.3))
    plain = small(hg.LabelSmoothing())
    w, h = problem.init_params(), problem.init_hparams()

    def losses(step):
        return problem.inner_loss(w, h, problem.inner_batch(step)).item()

    assert losses(0) == losses(0) != losses(1)
    assert problem.outer_loss(w, h, None) == plain.outer_loss(w, plain.init_hparams(), None)
    still = h | {"moves": torch.tensor(1e-9)}
    expected = torch.nn.functional.cross_entropy(plain.model(w, plain.X, None), plain.y)
    penalty = 0.01 * sum(p.square().sum() for p in w.values())
    assert problem.inner_loss(w, still, problem.inner_batch(0)).item() == pytest.approx((expected + penalty).item())
    with pytest.raises(ValueError, match="leave out the augmentation"):
        problem.weighted("weights")


def test_a_strength_is_learned_where_the_dev_images_are_moved():
    """A square on the left or on the right, of train images in one place: weights beside it want it moved."""
    squares = torch.zeros(2, 8, 8)
    squares[0, 3:5, 1:3] = squares[1, 3:5, 5:7] = 1
    X, y = squares.reshape(2, 64), torch.tensor([0, 1])
    D = 0.3 * torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    moved_y = y.repeat(30)
    problem = hg.Supervised(
        model=nn.Linear(64, 2),
        loss=torch.nn.functional.cross_entropy,
        train=(X.repeat(10, 1), y.repeat(10)),
        dev=(moved(X[moved_y], D), moved_y),
        hyperparameters={"moves": hg.RandomAffine(init=0.03), "l2": hg.L2(init=1e-2)},
    )
    estimator = hg.Implicit(
        solver=hg.Momentum(lr=0.5), linsolve=hg.Neumann(num_terms=20), inner_steps=50, inner_tol=0.0, error_bar=False
    )
    with pytest.warns(hg.NotConvergedWarning):
        result = hg.fit(problem, estimator, partial(torch.optim.Adam, lr=0.2), 15, progress=False)
    assert result.last.hparams["moves"] > 3 * result.first.hparams["moves"]
    assert result.last.outer_loss < result.first.outer_loss


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (hg.AffineNetwork(network=nn.Linear(16, 6)), r"outputs of shape \(n, 12\), but for 2 images they have shape"),
        (hg.RandomAffine(init=0.0), "init = 0 violates the constraint"),
    ],
)
def test_a_mistake_is_named(effect, message):
    with pytest.raises(ValueError, match=message):
        small(effect)


def test_inputs_that_are_no_images_are_refused():
    (X, y), (X_dev, y_dev) = drawn(6, 1), drawn(6, 2)
    with pytest.raises(ValueError, match=r"RandomAffine needs images of shape .* \(6, 15\)"):
        hg.Supervised(
            model=nn.Linear(15, 2),
            loss=torch.nn.functional.cross_entropy,
            train=(X[:, :15], y),
            dev=(X_dev[:, :15], y_dev),
            hyperparameters={"moves": hg.RandomAffine()},
        )
