"""Every kind of product against the dense Hessian, and what each is for."""

import pytest
import torch
from networks import Network
from tables import PROBLEMS, as_matrix, relative_error
from torch.nn.functional import dropout

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.problem.oracle import Oracle

EXACT = {"reverse": hg.Reverse(), "forward-over-reverse": hg.ForwardOverReverse()}
TRACED = {precision: hg.Traced(precision=precision) for precision in ("float64", "float32")}
EVERY_PROBLEM = pytest.mark.parametrize("problem", [*PROBLEMS.values(), Network()], ids=[*PROBLEMS, "network"])


def at_start(problem, product):
    return product.linearize(Oracle(problem, problem.init_hparams()), problem.init_params())


@EVERY_PROBLEM
@pytest.mark.parametrize("product", EXACT.values(), ids=EXACT)
def test_products_and_blocks_of_them_are_those_of_the_dense_hessian(product, problem):
    w = {name: p + 0.3 for name, p in problem.init_params().items()}
    H, _, mixed = as_matrix(problem, w, problem.init_hparams())
    found = product.linearize(Oracle(problem, problem.init_hparams()), w)
    V = torch.randn(len(H), 3, generator=torch.Generator().manual_seed(0), dtype=H.dtype)
    assert torch.allclose(found.product(V[:, 0]), H @ V[:, 0], rtol=1e-10, atol=1e-12)
    assert torch.allclose(found.product(V), H @ V, rtol=1e-10, atol=1e-12)
    pulled = {k: v for k, v in found.mixed(V[:, 0]).items() if v is not None}
    assert relative_error(pulled, {k: torch.tensordot(V[:, 0], mixed[k], 1) for k in pulled}) <= 1e-10


@EVERY_PROBLEM
@pytest.mark.parametrize("precision", TRACED)
def test_a_trace_is_the_product_to_its_precision_and_follows_the_point(problem, precision):
    for shift in (0.0, 0.3):
        w = {name: p + shift for name, p in problem.init_params().items()}
        hparams = {name: h * (1 + shift) for name, h in problem.init_hparams().items()}
        H, _, _ = as_matrix(problem, w, hparams)
        product = TRACED[precision].linearize(Oracle(problem, hparams), w).product
        assert product.approximate is not None
        near = product.approximate()
        V = torch.randn(len(H), 3, generator=torch.Generator().manual_seed(0), dtype=H.dtype)
        tolerance = 1e-12 if precision == "float64" else 1e-5
        assert near.dtype == getattr(torch, precision)
        assert (near(V.to(near.dtype)) - H @ V).norm() <= tolerance * (H @ V).norm()
        assert (near(V[:, 0].to(near.dtype)) - H @ V[:, 0]).norm() <= tolerance * (H @ V[:, 0]).norm()


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("linsolve", [hg.CG(tol=1e-11), hg.MINRES(tol=1e-11), hg.Auto(tol=1e-11)])
@pytest.mark.parametrize("product", [*EXACT.values(), hg.Traced(precision="float32")], ids=[*EXACT, "traced"])
def test_hypergradients_are_the_closed_form(product, linsolve, problem):
    hparams = problem.init_hparams()
    estimator = hg.Implicit(inner_steps=0, product=product, linsolve=linsolve)
    found = estimator.estimate(problem, hparams, problem.solution(hparams))
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-8
    assert float(found.stats["error_estimate"]) <= 1e-6 * flatten(found.grad).norm()


def test_a_trace_of_data_that_changed_is_found_out():
    problem = Network()
    estimator = hg.Implicit(
        inner_steps=0, damping=3.0, product=hg.Traced(precision="float32"), linsolve=hg.CG(tol=1e-10, max_iter=500)
    )
    arguments = (problem, problem.init_hparams(), problem.init_params())
    assert estimator.estimate(*arguments).stats["adjoint_remark"] == "iterated on a trace of the product in float32"
    problem.X = 2 * problem.X
    found = estimator.estimate(*arguments)
    assert "went on with the exact product" in str(found.stats["adjoint_remark"])
    fresh = hg.Implicit(inner_steps=0, damping=3.0, linsolve=hg.CG(tol=1e-10, max_iter=500)).estimate(*arguments)
    assert relative_error(found.grad, fresh.grad) <= 1e-8


def test_a_problem_that_draws_random_numbers_is_not_traced():
    class Dropped(Network):
        def logits(self, p, X):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return torch.tanh(dropout(X, 0.5) @ p["W1"].T + p["b1"]) @ p["W2"].T

    problem = Dropped()
    estimator = hg.Implicit(
        inner_steps=0, damping=3.0, product=hg.Traced(precision="float32"), linsolve=hg.CG(max_iter=500)
    )
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert "because the product cannot be traced: it draws random numbers" in str(found.stats["adjoint_remark"])
    assert found.stats["adjoint_status"] == "converged"


@pytest.mark.slow
def test_a_compiled_trace_gives_the_same():
    problem = Network(wide=64)
    arguments = (problem, problem.init_hparams(), problem.init_params())
    cg = hg.CG(tol=1e-10, max_iter=500)
    found = hg.Implicit(
        inner_steps=0, damping=3.0, product=hg.Traced(precision="float32", compile=True), linsolve=cg
    ).estimate(*arguments)
    plain = hg.Implicit(inner_steps=0, damping=3.0, linsolve=cg).estimate(*arguments)
    assert found.stats["adjoint_remark"] == "iterated on a trace of the product in float32, compiled"
    assert relative_error(found.grad, plain.grad) <= 1e-8


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(monkeypatch):
    def fails(*args, **kwargs):
        def product(*args):
            raise RuntimeError("no compiler")

        return product

    monkeypatch.setattr(torch, "compile", fails)
    problem = Network()
    estimator = hg.Implicit(
        inner_steps=0, damping=3.0, product=hg.Traced(precision="float32", compile=True), linsolve=hg.CG(max_iter=500)
    )
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.stats["adjoint_remark"] == (
        "iterated on a trace of the product in float32, not compiled (RuntimeError: no compiler)"
    )
    assert found.stats["adjoint_status"] == "converged"


def test_a_small_product_is_not_traced_where_that_would_cost_more():
    problem = Network()
    estimator = hg.Implicit(inner_steps=0, damping=3.0, product=hg.Traced(least_flops=1e6))
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert "because a product takes no more than" in str(found.stats["adjoint_remark"])


def gauss_newton(problem, w, hparams):
    """Jᵀ H_ℓ J + the curvature of the penalty, dense."""
    from torch.func import hessian, jacrev

    from hypergrad.core.autodiff import unflatten

    flat = flatten(w)
    J = jacrev(lambda u: problem.outputs(unflatten(u, w), hparams, None).reshape(-1))(flat)
    z = problem.outputs(w, hparams, None)
    H_z = hessian(lambda u: problem.loss_of_outputs(u.view_as(z), w, hparams, None))(z.reshape(-1))
    H_w = hessian(lambda u: problem.loss_of_outputs(z, unflatten(u, w), hparams, None))(flat)
    return J.T @ H_z @ J + H_w


def test_gauss_newton_products_are_those_of_the_dense_matrix():
    problem = Network()
    w, hparams = problem.init_params(), problem.init_hparams()
    G = gauss_newton(problem, w, hparams)
    product = at_start(problem, hg.GaussNewton()).product
    V = torch.randn(len(G), 2, generator=torch.Generator().manual_seed(0), dtype=G.dtype)
    assert torch.allclose(product(V), G @ V, rtol=1e-10, atol=1e-12)
    assert torch.linalg.eigvalsh(G)[0] > 0


def test_an_indefinite_hessian_is_refused_solved_damped_or_replaced_as_asked():
    problem = Network()
    hparams, w = problem.init_hparams(), problem.init_params()
    H, df_dw, mixed = as_matrix(problem, w, hparams)
    least = torch.linalg.eigvalsh(H)[0].item()
    assert least < 0

    def estimate(**settings):
        return hg.Implicit(inner_steps=0, error_bar=False, **settings).estimate(problem, hparams, w)

    def truth(A):
        return {"l2": -torch.linalg.solve(A, df_dw) @ mixed["l2"]}

    for linsolve in (hg.CG(max_iter=500), hg.Auto(), hg.Dense()):
        with pytest.raises(hg.IndefiniteError, match=r"-\d\.\d\de-\d+.*add damping larger than"):
            estimate(linsolve=linsolve)
    minres = estimate(linsolve=hg.MINRES(max_iter=2000, tol=1e-12))
    assert relative_error(minres.grad, truth(H)) <= 1e-6
    lu = estimate(linsolve=hg.Dense(definite=False))
    assert relative_error(lu.grad, truth(H)) <= 1e-8
    assert lu.stats["adjoint_remark"] == f"LU, because Cholesky failed: the smallest eigenvalue is {least:.2e}"
    damped = estimate(linsolve=hg.CG(max_iter=500, tol=1e-12), damping=-2 * least)
    assert relative_error(damped.grad, truth(H - 2 * least * torch.eye(len(H)))) <= 1e-8
    replaced = estimate(linsolve=hg.CG(max_iter=2000, tol=1e-12), product=hg.GaussNewton())
    assert relative_error(replaced.grad, truth(gauss_newton(problem, w, hparams))) <= 1e-6


def test_a_singular_hessian_without_damping_is_named():
    class Ignores(Network):
        def loss_of_outputs(self, outputs, params, hparams, batch):
            return outputs.square().mean() + (hparams["l2"][0] * params["W2"] ** 2).sum() + 0 * params["W1"].sum()

        def outputs(self, params, hparams, batch):
            return self.X[:40, :3] @ params["W2"][:, :3]

        def outer_loss(self, params, hparams, batch):
            return super().outer_loss(params, hparams, batch) + params["W1"].sum()

    problem = Ignores()
    for linsolve in (hg.CG(), hg.Dense(), hg.Auto(), hg.Dense(definite=False)):
        with pytest.raises(hg.IndefiniteError, match=r"[Aa]dd damping"):
            hg.Implicit(inner_steps=0, linsolve=linsolve).estimate(
                problem, problem.init_hparams(), problem.init_params()
            )
    found = hg.Implicit(inner_steps=0, linsolve=hg.MINRES(), error_bar=False).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    assert found.stats["adjoint_status"] == "inconsistent"


def test_gauss_newton_refuses_what_it_cannot_serve():
    class Other(Network):
        def loss_of_outputs(self, outputs, params, hparams, batch):
            return 2 * super().loss_of_outputs(outputs, params, hparams, batch)

        def inner_loss(self, params, hparams, batch):
            return super().inner_loss(params, hparams, batch) / 2 + 1

    with pytest.raises(ValueError, match="Other.loss_of_outputs at `outputs` must be the inner loss, .*, but it is"):
        at_start(Other(), hg.GaussNewton())
    with pytest.raises(NotImplementedError, match="Quadratic does not define `outputs`, which Gauss–Newton"):
        at_start(PROBLEMS["quadratic"], hg.GaussNewton())


@pytest.mark.parametrize("product", [hg.GaussNewton(), hg.ForwardOverReverse()], ids=["gauss-newton", "forward"])
def test_an_optimality_condition_of_ones_own_is_refused_where_symmetry_is_needed(product):
    class Own(hg.Quadratic):
        def optimality(self, params, hparams, batch):
            return super().optimality(params, hparams, batch)

    with pytest.raises(ValueError, match="needs an optimality condition that is the gradient"):
        at_start(Own(size=4), product)
