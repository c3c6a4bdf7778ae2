from dataclasses import replace

import pytest
import torch
from torch import Tensor

import hypergrad as hg
from hypergrad.linsolve.spectrum import largest_eigenvalue

N = 23  # a multiple of nothing


def spd(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return Q @ (eigenvalues[:, None].double() * Q.T)


def rhs(n: int = N) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


SPECTRA = {
    "one eigenvalue": torch.full((N,), 2.5),
    "two eigenvalues": torch.tensor([0.5] * 9 + [4.0] * (N - 9)),
    "spread": torch.linspace(0.3, 7.0, N),
    "condition 1e3": torch.logspace(-2, 1, N),
    "condition 1e8": torch.logspace(-6, 2, N),
    "one parameter": torch.tensor([0.7]),
}
# What rounding lets the residual come to, ε ‖A‖ ‖x‖ / ‖b‖, is some 1e-8 at condition 1e8.
REACHABLE = {"condition 1e8": 1e-6}
SOLVERS: dict[str, hg.LinearSolver] = {
    "cg": hg.CG(max_iter=5000, tol=1e-10),
    "neumann": hg.Neumann(num_terms=40_000, tol=1e-10),
    "dense": hg.Dense(),
}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


class Counted:
    def __init__(self, A: Tensor) -> None:
        self.A, self.count = A, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.count += 1
        return self.A @ v


@EVERY_SOLVER
@pytest.mark.parametrize("start", ["zero", "random", "solution"])
@pytest.mark.parametrize("name", SPECTRA)
def test_agrees_with_a_dense_solve(name, start, solver):
    spectrum, tolerance = SPECTRA[name], REACHABLE.get(name, 1e-10)
    if not isinstance(solver, hg.Dense):
        solver = replace(solver, tol=tolerance)
    A = spd(spectrum)
    b = rhs(len(A))
    truth = torch.linalg.solve(A, b)
    x0 = {"zero": None, "random": rhs(len(A)).flip(0), "solution": truth}[start]
    b_before, matvec = b.clone(), Counted(A)
    found = solver.solve(matvec, b, None if x0 is None else x0.clone())
    condition = (spectrum.max() / spectrum.min()).item()

    assert torch.equal(b, b_before)
    assert found.num_matvecs == matvec.count
    true_residual = ((b - A @ found.x).norm() / b.norm()).item()
    # the residual that is reported is the residual that is there, up to rounding in the product itself
    rounding = 4 * torch.finfo(b.dtype).eps * (spectrum.max() * found.x.norm() / b.norm()).item()
    assert found.residual == pytest.approx(true_residual, rel=1e-6, abs=rounding)
    if condition > 1e4 and isinstance(solver, hg.Neumann) and start != "solution":
        assert found.status == "max_iter"  # it would take some 1e9 terms, and says so
        assert found.residual > tolerance
        return
    assert found.status == "converged"
    assert true_residual <= tolerance + rounding
    # ‖error‖ / ‖x‖ ≤ κ ‖residual‖ / ‖b‖
    assert (found.x - truth).norm() / truth.norm() <= condition * (tolerance + rounding)


@EVERY_SOLVER
def test_zero_right_hand_side_gives_zero(solver):
    found = solver.solve(Counted(spd(SPECTRA["spread"])), torch.zeros(N, dtype=torch.float64), rhs())
    assert torch.equal(found.x, torch.zeros(N, dtype=torch.float64))
    assert found.residual == 0
    assert found.converged


@EVERY_SOLVER
@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_magnitude_of_the_right_hand_side_does_not_matter(solver, magnitude):
    A = spd(SPECTRA["two eigenvalues"]).float()
    b = (rhs() * magnitude).float()
    loose = {"cg": hg.CG(tol=1e-5), "neumann": hg.Neumann(num_terms=500, tol=1e-5)}
    found = loose.get(type(solver).__name__.lower(), solver).solve(Counted(A), b)
    truth = torch.linalg.solve(A.double(), b.double())
    assert found.converged
    assert (found.x.double() - truth).norm() <= 1e-4 * truth.norm()


@EVERY_SOLVER
def test_solution_as_start_costs_no_iteration(solver):
    A = spd(SPECTRA["spread"])
    matvec = Counted(A)
    if isinstance(solver, hg.Neumann):
        solver = hg.Neumann(num_terms=100, scale=0.1, tol=1e-10)
    found = solver.solve(matvec, rhs(), torch.linalg.solve(A, rhs()))
    assert found.converged
    assert matvec.count == (N if isinstance(solver, hg.Dense) else 1)


@pytest.mark.parametrize(("name", "distinct"), [("one eigenvalue", 1), ("two eigenvalues", 2)])
def test_cg_takes_one_product_per_distinct_eigenvalue(name, distinct):
    found = hg.CG(tol=1e-12).solve(Counted(spd(SPECTRA[name])), rhs())
    assert found.converged
    assert found.num_matvecs == distinct + 1  # and one to see that it is so


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_truncated_cg_is_optimal_in_the_krylov_space(steps):
    A, b = spd(SPECTRA["condition 1e3"]), rhs()
    found = hg.CG(max_iter=steps, tol=0.0).solve(Counted(A), b)
    K = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(A, k) @ b for k in range(steps)], dim=1)).Q
    best = K @ torch.linalg.solve(K.T @ A @ K, K.T @ b)
    assert found.num_matvecs == steps
    assert found.status == "max_iter"
    assert (found.x - best).norm() <= 1e-10 * best.norm()


def test_cg_says_when_rounding_allows_no_smaller_residual():
    A = spd(SPECTRA["condition 1e8"])
    found = hg.CG(max_iter=5000, tol=1e-30).solve(Counted(A), rhs())
    assert found.status in ("stagnated", "max_iter")
    # the claimed residual is not the recursive one, which by then is far below what the product allows
    assert found.residual == pytest.approx(((rhs() - A @ found.x).norm() / rhs().norm()).item(), rel=0.5)


@pytest.mark.parametrize("terms", [1, 2, 17])
def test_neumann_sums_exactly_that_many_terms(terms):
    A, b, scale = spd(SPECTRA["spread"]), rhs(), 0.13
    matvec = Counted(A)
    found = hg.Neumann(num_terms=terms, scale=scale, tol=0.0).solve(matvec, b)
    step = torch.eye(N, dtype=torch.float64) - scale * A
    series = scale * torch.stack([torch.linalg.matrix_power(step, k) @ b for k in range(terms)]).sum(0)
    assert matvec.count == found.num_matvecs == terms
    assert (found.x - series).norm() <= 1e-13 * series.norm()


INDEFINITE = torch.cat([torch.tensor([-0.5]), torch.linspace(0.5, 3.0, N - 1)])


def test_cg_refuses_an_indefinite_matrix_with_its_curvature():
    with pytest.raises(
        hg.IndefiniteError, match=r"CG needs a positive definite matrix, but step \d+ met curvature .*-"
    ):
        hg.CG().solve(Counted(spd(INDEFINITE)), rhs())


def test_damping_by_what_the_message_of_cg_asks_for_is_enough_for_that_direction():
    with pytest.raises(hg.IndefiniteError, match="step 0 met curvature pᵀAp/pᵀp = -5.00e-01.*larger than 5.00e-01"):
        hg.CG().solve(lambda v: -0.5 * v, rhs())
    assert hg.CG().solve(lambda v: 0.01 * v, rhs()).converged


def test_neumann_refuses_an_indefinite_matrix():
    with pytest.raises(hg.DivergenceError, match=r"not positive definite.*damping above"):
        hg.Neumann(num_terms=5000, tol=0.0).solve(Counted(spd(INDEFINITE)), rhs())


def test_neumann_refuses_a_scale_beyond_its_bound_and_names_a_bound():
    with pytest.raises(hg.DivergenceError, match=r"scale must be below 2/λ_max, and so below 3\.\d\de-01"):
        hg.Neumann(num_terms=500, scale=0.4).solve(Counted(spd(SPECTRA["spread"])), rhs())


def test_dense_refuses_an_indefinite_matrix_with_its_smallest_eigenvalue():
    with pytest.raises(hg.IndefiniteError, match=r"smallest eigenvalue is -5\.00e-01.*damping larger than 5\.00e-01"):
        hg.Dense().solve(Counted(spd(INDEFINITE)), rhs())


def test_dense_refuses_a_matrix_that_is_not_symmetric():
    with pytest.raises(ValueError, match="symmetric"):
        hg.Dense().solve(Counted(torch.triu(torch.ones(N, N, dtype=torch.float64))), rhs())


def test_dense_refuses_a_size_that_would_not_fit():
    with pytest.raises(ValueError, match="10 parameters would take .* GB .* max_size is 9"):
        hg.Dense(max_size=9).solve(lambda v: v, torch.ones(10))


@EVERY_SOLVER
def test_a_product_that_is_not_finite_is_refused(solver):
    with pytest.raises(hg.NonFiniteError, match=r"Product \d+ with A"):
        solver.solve(lambda v: v * float("nan"), rhs())


@EVERY_SOLVER
def test_a_right_hand_side_that_is_not_finite_is_refused(solver):
    b = rhs()
    b[3] = float("inf")
    with pytest.raises(hg.NonFiniteError, match=f"1 of {N} values"):
        solver.solve(lambda v: v, b)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hg.CG(max_iter=0), ValueError, "CG.max_iter must be at least 1, but it is 0"),
        (lambda: hg.CG(tol=-1.0), ValueError, "CG.tol must be at least 0"),
        (lambda: hg.CG(tol="small"), TypeError, "CG.tol must be a number, but it is 'small' of type str"),  # pyright: ignore
        (lambda: hg.Neumann(num_terms=2.5), TypeError, "num_terms must be an integer"),  # pyright: ignore
        (lambda: hg.Neumann(scale=0.0), ValueError, "scale must be greater than 0"),
        (lambda: hg.Dense(max_size=0), ValueError, "max_size must be at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_largest_eigenvalue_is_found_from_below(spectrum):
    estimate = largest_eigenvalue(Counted(spd(spectrum)), rhs(len(spectrum)))
    assert 0.8 * spectrum.max() <= estimate <= spectrum.max() * (1 + 1e-6)
