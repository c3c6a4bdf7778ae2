import pytest
import torch
from tables import relative_error

import hypergrad as hg
from hypergrad.core.autodiff import central_difference
from hypergrad.training.training import Training

SOLVER = hg.FixedPoint(rate=1.0)
IMPLICIT = hg.Implicit(
    solver=SOLVER, linsolve=hg.GMRES(tol=1e-11, max_iter=500), inner_steps=20000, inner_tol=1e-11, error_bar=False
)


def small(**settings):
    return hg.TotalVariation(**{"size": 8, "num_dev": 3, "num_test": 2, "seed": 2} | settings)


def off_the_differences(problem):
    generator = torch.Generator().manual_seed(3)
    hparams = problem.init_hparams()
    filters = hparams["filters"]
    return hparams | {"filters": filters + 0.1 * torch.randn(filters.shape, generator=generator)}


@pytest.mark.parametrize("name", ["filters", "strength"])
def test_the_hypergradient_of_the_programme_is_that_of_differences(name):
    problem = small()
    hparams, start = off_the_differences(problem), problem.init_params()
    found = IMPLICIT.estimate(problem, hparams, start)
    assert found.stats["inner_status"] == found.stats["adjoint_status"] == "converged"
    direction = {k: torch.zeros_like(x) for k, x in hparams.items()}
    direction[name] = torch.randn(hparams[name].shape, generator=torch.Generator().manual_seed(4))

    def dev_loss(hp):
        end = Training(solver=SOLVER, steps=20000, tol=1e-12).run(problem, hp, start)
        return problem.outer_loss(end.params, hp, None)

    truth = central_difference(dev_loss, hparams, direction, step=1e-5).item()
    assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(truth, rel=1e-5)


def test_unrolling_the_projected_steps_comes_to_the_same():
    problem = small()
    hparams, start = off_the_differences(problem), problem.init_params()
    unrolled = hg.Unrolled(solver=SOLVER, inner_steps=2000).estimate(problem, hparams, start)
    assert relative_error(IMPLICIT.estimate(problem, hparams, start).grad, unrolled.grad) < 1e-6


def test_the_solution_is_that_of_the_primal_problem():
    """Of ½ ‖z − y‖² + strength ‖D z‖₁, which no perturbation lowers, and at which its subgradient vanishes."""
    problem = small()
    hparams = off_the_differences(problem)
    D, strength = hparams["filters"], hparams["strength"]
    end = Training(solver=SOLVER, steps=20000, tol=1e-12).run(problem, hparams, problem.init_params()).params
    z = problem.denoised(end, hparams)

    def primal(z):
        return (z - problem.noisy).square().sum() / 2 + strength * (z @ D.T).abs().sum()

    for seed in range(20):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
        for scale in (1e-6, 1e-3, 1.0):
            assert primal(z + scale * noise) >= primal(z) - 1e-12
    jumps = (z @ D.T).abs() > 1e-6
    assert jumps.any()
    torch.testing.assert_close(end["dual"][jumps], strength * (z @ D.T).sign()[jumps])


def test_without_strength_nothing_is_denoised_and_with_much_each_signal_is_its_mean():
    problem = small()
    hparams = problem.init_hparams()
    for strength, truth in ((1e-9, problem.noisy), (1e3, problem.noisy.mean(1, keepdim=True).expand(5, 8))):
        hp = hparams | {"strength": torch.tensor(strength)}
        end = Training(solver=SOLVER, steps=20000, tol=1e-12).run(problem, hp, problem.init_params()).params
        torch.testing.assert_close(problem.denoised(end, hp), truth, rtol=0, atol=1e-7)


@pytest.mark.parametrize("settings", [{"size": 1}, {"num_dev": 0}, {"num_test": 0}, {"noise": 0.0}, {"jumps": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="TotalVariation needs size ≥ 2"):
        small(**settings)


def test_a_declarative_node_with_equality_constraints():
    """min ½ ‖x − a‖² + Σ x⁴/4 on the ellipsoid Σ c x² = 1: the gradient of a loss of x by a and c is that of refits."""

    def lagrangian(z, hp):
        x, nu = z["x"], z["nu"]
        objective = (x - hp["a"]).square().sum() / 2 + (x**4).sum() / 4
        return objective + nu * ((hp["c"] * x**2).sum() - 1)

    def conditions(z, hp):
        return torch.func.grad(lagrangian)(z, hp)

    given = {"a": torch.tensor([1.0, -2.0, 0.5]), "c": torch.tensor([1.0, 2.0, 0.7])}
    start = {"x": torch.tensor([0.6, -0.5, 0.3]), "nu": torch.tensor(1.0)}
    for _ in range(50):  # Newton's method on the conditions
        flat = torch.cat([start["x"], start["nu"][None]])

        def phi(v):
            out = conditions({"x": v[:3], "nu": v[3]}, given)
            return torch.cat([out["x"], out["nu"][None]])

        flat = flat - torch.linalg.solve(torch.func.jacrev(phi)(flat), phi(flat))
        start = {"x": flat[:3], "nu": flat[3]}
    node = hg.argmin(hg.Root(conditions), start, given, at="resolve")
    weights = torch.tensor([0.3, -1.0, 2.0])

    def loss(hp):
        return (weights * node(hp)["x"]).sum()

    found = torch.func.grad(loss)(given)
    assert (given["c"] * start["x"] ** 2).sum().item() == pytest.approx(1, abs=1e-12)
    for name, value in given.items():
        for j in range(3):
            direction = {k: torch.zeros(3) for k in given}
            direction[name][j] = 1.0
            truth = central_difference(loss, given, direction, step=1e-5).item()
            assert found[name][j].item() == pytest.approx(truth, rel=1e-6), (name, j, value)
