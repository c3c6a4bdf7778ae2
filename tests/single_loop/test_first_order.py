"""F2SA, BOME and MEHA against loops by hand on batches that differ, with the means and noise of their directions."""

import math
from typing import Any

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.core.cost import Spent

LR, LR_HP = 0.1, 0.01
SOLVER = hg.GradientDescent(lr=LR)


def g(problem, step, w, penalty, shift):
    """∇_w g and ∇_λ g on the batch of a step, times its weight."""
    wrt_hparams = torch.cat([(w @ w / 2).reshape(1), -problem.C.T @ w])
    return problem.inner_terms(step, w, penalty, shift)[0], problem.inner_place(step).weight * wrt_hparams


def f(problem, step, w, penalty, shift):
    """∇_w f and ∇_λ f on the batch of a step, times its weight."""
    wrt_hparams = torch.cat([(2 * penalty).reshape(1), problem.D @ w + shift])
    return problem.outer_gradient(step, w, shift), problem.outer_place(step).weight * wrt_hparams


def f2sa(problem, t, w, z, λ, T, same):
    s, per_step, f_λ, g_λ, z_λ = 3 + 0.2 * t, 1 if same else 2, *3 * [torch.zeros(4)]
    for step in range(t * T * per_step, (t + 1) * T * per_step, per_step):
        f_w, f_λ = f(problem, t, w, *λ)
        g_w, g_λ = g(problem, step, w, *λ)
        z_w, z_λ = g(problem, step + per_step - 1, z, *λ)
        w, z = w - LR / s * (s * g_w + f_w), z - LR * z_w
    return w, z, f_λ + s * (g_λ - z_λ)


def bome(problem, t, w, other, λ, T):
    ahead, (g_w, g_λ), (f_w, f_λ) = w, g(problem, t * T, w, *λ), f(problem, t, w, *λ)
    for step in range(t * T, (t + 1) * T):
        ahead = ahead - 0.2 * g(problem, step, ahead, *λ)[0]
    q = torch.cat([g_w, g_λ - g(problem, t * T, ahead, *λ)[1]])
    multiplier = max(0.7 - float(torch.cat([f_w, f_λ]) @ q / (q @ q)), 0)
    direction = torch.cat([f_w, f_λ]) + multiplier * q
    return w - LR * direction[:7], other, direction[7:]


def meha(problem, t, w, θ, λ):
    c = 2 * (t + 1) ** 0.3
    θ = θ - LR * (g(problem, 2 * t, θ, *λ)[0] + (θ - w) / 1.5)
    (f_w, f_λ), (g_w, g_λ) = f(problem, t, w, *λ), g(problem, 2 * t + 1, w, *λ)
    direction = f_λ + c * (g_λ - g(problem, 2 * t + 1, θ, *λ)[1])
    return w - LR * (f_w / c + g_w - (w - θ) / 1.5), θ, direction


PENALTY = {"multiplier": 3, "growth": 0.2, "solver": SOLVER}
METHODS = {
    "f2sa": (hg.F2SA(**PENALTY), lambda *state: f2sa(*state, T=1, same=True)),
    "f2sa, fresh": (hg.F2SA(same_batch=False, **PENALTY), lambda *state: f2sa(*state, T=1, same=False)),
    "f2sa, 3 steps": (hg.F2SA(inner_steps=3, **PENALTY), lambda *state: f2sa(*state, T=3, same=True)),
    "bome": (hg.BOME(solver=SOLVER, barrier=0.7, inner_steps=4, inner_lr=0.2), lambda *state: bome(*state, T=4)),
    "meha": (hg.MEHA(solver=SOLVER, multiplier=2, growth_power=0.3, smoothing=1.5), meha),
}


@pytest.mark.parametrize("name", METHODS)
def test_equals_a_loop_by_hand(name):
    problem, moves, (method, by_hand) = LeastSquares(), 50, METHODS[name]
    w, other, D_λ, λ = torch.zeros(7), torch.zeros(7), torch.zeros(4), tuple(problem.init_hparams().values())
    for t in range(moves):
        w, other, D_λ = by_hand(problem, t, w, other, λ)
        if t < moves - 1:
            λ = λ[0] * torch.exp(-LR_HP * λ[0] * D_λ[0]), λ[1] - LR_HP * D_λ[1:]
    result = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=method),
        optimizer=lambda u: torch.optim.SGD(u, lr=LR_HP),
        outer_steps=moves - 1,
    ).fit()
    torch.testing.assert_close(flatten(result.last.params), w, rtol=0, atol=1e-12)
    torch.testing.assert_close(flatten(result.last.grad), D_λ, rtol=0, atol=1e-12)
    torch.testing.assert_close(flatten(result.last.hparams), torch.cat([x.reshape(-1) for x in λ]), rtol=0, atol=1e-12)


class StopAt(hg.Callback):
    """An interrupt after an outer step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


RESUMED = {name: METHODS[name][0] for name in ("f2sa, 3 steps", "bome", "meha")} | {
    "f2sa with adamw": hg.F2SA(solver=hg.AdamW(lr=0.05), growth=0.5)
}


@pytest.mark.parametrize("method", RESUMED.values(), ids=RESUMED)
def test_a_run_that_is_cut_goes_on_to_the_same_bits(tmp_path, method):
    def run(*callbacks):
        return hg.Trainer(
            problem=LeastSquares(),
            estimator=hg.SingleLoop(method=method),
            optimizer=lambda u: torch.optim.Adam(u, lr=LR_HP),
            outer_steps=12,
            callbacks=callbacks,
        )

    whole, saver = run().fit(), hg.StateSaver(tmp_path, every=2)
    with pytest.raises(KeyboardInterrupt):
        run(saver, StopAt(7)).fit()
    cut = run(saver).fit(resume=tmp_path)
    for a, b in ((whole.last.params, cut.last.params), (whole.last.hparams, cut.last.hparams)):
        assert torch.equal(flatten(a), flatten(b))
    assert torch.equal(flatten(whole.last.grad), flatten(cut.last.grad))


def moves_of_an_epoch(method, *, params, carry):
    """The estimate from one point on each batch of train, with one of dev."""
    problem = LeastSquares()
    estimator = hg.SingleLoop(method=method)
    return [
        estimator.estimate(
            problem, problem.init_hparams(), params, outer_step=k, inner_step=k * estimator.inner_steps, carry=carry
        )
        for k in range(5)
    ]


@pytest.mark.parametrize("same", [True, False])
def test_the_directions_of_f2sa_have_the_mean_of_all_data(same):
    problem, (y, z) = LeastSquares(), torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    (penalty, shift), s = problem.init_hparams().values(), 3.0
    carry = {"t": 0, "memory": {"solver": {}, "z": problem.shaped(z), "z_solver": {}}}
    method = hg.F2SA(multiplier=s, growth=0.0, same_batch=same, solver=SOLVER)
    found = moves_of_an_epoch(method, params=problem.shaped(y), carry=carry)
    H = problem.X.T @ problem.X / 22 + penalty * torch.eye(7)
    g_w = [H @ w - problem.X.T @ problem.y / 22 - problem.C @ shift for w in (y, z)]
    g_λ = [torch.cat([(w @ w / 2).reshape(1), -problem.C.T @ w]) for w in (y, z)]
    f_w = problem.Z.T @ (problem.Z @ y - problem.t) / 17 + problem.D.T @ shift
    f_λ = torch.cat([(2 * penalty).reshape(1), problem.D @ y + shift])
    mean_of = {
        "y": (y - LR * (g_w[0] + f_w / s), [flatten(x.params) for x in found]),
        "z": (z - LR * g_w[1], [flatten(x.carry["memory"]["z"]) for x in found]),
        "λ": (f_λ + s * (g_λ[0] - g_λ[1]), [flatten(x.grad) for x in found]),
    }
    for expected, values in mean_of.values():
        torch.testing.assert_close(torch.stack(values).mean(0), expected, rtol=0, atol=1e-12)


def test_with_one_batch_for_both_copies_the_noise_of_f2sa_does_not_grow_with_the_multiplier():
    problem, noise = LeastSquares(), {}
    H, r = problem.X.T @ problem.X / 22 + 0.4 * torch.eye(7), problem.X.T @ problem.y / 22
    z = torch.linalg.solve(H, r + problem.C @ problem.init_hparams()["shift"])
    direction = torch.linalg.solve(H, problem.Z.T @ (problem.Z @ z - problem.t) / 17)
    for same in (True, False):
        for s in (100.0, 1000.0):
            carry = {"t": 0, "memory": {"solver": {}, "z": problem.shaped(z), "z_solver": {}}}
            method = hg.F2SA(multiplier=s, growth=0.0, same_batch=same, solver=SOLVER)
            found = moves_of_an_epoch(method, params=problem.shaped(z - direction / s), carry=carry)
            noise[same, s] = float(torch.stack([flatten(x.grad) for x in found]).std(0).norm())
    assert 0.9 < noise[True, 1000.0] / noise[True, 100.0] < 1.1
    assert 8 < noise[False, 1000.0] / noise[False, 100.0] < 12
    assert noise[True, 1000.0] < 0.02 * noise[False, 1000.0]


def test_each_copy_is_trained_by_its_own_adamw():
    problem, solver, s = hg.Quadratic(), hg.AdamW(lr=0.05, weight_decay=0.1), 4.0
    hparams, params = problem.init_hparams(), problem.init_params()

    def penalty(w, hparams, batch):
        return problem.inner_loss(w, hparams, batch) + problem.outer_loss(w, hparams, batch) / s

    trained = []
    losses: list[Any] = [penalty, problem.inner_loss]
    for loss in losses:
        state = solver.init(params)
        for step in range(6):
            grads = torch.func.grad(loss)(state["params"], hparams, None)
            state = solver.update(state, grads, solver.coefficients_at(hparams, 0, params), step)
        trained.append(state["params"])
    method, moved = hg.F2SA(solver=solver, multiplier=s, growth=0.0, inner_steps=2), params
    carry: Any = None
    for _ in range(3):
        found = hg.SingleLoop(method=method).estimate(problem, hparams, moved, carry=carry)
        moved, carry = found.params, found.carry
    torch.testing.assert_close([moved, carry["memory"]["z"]], trained, rtol=0, atol=1e-12)


class Decayed(hg.Quadratic):
    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams, batch) + 0.05 * flatten(params).square().sum()


@pytest.mark.parametrize("method", [hg.F2SA, hg.MEHA])
def test_a_weight_decay_of_gradient_descent_is_a_penalty_of_the_inner_loss(method):
    hypergrads: list[Any] = []
    for problem, decay in ((hg.Quadratic(), 0.1), (Decayed(), 0.0)):
        estimator = hg.SingleLoop(method=method(solver=hg.GradientDescent(lr=0.1, weight_decay=decay)))
        params, carry = problem.init_params(), None
        found: Any = None
        for _ in range(10):
            found = estimator.estimate(problem, problem.init_hparams(), params, carry=carry)
            params, carry = found.params, found.carry
        hypergrads.append(found.grad)
    torch.testing.assert_close(*hypergrads, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [hg.F2SA(), hg.MEHA(smoothing=0.1)], ids=["f2sa", "meha"])
def test_without_a_solver_the_step_is_stable(method):
    problem = hg.Quadratic()
    hparams, params, carry = problem.init_hparams(), problem.init_params(), None
    norm = math.nan
    for _ in range(30):
        found = hg.SingleLoop(method=method).estimate(problem, hparams, params, carry=carry)
        params, carry, norm = found.params, found.carry, float(found.stats["inner_grad_norm"])
    assert norm < 0.2 * float(problem.c.norm())


@pytest.mark.parametrize(
    ("method", "num_batches", "gradients"),
    [
        (hg.F2SA(solver=SOLVER, inner_steps=3), 3, 6),
        (hg.F2SA(solver=SOLVER, inner_steps=3, same_batch=False), 6, 6),
        (hg.BOME(inner_steps=4), 4, 5),
        (hg.MEHA(solver=SOLVER), 2, 3),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, hg.Method) else str(x),
)
def test_cost(method, num_batches, gradients):
    problem, spent = LeastSquares(), Spent()
    estimator = hg.SingleLoop(method=method)
    with spent.counting():
        found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert (estimator.inner_steps, spent.gradients, spent.matvecs) == (num_batches, gradients, 0)
    assert found.num_matvecs == method.num_matvecs == 0
    assert found.adjoint_system is None
