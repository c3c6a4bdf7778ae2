import pytest
import torch
from tables import relative_error

import hypergrad as hg
from hypergrad.core.autodiff import central_difference
from hypergrad.training.training import Training

SOLVER = hg.FixedPoint(rate=0.5)


def small(flip=0.2, radius=1):
    """Two dev and two test images of 4 × 4 pixels."""
    generator = torch.Generator().manual_seed(0)
    parts = [hg.Split(torch.rand(2, 16, generator=generator), torch.zeros(2)) for _ in range(3)]
    return hg.MeanField(hg.Splits(*parts), flip=flip, radius=radius, seed=1)


def some_hparams(problem):
    generator = torch.Generator().manual_seed(5)
    shapes = {name: value.shape for name, value in problem.init_hparams().items()}
    noise = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: value + noise[name] for name, value in problem.init_hparams().items()}


def test_the_gradient_through_the_updates_is_that_of_differences():
    problem = small()
    hparams, start = some_hparams(problem), problem.init_params()
    found = hg.Unrolled(solver=SOLVER, inner_steps=7).estimate(problem, hparams, start)
    for name, value in hparams.items():
        direction = {k: torch.zeros_like(x) for k, x in hparams.items()} | {name: torch.linspace(1, 2, value.numel())}
        direction[name] = direction[name].reshape(value.shape)

        def dev_loss(hp):
            return problem.outer_loss(Training(solver=SOLVER, steps=7).run(problem, hp, start).params, hp, None)

        truth = central_difference(dev_loss, hparams, direction, step=1e-5).item()
        assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(truth, rel=1e-6)


def coordinate_ascent(problem, hparams, sweeps):
    """One pixel after the other, each to the minimum of the free energy, by the formula of a single pixel."""
    theta = torch.zeros(4, 16)
    evidence = hparams["unary"] * problem.noisy + hparams["field"]
    C = torch.tensordot(hparams["coupling"], problem.neighbours, 1)
    for _ in range(sweeps):
        for i in range(16):
            theta[:, i] = evidence[:, i] + theta.tanh() @ C[i]
    return theta


def test_the_fixed_point_is_that_of_coordinate_ascent_and_its_derivative_that_of_unrolling():
    problem = small()
    hparams, start = some_hparams(problem), problem.init_params()
    implicit = hg.Implicit(solver=SOLVER, linsolve=hg.GMRES(tol=1e-12), inner_steps=2000, inner_tol=1e-12)
    found = implicit.estimate(problem, hparams, start)
    torch.testing.assert_close(found.params["logits"], coordinate_ascent(problem, hparams, 200), rtol=0, atol=1e-9)
    unrolled = hg.Unrolled(solver=SOLVER, inner_steps=300).estimate(problem, hparams, start)
    assert relative_error(found.grad, unrolled.grad) < 1e-6


def test_the_condition_is_where_the_free_energy_is_stationary_and_lowest():
    problem = small(radius=2)
    hparams = some_hparams(problem)
    assert hparams["coupling"].shape == (12,)
    end = Training(solver=SOLVER, steps=300).run(problem, hparams, problem.init_params()).params
    loss, grad = problem.inner_loss_and_gradient(end, hparams, None)
    assert grad["logits"].norm() < 1e-12
    for seed in range(3):
        noise = 0.1 * torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
        assert problem.inner_loss({"logits": end["logits"] + noise}, hparams, None) > loss


def test_the_free_energy_bounds_the_log_partition_function():
    """−g ≤ log Z with equality where the pixels are independent, by the sum over all images of 2 × 2 pixels."""
    parts = [hg.Split(torch.tensor([[0.9, 0.1, 0.8, 0.6]]), torch.zeros(1)) for _ in range(3)]
    problem = hg.MeanField(hg.Splits(*parts), flip=0.3)
    images = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    for scale in (0.0, 0.3):
        hparams = problem.init_hparams() | {"coupling": scale * torch.tensor([1.0, 0.5, -0.2, 0.7])}
        theta = Training(solver=SOLVER, steps=300).run(problem, hparams, problem.init_params()).params
        C = sum(c * N for c, N in zip(hparams["coupling"], problem.neighbours, strict=True))
        pairs = ((images @ C) * images).sum(1) / 2
        log_z = torch.logsumexp(images @ (hparams["unary"] * problem.noisy.T) + pairs[:, None], 0).mean()
        gap = (log_z + problem.inner_loss(theta, hparams, None)).item()
        assert gap == pytest.approx(0, abs=1e-12) if scale == 0 else gap > 1e-3


def test_the_start_is_the_best_pixel_by_pixel():
    """Without couplings a pixel is believed with the probability that the noise has left it alone."""
    problem = small(flip=0.2)
    end = Training(solver=SOLVER, steps=100).run(problem, problem.init_hparams(), problem.init_params()).params
    torch.testing.assert_close(torch.sigmoid(2 * end["logits"] * problem.noisy), torch.full((4, 16), 0.8))
    assert problem.metrics(end, {})["test_pixel_error"] == (problem.noisy[2:] != problem.clean[2:]).double().mean()


@pytest.mark.parametrize(
    ("flip", "radius", "pixels"), [(0.5, 1, 16), (0.0, 1, 16), (0.1, 0, 16), (0.1, 1, 15)], ids=repr
)
def test_bad_settings_are_refused(flip, radius, pixels):
    part = hg.Split(torch.rand(2, pixels), torch.zeros(2))
    with pytest.raises(ValueError, match=f"there are {pixels} pixels, and flip and radius are {flip:g} and {radius}"):
        hg.MeanField(hg.Splits(part, part, part), flip=flip, radius=radius)


def test_a_fixed_point_iteration_on_a_gradient_is_gradient_descent():
    problem = hg.Quadratic(size=5)
    hparams = problem.init_hparams() | {"rate": torch.tensor([0.1, 0.2])}
    estimators = [
        hg.Unrolled(solver=solver, inner_steps=2)
        for solver in (hg.FixedPoint(rate="rate"), hg.GradientDescent(lr="rate"))
    ]
    ours, theirs = (each.estimate(problem, hparams, problem.init_params()).grad for each in estimators)
    assert relative_error(ours, theirs) < 1e-12
