import pytest
import torch
from optima import OPTIMA, SEED, A, central_jacobian
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import hypergrad as hg
from hypergrad.sensitivity import argmin as module

DENSE = {"dense": 2000, "matrix-free": 0}


@pytest.fixture(params=DENSE)
def largest_dense(request, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_DENSE", DENSE[request.param])
    return request.param


def autograd_jacobian(function):
    return lambda x: torch.autograd.functional.jacobian(function, x.clone(), create_graph=True)


@pytest.mark.parametrize("optimum", OPTIMA.values(), ids=OPTIMA)
@pytest.mark.parametrize("modes", [(jacfwd,), (jacrev,), (autograd_jacobian,)], ids=["jacfwd", "jacrev", "autograd"])
def test_the_jacobian_is_the_formula(largest_dense, optimum, modes):
    objective, solve, hpar0, _ = optimum
    w0 = solve(hpar0)
    truth = -torch.linalg.solve(hessian(objective)(w0, hpar0), jacfwd(grad(objective), argnums=1)(w0, hpar0))
    function = hg.argmin(objective, w0, hpar0)
    torch.testing.assert_close(function(hpar0), w0, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(modes[0](function)(hpar0), truth, rtol=1e-8, atol=1e-10)


NESTINGS = {
    "forward": (jacfwd, jacfwd, jacfwd),
    "reverse": (jacrev, jacrev, jacrev),
    "autograd": (autograd_jacobian, autograd_jacobian, autograd_jacobian),
    "mixed": (jacrev, jacfwd, jacrev),
    "mixed-autograd": (jacfwd, jacrev, autograd_jacobian),
}


@pytest.mark.parametrize("modes", NESTINGS.values(), ids=NESTINGS)
def test_higher_orders_in_any_nesting_are_the_taylor_series(largest_dense, modes):
    objective, solve, hpar0, delta = SEED
    truth = hg.TaylorExpansion(order=3).at(objective, solve(hpar0), hpar0).derivatives(delta)
    function = hg.argmin(objective, solve(hpar0), hpar0, order=3)
    for k, mode in enumerate(modes):
        function = mode(function)
        found = function(hpar0)
        for _ in range(k + 1):
            found = found @ delta
        torch.testing.assert_close(found, truth[k], rtol=1e-8, atol=1e-12)


def test_a_higher_order_by_autograd_than_it_was_made_for_is_refused():
    objective, solve, hpar0, _ = SEED
    function = hg.argmin(objective, solve(hpar0), hpar0)
    with pytest.raises(ValueError, match="Make it with order=2"):
        torch.autograd.functional.hessian(lambda h: function(h).sum(), hpar0)
    twice = jacrev(lambda h: function(h).sum())
    torch.autograd.functional.jacobian(twice, hpar0)
    with pytest.raises(ValueError, match="Make it with order=2"):
        torch.autograd.functional.hessian(lambda h: twice(h).sum(), hpar0)


ELSEWHERE = {
    "value": lambda f, x, y: f(y),
    "jvp": lambda f, x, y: jvp(f, (y,), (x,)),
    "jacrev": lambda f, x, y: jacrev(f)(y),
    "vmap": lambda f, x, y: vmap(f)(torch.stack([x, y])),
    "vmap-grad": lambda f, x, y: vmap(grad(lambda h: f(h).sum()))(torch.stack([x, y])),
    "jacfwd-vmap": lambda f, x, y: jacfwd(vmap(f))(torch.stack([x, y])),
    "autograd": lambda f, x, y: f(y.clone().requires_grad_()),
}


@pytest.mark.parametrize("evaluate", ELSEWHERE.values(), ids=ELSEWHERE)
def test_another_value_is_refused_under_every_transform(largest_dense, evaluate):
    objective, solve, hpar0, delta = SEED
    function = hg.argmin(objective, solve(hpar0), hpar0)
    with pytest.raises(ValueError, match='away from it.*at="resolve"'):
        evaluate(function, hpar0, hpar0 + 0.1 * delta)


def test_another_value_is_solved_for_under_every_transform():
    objective, solve, hpar0, delta = SEED
    function = hg.argmin(objective, solve(hpar0), hpar0, at="resolve")
    batch = torch.stack([hpar0, hpar0 + 0.3 * delta, hpar0 - 0.2 * delta])
    torch.testing.assert_close(vmap(function)(batch), torch.stack([solve(h) for h in batch]), rtol=1e-9, atol=1e-11)
    truth = torch.stack([central_jacobian(solve, h) for h in batch])
    for found in (vmap(jacrev(function))(batch), vmap(jacfwd(function))(batch)):
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-9)
    leaf = batch.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(vmap(function)(leaf).sum(), leaf)
    torch.testing.assert_close(pulled, truth.sum(1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("at", ["resolve", "raise"])
def test_a_batch_of_values_matrix_free(monkeypatch, at):
    """Each λ of a batch has its own Hessian, which conjugate gradient uses only in products."""
    monkeypatch.setattr(module, "_LARGEST_DENSE", 0)
    objective, solve, hpar0, delta = SEED
    function = hg.argmin(objective, solve(hpar0), hpar0, at=at, linsolve=hg.CG(tol=1e-13, max_iter=50))
    shifts = (0.0, 0.5, -0.3) if at == "resolve" else (0.0, 0.0)
    batch = torch.stack([hpar0 + shift * delta for shift in shifts])
    torch.testing.assert_close(vmap(function)(batch), torch.stack([solve(h) for h in batch]), rtol=1e-9, atol=1e-11)
    truth = torch.stack([central_jacobian(solve, h) for h in batch])
    for found in (vmap(jacrev(function))(batch), vmap(jacfwd(function))(batch)):
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-9)
    across = jacrev(vmap(function))(batch)
    for i in range(len(batch)):
        torch.testing.assert_close(across[i, :, i], truth[i], rtol=1e-6, atol=1e-9)
    leaf = batch.clone().requires_grad_()
    (pulled,) = torch.autograd.grad(vmap(function)(leaf).sum(), leaf)
    torch.testing.assert_close(pulled, truth.sum(1), rtol=1e-6, atol=1e-9)
    twice = vmap(jacfwd(jacrev(function)))(batch)
    dense = [hg.TaylorExpansion(order=2).at(objective, solve(h), h).tensor(2) for h in batch]
    torch.testing.assert_close(twice, torch.stack(dense), rtol=1e-7, atol=1e-9)


def test_a_million_parameters_matrix_free():
    scale = torch.linspace(1, 2, 10**6)

    def objective(w, hp):
        return ((w - hp) ** 2 * scale).sum() / 2 + hp * (w**2).sum() / 2  # w* = s λ / (s + λ)

    w0, hp0 = scale * 0.5 / (scale + 0.5), torch.tensor(0.5)
    function = hg.argmin(objective, w0, hp0, linsolve=hg.CG(tol=1e-10))
    truth = (scale / (scale + 0.5)) ** 2
    torch.testing.assert_close(jvp(function, (hp0,), (torch.ones(()),))[1], truth, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(grad(lambda h: function(h).sum())(hp0), truth.sum(), rtol=1e-8, atol=0.0)


def test_a_root_with_a_nonsymmetric_jacobian_and_a_fixed_point():
    B = 0.1 * A + 0.1 * torch.tensor([[0.0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, -1], [1, 0, 0, 0]])

    def step(w, hp):
        return torch.tanh(B @ w + hp.sum()) + hp[0] * torch.arange(4.0)

    def solve(hp):
        w = torch.zeros(4)
        for _ in range(2000):
            w = step(w, hp)
        return w

    hp0 = torch.tensor([0.1, 0.2, -0.1])
    function = hg.argmin(hg.Root(lambda w, hp: w - step(w, hp)), solve(hp0), hp0)
    truth = central_jacobian(solve, hp0)
    torch.testing.assert_close(jacrev(function)(hp0), truth, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(jacfwd(function)(hp0), truth, rtol=1e-6, atol=1e-8)
    curved = central_jacobian(lambda h: jacrev(hg.argmin(hg.Root(lambda w, hp: w - step(w, hp)), solve(h), h))(h), hp0)
    torch.testing.assert_close(jacfwd(jacrev(function))(hp0), curved, rtol=1e-6, atol=1e-8)


def kkt(z: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """min ½ xᵀQx + pᵀx s.t. Gx ≤ h, Ax = b: stationarity, complementary slackness, feasibility."""
    Q, G, E = given["Q"], given["G"], given["A"]
    return {
        "x": Q @ z["x"] + given["p"] + G.T @ z["dual"] + E.T @ z["nu"],
        "dual": z["dual"] * (G @ z["x"] - given["h"]),
        "nu": E @ z["x"] - given["b"],
    }


def programme(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A quadratic programme with one active and one inactive inequality, and its solution."""
    g = torch.Generator().manual_seed(seed)
    L = torch.randn(4, 4, generator=g)
    given = {"Q": L @ L.T + torch.eye(4), "p": torch.randn(4, generator=g), "G": torch.randn(2, 4, generator=g)}
    given |= {"A": torch.randn(1, 4, generator=g), "b": torch.randn(1, generator=g)}
    x = torch.linalg.lstsq(given["A"], given["b"]).solution
    active = given["G"][0] @ x - 1.0  # cuts off part of the feasible set
    given["h"] = torch.stack([active, given["G"][1] @ x + 100.0])
    rows = torch.cat([given["G"][:1], given["A"]])
    K = torch.cat([torch.cat([given["Q"], rows.T], 1), torch.cat([rows, torch.zeros(2, 2)], 1)])
    z = torch.linalg.solve(K, torch.cat([-given["p"], given["h"][:1], given["b"]]))
    if z[4] < 0:  # the opposite inequality, which is active
        given["G"], given["h"] = given["G"] * torch.tensor([[-1.0], [1]]), given["h"] * torch.tensor([-1.0, 1])
        return given, {"x": z[:4], "dual": torch.stack([-z[4], z[4] * 0]), "nu": z[5:]}
    return given, {"x": z[:4], "dual": torch.stack([z[4], z[4] * 0]), "nu": z[5:]}


@pytest.mark.parametrize("name", ["Q", "p", "G", "h", "A", "b"])
def test_a_quadratic_programme_by_its_kkt_system_for_every_input(name):
    given, solution = programme(0)
    layer = hg.argmin(hg.Root(kkt), solution, given, at="resolve")

    def x_of(value):
        return layer(given | {name: value})["x"]

    torch.testing.assert_close(jacrev(x_of)(given[name]), central_jacobian(x_of, given[name]), rtol=1e-6, atol=1e-7)


def test_a_batch_of_programmes_and_a_shared_parameter_whose_gradients_add_up():
    given, solution = programme(0)
    layer = hg.argmin(hg.Root(kkt), solution, given, at="resolve")
    p = torch.stack([given["p"], given["p"] + 0.01, given["p"] - 0.02])

    def one(Q, p):
        return layer(given | {"Q": Q, "p": p})["x"].square().sum()

    def total(Q, p):
        return vmap(lambda p: one(Q, p))(p).sum()

    alone = [grad(one, (0, 1))(given["Q"], row) for row in p]
    Q_grad, p_grad = grad(total, (0, 1))(given["Q"], p)
    torch.testing.assert_close(Q_grad, sum(each[0] for each in alone))
    torch.testing.assert_close(p_grad, torch.stack([each[1] for each in alone]))
    torch.testing.assert_close(Q_grad, central_jacobian(lambda Q: total(Q, p), given["Q"]), rtol=1e-6, atol=1e-7)


def test_as_a_layer_inside_a_module():
    objective, solve, hpar0, delta = SEED

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 3)
            with torch.no_grad():
                self.inner.weight.mul_(0.1)
            self.argmin = hg.argmin(objective, solve(hpar0), hpar0, at="resolve")

        def forward(self, x):
            return self.argmin(self.inner(x)).sum()

    torch.manual_seed(0)
    layer, x = Layer(), torch.tensor([0.3, -0.2])
    layer(x).backward()
    weight = layer.inner.weight.detach()
    truth = central_jacobian(lambda W: solve(W @ x + layer.inner.bias.detach()).sum(), weight)
    torch.testing.assert_close(layer.inner.weight.grad, truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"), [({"at": "maybe"}, '"raise" or "resolve"'), ({"order": -1}, "integer ≥ 0")], ids=repr
)
def test_bad_settings_are_refused(settings, message):
    objective, solve, hpar0, _ = SEED
    with pytest.raises(ValueError, match=message):
        hg.argmin(objective, solve(hpar0), hpar0, **settings)


def test_what_is_no_solver_and_no_problem_is_refused():
    objective, solve, hpar0, _ = SEED
    linsolve, inner = "cg", hg.Ridge  # of other types
    with pytest.raises(TypeError, match="linsolve must be a LinearSolver, such as hg.CG"):
        hg.argmin(objective, solve(hpar0), hpar0, linsolve=linsolve)  # pyright: ignore
    with pytest.raises(TypeError, match="The inner problem must be an InnerProblem, .* of a class, make an object"):
        hg.argmin(inner, solve(hpar0), hpar0)  # pyright: ignore
    with pytest.raises(TypeError, match="must hold values, but .* is on the device meta"):
        hg.argmin(objective, solve(hpar0).to("meta"), hpar0)
    for make in (hg.LinearResponse, hg.TaylorExpansion):
        with pytest.raises(ValueError, match=f"{make.__name__}.tol must be at least 0"):
            make(tol=-1.0)


def test_a_system_that_is_not_solved_is_a_warning(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_DENSE", 0)
    objective, solve, hpar0, delta = SEED
    function = hg.argmin(objective, solve(hpar0), hpar0, linsolve=hg.CG(max_iter=1, tol=1e-12))
    with pytest.warns(hg.NotConvergedWarning, match=r"left at a relative residual .* raise max_iter or tol of CG"):
        jvp(function, (hpar0,), (delta,))


def test_a_vector_of_another_shape_is_refused():
    objective, solve, hpar0, _ = SEED
    with pytest.raises(ValueError, match="was made for hyperparameters of shapes"):
        hg.argmin(objective, solve(hpar0), hpar0)(torch.zeros(4))


def test_where_newton_does_not_arrive_it_says_so():
    function = hg.argmin(lambda w, hp: hp * w**2 / 2 - w, torch.tensor(1.0), torch.tensor(1.0), at="resolve")
    with pytest.raises(hg.HypergradError):
        function(torch.tensor(0.0))
