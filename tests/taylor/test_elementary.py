"""Derivatives are right where forward mode of PyTorch is wrong or missing, checked against central differences."""

import math

import pytest
import torch
from torch.func import grad, hessian, jvp
from torch.nn import functional

import hypergrad as hg
from hypergrad.problem.oracle import Oracle
from hypergrad.taylor.nested import nested_derivatives

_generator = torch.Generator().manual_seed(3)
X = torch.randn(7, 4, generator=_generator, dtype=torch.float64)
Y = torch.randn(7, generator=_generator, dtype=torch.float64)
W0 = 0.5 * torch.randn(4, generator=_generator, dtype=torch.float64)
D = torch.randn(4, generator=_generator, dtype=torch.float64)

FUNCTIONS = {
    "layer-norm": lambda w: functional.layer_norm(X * w, (4,), W0).tanh().sum(),
    "layer-norm-torch": lambda w: torch.layer_norm(X * w, (4,), W0, W0).tanh().sum(),
    "batch-norm": lambda w: functional.batch_norm(X * w + X**2 * w.sum(), None, None, training=True).tanh().sum(),
    "mse": lambda w: functional.mse_loss(torch.tanh(X @ w), Y),
    "huber": lambda w: functional.huber_loss(torch.tanh(X @ w), Y, delta=0.3),
    "smooth-l1": lambda w: functional.smooth_l1_loss(torch.tanh(X @ w), Y, beta=0.3),
}
by_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def central(function, order: int, step: float) -> float:
    """The derivative of order 2 or 3 of t ↦ function(w₀ + t d) by central differences of fourth order."""
    weights = {
        2: {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12},
        3: {-3: 1 / 8, -2: -1, -1: 13 / 8, 1: -13 / 8, 2: 1, 3: -1 / 8},
    }[order]
    return sum(c * function(W0 + k * step * D).item() for k, c in weights.items()) / step**order


@by_function
@pytest.mark.parametrize("order", [2, 3])
def test_nested_derivatives_are_central_differences(function, order):
    found = nested_derivatives(lambda t: function(W0 + t * D), order, X)[order].item()
    assert found == pytest.approx(central(function, order, 1e-3), rel=1e-5, abs=1e-6)


@by_function
def test_append_jvp_is_central_differences(function):
    twice = hg.append_jvp(hg.append_jvp(function))
    assert twice(W0, D, D).item() == pytest.approx(central(function, 2, 1e-3), rel=1e-6)
    assert hg.append_jvp(twice)(W0, D, D, D).item() == pytest.approx(central(function, 3, 1e-3), rel=1e-5)


def test_torch_is_still_wrong_or_this_can_go():
    def plain(t):
        return FUNCTIONS["layer-norm"](W0 + t * D)

    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    second = jvp(lambda t: jvp(plain, (t,), (one,))[1], (zero,), (one,))[1].item()
    third = grad(grad(grad(plain)))(zero).item()
    assert not math.isclose(second, central(FUNCTIONS["layer-norm"], 2, 1e-3), rel_tol=1e-3)
    assert not math.isclose(third, central(FUNCTIONS["layer-norm"], 3, 1e-3), rel_tol=1e-3)


def logdet(w):
    return torch.logdet((X * w).T @ X + 9 * torch.eye(4, dtype=X.dtype))


def det(w):
    return torch.linalg.det((X * w).T @ X / 9 + torch.eye(4, dtype=X.dtype))


@pytest.mark.parametrize("function", [logdet, det])
def test_linear_algebra_that_nested_forward_mode_has_wrong(function):
    for order in (2, 3):
        found = nested_derivatives(lambda t: function(W0 + t * D), order, X)[order].item()
        assert found == pytest.approx(central(function, order, 1e-3), rel=1e-5, abs=1e-6)
    with pytest.raises(NotImplementedError, match=f"of {function.__name__} by nested forward mode are wrong"):
        hg.append_jvp(hg.append_jvp(function))(W0, D, D)


def triangular(w):
    return torch.triangular_solve(X.T * w[:, None], (X * w).T @ X + 9 * torch.eye(4, dtype=X.dtype)).solution.sum()


def test_the_triangular_solve_that_torch_gave_up_is_refused_too():
    with pytest.raises(NotImplementedError, match="of triangular_solve by nested forward mode are wrong"):
        hg.append_jvp(hg.append_jvp(triangular))(W0, D, D)


LEAST_SQUARES = {
    "tall": lambda w: torch.linalg.lstsq(X + torch.outer(torch.tanh(Y), w), torch.sin(X * w)).solution.square().sum(),
    "wide": lambda w: torch.linalg.lstsq((X * w).T + W0[:, None], torch.sin(X * w)[:4]).solution.square().sum(),
    "residuals": lambda w: torch.linalg.lstsq(X + torch.outer(Y, w), torch.sin(X * w), driver="gels").residuals.sum(),
}


@pytest.mark.parametrize("function", LEAST_SQUARES.values(), ids=LEAST_SQUARES)
@pytest.mark.parametrize("order", [2, 3])
def test_least_squares_are_right_in_every_mode(function, order):
    truth = pytest.approx(central(function, order, 1e-3), rel=1e-4, abs=1e-5)
    assert nested_derivatives(lambda t: function(W0 + t * D), order, X)[order].item() == truth
    forward = function
    for _ in range(order):
        forward = hg.append_jvp(forward)
    assert forward(W0, *[D] * order).item() == truth
    by_reverse = lambda t: function(W0 + t * D)  # noqa: E731
    for _ in range(order):
        by_reverse = grad(by_reverse)
    assert by_reverse(torch.zeros((), dtype=torch.float64)).item() == truth


class Fitted(hg.InnerProblem):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def init_params(self):
        return {"w": W0}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(0.5)}

    def inner_loss(self, params, hparams, batch):
        return self.function(params["w"]) + hparams["l2"] * params["w"].square().sum()

    outer_loss = inner_loss


@by_function
def test_forward_over_reverse_is_the_dense_hessian(function):
    problem = Fitted(function)
    hparams = {"l2": torch.tensor(0.5, dtype=torch.float64)}
    found = hg.ForwardOverReverse().linearize(Oracle(problem, hparams), {"w": W0}).product
    truth = torch.func.jacrev(torch.func.grad(lambda w: problem.inner_loss({"w": w}, hparams, None)))(W0)
    torch.testing.assert_close(found(D), truth @ D, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found(X.T), truth @ X.T, rtol=1e-10, atol=1e-12)


def test_an_optimum_behind_a_layer_norm_in_place():
    """An operation in place does not accept a polynomial, so the whole function uses nested derivatives."""

    def objective(w, hp):
        total = functional.layer_norm(X * w, (4,), W0).tanh().mean()
        total += (w - hp * D).square().sum() * 5
        return total

    def solve(hp):
        w = hp * D
        for _ in range(20):
            w = w - torch.linalg.solve(hessian(objective)(w, hp), grad(objective)(w, hp))
        return w

    hp0 = torch.tensor(0.7, dtype=torch.float64)
    one, step = torch.ones_like(hp0), 5e-3
    assert grad(objective)(solve(hp0), hp0).norm() < 1e-12
    around = {k: solve(hp0 + k * step) for k in range(-2, 3)}
    truth = (-around[2] + 16 * around[1] - 30 * around[0] + 16 * around[-1] - around[-2]) / (12 * step**2)
    with pytest.warns(hg.NoTaylorRuleWarning):
        found = hg.TaylorExpansion(order=2).at(objective, solve(hp0), hp0).derivatives(one)[1]
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-7)
    by_argmin = hg.append_jvp(hg.append_jvp(hg.argmin(objective, solve(hp0), hp0)))(hp0, one, one)
    torch.testing.assert_close(by_argmin, truth, rtol=1e-5, atol=1e-7)


def test_a_power_with_exponent_zero_has_a_mixed_derivative():
    """∂²/∂b∂p bᵖ = 1/b at p = 0, where PyTorch has 0."""

    def value(z):
        return torch.tensor([2.0, 2.0]) @ torch.stack([z[0] ** z[1], torch.pow(z[0], z[1] * z[0])])

    z, d, e = torch.tensor([1.5, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    truth = 2 / 1.5 + 2 * (1 + math.log(1.5))
    assert hg.append_jvp(hg.append_jvp(value))(z, d, e).item() == pytest.approx(truth, rel=1e-12)
    assert hessian(value)(z)[0, 1].item() != pytest.approx(truth, rel=1e-3)  # PyTorch is still wrong, or this can go


def test_bessel_functions_and_sinc_at_zero():
    for function, order, truth in [
        (torch.special.i0, 4, 3 / 8),
        (torch.special.i1, 3, 3 / 8),
        (torch.sinc, 2, -(math.pi**2) / 3),
    ]:
        for _ in range(order):
            function = hg.append_jvp(function)
        assert function(torch.tensor(0.0), *[torch.tensor(1.0)] * order).item() == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("function", [logdet, det])
def test_reverse_mode_over_forward_mode_is_refused_for_them_too(function):
    """PyTorch's is silently wrong; forward mode over reverse mode is right."""
    along = hg.append_jvp(function)
    with pytest.raises(NotImplementedError, match="reverse mode over forward mode"):
        grad(lambda w: along(w, D))(W0)
    w = W0.clone().requires_grad_()
    with pytest.raises(NotImplementedError, match="reverse mode over forward mode"):
        along(w, D)
    assert hg.append_jvp(lambda w: grad(function)(w) @ D)(W0, D).item() == pytest.approx(
        central(function, 2, 1e-3), rel=1e-5
    )
    torch_has = grad(lambda w: jvp(function, (w,), (D,))[1])(W0) @ D
    assert torch_has.item() != pytest.approx(central(function, 2, 1e-3), rel=1e-3)  # or this can go


def test_norms_have_derivatives_in_every_nesting():
    """Those of PyTorch fail in some, with "modified by an inplace operation"."""

    def function(w):
        z = X * w
        return z.norm() + z.std() + torch.nn.functional.pairwise_distance(z, z.flip(0)).sum() + torch.cdist(z, X).sum()

    truth = hessian(lambda w: function_by_hand(X * w))(W0)
    by_argmin = torch.func.vmap(lambda d: hg.append_jvp(lambda w: grad(function)(w))(W0, d))(torch.eye(4))
    torch.testing.assert_close(by_argmin, truth, rtol=1e-9, atol=1e-9)


def function_by_hand(z):
    def root(square):
        return square.clamp_min(1e-300).sqrt()

    gap = z - z.mean()
    far = z - z.flip(0) + 1e-6
    apart = z[:, None] - X[None]
    squares = (z * z).sum(), (gap * gap).sum() / (z.numel() - 1), (far * far).sum(1), (apart * apart).sum(2)
    return sum(root(square).sum() for square in squares)
