"""Every linear solver against dense solves, and what each refuses."""

from dataclasses import replace

import pytest
import torch
from spectra import EVERY_SOLVER, REACHABLE, SOLVERS, SPECTRA, Counted, N, rhs, spd

import hypergrad as hg
from hypergrad.linsolve.spectrum import extreme_eigenvalues, largest_eigenvalue


@EVERY_SOLVER
@pytest.mark.parametrize("start", ["zero", "random", "solution"])
@pytest.mark.parametrize("name", SPECTRA)
def test_agrees_with_a_dense_solve(name, start, solver):
    spectrum, tolerance = SPECTRA[name], REACHABLE.get(name, 1e-10)
    if not isinstance(solver, hg.Dense | hg.Auto):
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
    # the reported residual is the true one, up to rounding in the product
    rounding = 4 * torch.finfo(b.dtype).eps * (spectrum.max() * found.x.norm() / b.norm()).item()
    assert found.residual == pytest.approx(true_residual, rel=1e-6, abs=rounding)
    if condition > 1e4 and start != "solution" and isinstance(solver, hg.Neumann):
        assert found.status == "max_iter"  # it would need about 1e9 terms
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
    found = (solver if isinstance(solver, hg.Dense | hg.Auto) else replace(solver, tol=1e-5)).solve(Counted(A), b)
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
    assert matvec.count == (N + 1 if isinstance(solver, hg.Dense | hg.Auto) else 1)  # one measures the residual


@pytest.mark.parametrize(("name", "distinct"), [("one eigenvalue", 1), ("two eigenvalues", 2)])
def test_cg_takes_one_product_per_distinct_eigenvalue(name, distinct):
    found = hg.CG(tol=1e-12).solve(Counted(spd(SPECTRA[name])), rhs())
    assert found.converged
    assert found.num_matvecs == distinct + 1  # and one to check the residual


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
    spectrum, b = SPECTRA["condition 1e8"], rhs()
    A = spd(spectrum)
    found = hg.CG(max_iter=5000, tol=1e-30).solve(Counted(A), b)
    rounding = 4 * torch.finfo(b.dtype).eps * (spectrum.max() * found.x.norm() / b.norm()).item()
    assert found.status in ("stagnated", "max_iter")
    assert found.residual == pytest.approx(((b - A @ found.x).norm() / b.norm()).item(), abs=rounding)
    # the claimed residual is not the recursive one, which is far below the rounding of the product by then
    assert found.residual > 1e-3 * rounding


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
    with pytest.raises(ValueError, match="10 parameters needs .* GB .* max_size is 9"):
        hg.Dense(max_size=9).solve(lambda v: v, torch.ones(10))


@EVERY_SOLVER
def test_a_product_that_is_not_finite_is_refused(solver):
    with pytest.raises(hg.NonFiniteError, match=r"Product \d+ with A"):
        solver.solve(lambda v: v * float("nan"), rhs())


@EVERY_SOLVER
@pytest.mark.parametrize("value", [float("inf"), float("nan")], ids=str)
def test_a_right_hand_side_that_is_not_finite_is_refused(solver, value):
    b = rhs()
    b[3] = value
    with pytest.raises(hg.NonFiniteError, match=f"1 of {N} values"):
        solver.solve(lambda v: v, b)


def test_a_preconditioner_that_is_not_finite_is_refused():
    class Broken(hg.Preconditioner):
        def prepare(self, A, like):
            return lambda v: v * float("nan"), 0

    with pytest.raises(hg.NonFiniteError, match="NaN or infinite"):
        hg.CG(preconditioner=Broken()).solve(lambda v: 2 * v, rhs())


def test_lanczos_names_the_product_that_is_not_finite():
    products = iter([1.0, 1.0, float("nan")])
    slopes = torch.arange(1.0, N + 1)
    with pytest.raises(hg.NonFiniteError, match="Product 3 with A"):
        extreme_eigenvalues(lambda v: next(products) * slopes * v, rhs())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hg.CG(max_iter=0), ValueError, "CG.max_iter must be at least 1, but it is 0"),
        (lambda: hg.CG(tol=-1.0), ValueError, "CG.tol must be at least 0"),
        (lambda: hg.CG(tol="small"), TypeError, "CG.tol must be a number, but it is 'small' of type str"),  # pyright: ignore
        (lambda: hg.Neumann(num_terms=2.5), TypeError, "num_terms must be an integer"),  # pyright: ignore
        (lambda: hg.Neumann(scale=0.0), ValueError, "scale must be greater than 0"),
        (lambda: hg.Dense(max_size=0), ValueError, "max_size must be at least 1"),
        (lambda: hg.Jacobi(per="row"), ValueError, "Jacobi.per must be one of .*, but it is 'row'"),
    ],
)
def test_bad_settings_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


NONSYMMETRIC = (
    torch.eye(N, dtype=torch.float64) * 2
    + torch.randn(N, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / N**0.5
)
INDEFINITE_SOLVERS = {name: SOLVERS[name] for name in ("minres", "gmres", "dense-lu")}
NONSYMMETRIC_SOLVERS = {name: SOLVERS[name] for name in ("gmres", "gmres-restarted", "dense-lu")}


@pytest.mark.parametrize("start", [None, rhs().flip(0)], ids=["zero", "random"])
@pytest.mark.parametrize("solver", INDEFINITE_SOLVERS.values(), ids=INDEFINITE_SOLVERS)
def test_indefinite_systems_are_solved_by_those_made_for_them(solver, start):
    A = spd(INDEFINITE)
    found = solver.solve(Counted(A), rhs(), start)
    assert found.converged
    assert (found.x - torch.linalg.solve(A, rhs())).norm() <= 1e-8 * found.x.norm()


@pytest.mark.parametrize("solver", NONSYMMETRIC_SOLVERS.values(), ids=NONSYMMETRIC_SOLVERS)
def test_nonsymmetric_systems_are_solved_by_those_made_for_them(solver):
    matvec = Counted(NONSYMMETRIC)
    found = solver.solve(matvec, rhs())
    assert found.converged
    assert found.num_matvecs == matvec.count
    assert (found.x - torch.linalg.solve(NONSYMMETRIC, rhs())).norm() <= 1e-8 * found.x.norm()


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("kind", [hg.MINRES, hg.GMRES], ids=["minres", "gmres"])
def test_truncated_minimum_residual_is_minimal_in_the_krylov_space(kind, steps):
    A, b = spd(INDEFINITE), rhs()
    found = kind(max_iter=steps, tol=0.0).solve(Counted(A), b)
    K = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(A, k) @ b for k in range(steps)], dim=1)).Q
    best = K @ torch.linalg.lstsq(A @ K, b[:, None]).solution[:, 0]
    assert found.num_matvecs == steps
    assert (found.x - best).norm() <= 1e-10 * best.norm()
    assert found.residual == pytest.approx(((b - A @ best).norm() / b.norm()).item(), rel=1e-8)


SINGULAR = torch.cat([torch.zeros(3), torch.linspace(0.5, 3.0, N - 3)])


@pytest.mark.parametrize("solver", [SOLVERS["cg"], SOLVERS["minres"], SOLVERS["gmres"]], ids=["cg", "minres", "gmres"])
def test_a_consistent_singular_system_is_solved(solver):
    A = spd(SINGULAR)
    b = A @ rhs()
    found = solver.solve(Counted(A), b)
    assert found.converged
    assert (b - A @ found.x).norm() <= 1e-9 * b.norm()


@pytest.mark.parametrize("solver", [SOLVERS["minres"], SOLVERS["gmres"]], ids=["minres", "gmres"])
def test_an_inconsistent_singular_system_is_named(solver):
    A = spd(SINGULAR)
    found = solver.solve(Counted(A), rhs())
    least = torch.linalg.lstsq(A, rhs()[:, None], driver="gelsd").solution[:, 0]
    assert found.status == "inconsistent"
    assert found.residual == pytest.approx(((rhs() - A @ least).norm() / rhs().norm()).item(), rel=1e-4)


def test_an_inconsistent_singular_system_never_converges_elsewhere():
    A = spd(SINGULAR)
    with pytest.raises(hg.IndefiniteError):
        hg.CG(max_iter=500).solve(Counted(A), rhs())
    with pytest.raises(hg.IndefiniteError, match="singular"):  # zeros that rounding does not make into small pivots
        hg.Dense(definite=False).solve(Counted(torch.diag(SINGULAR.double())), rhs())
    found = hg.Neumann(num_terms=500).solve(Counted(A), rhs())
    assert found.status == "max_iter"


@pytest.mark.parametrize("preconditioner", [hg.Jacobi(num_probes=1), hg.Nystrom(rank=12)], ids=["jacobi", "nystrom"])
def test_a_preconditioner_spares_iterations_where_it_fits(preconditioner):
    """A diagonal with many scales for Jacobi, a few large eigenvalues for Nyström."""
    n = 200
    diagonal = torch.logspace(-2, 3, n, dtype=torch.float64)
    outliers = torch.cat([torch.logspace(2, 4, 10), torch.linspace(0.9, 1.1, n - 10)])
    A = torch.diag(diagonal) if isinstance(preconditioner, hg.Jacobi) else spd(outliers)
    plain = hg.CG(max_iter=5000, tol=1e-8).solve(Counted(A), rhs(n))
    matvec = Counted(A)
    better = hg.CG(max_iter=5000, tol=1e-8, preconditioner=preconditioner).solve(matvec, rhs(n))
    assert better.converged
    assert better.num_matvecs == matvec.count
    preparation = 1 if isinstance(preconditioner, hg.Jacobi) else 12
    assert better.num_matvecs - preparation < 0.55 * plain.num_matvecs
    assert (better.x - torch.linalg.solve(A, rhs(n))).norm() <= 1e-6 * better.x.norm()


@pytest.mark.parametrize("rank", [5, N])
def test_nystrom_is_exact_on_low_rank_plus_a_multiple_of_the_identity(rank):
    low_rank = spd(torch.cat([torch.linspace(1, 5, 5), torch.zeros(N - 5)]))
    A = low_rank + 0.3 * torch.eye(N, dtype=torch.float64)
    shifted = hg.Nystrom(rank=rank, rho=0.3, tol=1e-8).solve(lambda v: low_rank @ v, rhs())
    assert (shifted.x - torch.linalg.solve(A, rhs())).norm() <= 1e-8 * shifted.x.norm()
    assert shifted.num_matvecs == rank + 1 or rank == N
    if rank == N:
        found = hg.Nystrom(rank=N, tol=1e-8).solve(lambda v: A @ v, rhs())
        assert found.converged
        assert (found.x - torch.linalg.solve(A, rhs())).norm() <= 1e-8 * found.x.norm()


def test_preconditioners_refuse_an_indefinite_matrix():
    with pytest.raises(hg.IndefiniteError, match="Nyström approximation needs a positive definite matrix"):
        hg.Nystrom(rank=N).solve(Counted(spd(INDEFINITE)), rhs())
    with pytest.raises(hg.IndefiniteError, match="mean eigenvalue is -2.00e\\+00.*damping larger than 2.00e\\+00"):
        hg.CG(preconditioner=hg.Jacobi()).solve(lambda v: -2 * v, rhs())


def test_no_neumann_terms_take_the_matrix_for_the_identity():
    A, matvec = spd(SPECTRA["spread"]), Counted(spd(SPECTRA["spread"]))
    found = hg.Neumann(num_terms=0).solve(matvec, rhs())
    assert torch.allclose(found.x, rhs())
    assert found.num_matvecs == matvec.count == 1
    assert found.residual == pytest.approx(((rhs() - A @ rhs()).norm() / rhs().norm()).item())


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_largest_eigenvalue_is_found_from_below(spectrum):
    estimate = largest_eigenvalue(Counted(spd(spectrum)), rhs(len(spectrum)))
    assert 0.8 * spectrum.max() <= estimate <= spectrum.max() * (1 + 1e-6)
