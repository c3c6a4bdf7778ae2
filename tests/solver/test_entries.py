"""A coefficient for each entry of the parameters, as in Meta-SGD, against hand-written training under autograd."""

import pytest
import torch
from runs import Network

import hypergrad as hg
from hypergrad.core.autodiff import detach, flatten, unflatten

STEPS = 5
N = 4 * 4 + 4 + 1


class PerEntry(Network):
    """The network with a learning rate and a momentum for each entry of its three tensors."""

    def hyperparameters(self):
        spread = torch.linspace(0.5, 1.5, STEPS * N).reshape(STEPS, N)
        return super().hyperparameters() | {
            "lr": hg.Hyperparameter(0.05 * spread[:1], constraint=hg.positive),
            "lrs": hg.Hyperparameter(0.05 * spread, constraint=hg.positive),
            "beta": hg.Hyperparameter(0.6 * spread[-1:].flip(1), constraint=hg.unit_interval),
            "one": hg.Hyperparameter(0.6),
        }


SOLVERS = {
    "gradient descent": hg.GradientDescent(lr="lr", groups="entry"),
    "by step": hg.GradientDescent(lr="lrs", weight_decay="beta", groups="entry"),
    "scheduled": hg.GradientDescent(lr=hg.StepDecay(base="lr", every=2, ratio=0.5), groups="entry"),
    "momentum": hg.Momentum(lr="lrs", momentum="beta", groups="entry"),
    "heavy ball": hg.Momentum(lr="lrs", momentum="one", groups="entry"),
    "nesterov": hg.Momentum(lr="lr", momentum="beta", nesterov=True, groups="entry"),
    "adam": hg.Adam(lr="lrs", beta1="beta", beta2=0.8, eps=0.1, groups="entry"),
    "adamw": hg.AdamW(lr="lr", beta1=0.5, beta2="beta", eps=0.1, weight_decay="beta", groups="entry"),
    "adagrad": hg.Adagrad(lr="lr", lr_decay="beta", initial_accumulator_value="beta", eps=0.1, groups="entry"),
    "rmsprop": hg.RMSprop(lr="lrs", alpha="beta", eps=0.1, momentum="beta", centered=True, groups="entry"),
}
UPDATES = {
    "gradient descent": lambda w, g, c, s, t: w - c("lr", t) * g,
    "by step": lambda w, g, c, s, t: w - c("lrs", t) * (g + c("beta", t) * w),
    "scheduled": lambda w, g, c, s, t: w - 0.5 ** (t // 2) * c("lr", t) * g,
    "momentum": lambda w, g, c, s, t: w - c("lrs", t) * s("v", lambda v: c("beta", t) * v + g),
    "heavy ball": lambda w, g, c, s, t: w - c("lrs", t) * s("v", lambda v: c("one", t) * v + g),
    "nesterov": lambda w, g, c, s, t: (
        w - c("lr", t) * (g + c("beta", t) * s("v", lambda v: c("beta", t) * v + g))
    ),
    "adam": lambda w, g, c, s, t: w - c("lrs", t) * adam(g, c("beta", t), 0.8, s, t),
    "adamw": lambda w, g, c, s, t: (
        w * (1 - c("lr", t) * c("beta", t)) - c("lr", t) * adam(g, 0.5, c("beta", t), s, t)
    ),
    "adagrad": lambda w, g, c, s, t: (
        w - c("lr", t) / (1 + t * c("beta", t)) * g / ((s("s", lambda v: v + g**2) + c("beta", t)).sqrt() + 0.1)
    ),
    "rmsprop": lambda w, g, c, s, t: w - c("lrs", t) * s("u", lambda u: c("beta", t) * u + rms(g, c("beta", t), s)),
}  # fmt: skip
"""w, ∇g, the coefficient of a name in step t, and what updates and returns a part of the state, to the next w."""


def adam(g, beta1, beta2, s, t):
    m = s("m", lambda m: beta1 * m + (1 - beta1) * g) / (1 - beta1 ** (t + 1))
    v = s("v", lambda v: beta2 * v + (1 - beta2) * g**2) / (1 - beta2 ** (t + 1))
    return m / (v.sqrt() + 0.1)


def rms(g, alpha, s):
    v = s("v", lambda v: alpha * v + (1 - alpha) * g**2)
    m = s("m", lambda m: alpha * m + (1 - alpha) * g)
    return g / ((v - m**2).sqrt() + 0.1)


def by_hand(problem, update, hparams):
    """F and dF/dλ of a plain loop on one flat vector, differentiated by autograd."""
    hp = {name: x.clone().requires_grad_() for name, x in hparams.items()}
    like = problem.initial(problem.init_params(), hp)
    w, parts = flatten(like), {}
    for t in range(STEPS):
        loss = problem.inner_loss(unflatten(w, like), hp, problem.inner_batch(t))
        (g,) = torch.autograd.grad(loss, w, create_graph=True)

        def state(name, function):
            parts[name] = function(parts.get(name, torch.zeros(N)))
            return parts[name]

        def value(name, t):
            x = hp[name]
            return x if x.ndim == 0 else x[t if len(x) == STEPS else 0]

        w = update(w, g, value, state, t)
    loss = problem.outer_loss(unflatten(w, like), hp, None)
    grads = torch.autograd.grad(loss, tuple(hp.values()), allow_unused=True, materialize_grads=True)
    return loss.item(), dict(zip(hp, grads, strict=True))


def case(name):
    problem, solver = PerEntry(), SOLVERS[name]
    roots = [v.base if isinstance(v, hg.StepDecay) else v for v in solver.coefficients().values()]
    unused = {"lr", "lrs", "beta", "one"} - {v for v in roots if isinstance(v, str)}
    return problem, solver, {k: v for k, v in problem.init_hparams().items() if k not in unused}


def require_equal(found, wanted, rtol=1e-9):
    loss, grad = wanted
    assert found.outer_loss == pytest.approx(loss, rel=rtol)
    assert found.grad.keys() == grad.keys()
    for name in grad:
        torch.testing.assert_close(found.grad[name], grad[name], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_way_of_differentiating_is_the_plain_loop(name):
    problem, solver, hparams = case(name)
    wanted = by_hand(problem, UPDATES[name], hparams)
    assert all(x.abs().max() > 0 for x in wanted[1].values())
    for tape in (hg.Graph(), hg.Store(), hg.Checkpoint()):
        found = hg.Unrolled(solver=solver, tape=tape, inner_steps=STEPS).estimate(
            problem, hparams, problem.init_params()
        )
        require_equal(found, wanted)
    forward = hg.Forward(solver=solver, inner_steps=STEPS).estimate(problem, hparams, problem.init_params())
    require_equal(forward, wanted)


def test_training_runs_backwards_with_a_rate_for_each_entry():
    problem, solver, hparams = case("heavy ball")
    estimator = hg.Unrolled(solver=solver, tape=hg.Reversible(), inner_steps=STEPS)
    found = estimator.estimate(problem, hparams, problem.init_params())
    require_equal(found, by_hand(problem, UPDATES["heavy ball"], hparams), rtol=1e-7)
    problem, solver, hparams = case("momentum")
    with pytest.raises(ValueError, match="one momentum for each tensor, but here each entry has its own"):
        hg.Unrolled(solver=solver, tape=hg.Reversible(), inner_steps=STEPS).estimate(
            problem, hparams, problem.init_params()
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient descent", "adam"])
def test_compiled_steps(name):
    problem, solver, hparams = case(name)
    found = hg.Unrolled(solver=solver, inner_steps=STEPS, compile=True).estimate(
        problem, hparams, problem.init_params()
    )
    require_equal(found, by_hand(problem, UPDATES[name], hparams))
    assert "compiled" in str(found.stats["training_remark"])


def test_proximal_gradient_moves_each_entry_by_its_own_rate():
    class Rates(hg.Lasso):
        def hyperparameters(self):
            p = self.X.shape[1]
            rates = hg.Hyperparameter(torch.linspace(0.01, 0.1, p)[None], constraint=hg.positive)
            return super().hyperparameters() | {"lr": rates}

    problem = Rates(hg.diabetes(seed=1), l1=0.05)
    hparams = problem.init_hparams()
    found = hg.Unrolled(solver=hg.ProximalGradient(lr="lr", groups="entry"), inner_steps=1).estimate(
        problem, hparams, problem.init_params()
    )
    z = 2 * hparams["lr"][0] * (problem.X.X.T @ problem.y) / len(problem.y)
    threshold = hparams["lr"][0] * hparams["l1"]
    torch.testing.assert_close(found.params["weight"], z.sign() * (z.abs() - threshold).clamp(min=0))


def test_the_number_of_entries_is_checked():
    problem, hparams = Network(), {"lr": torch.full((1, 3), 0.1)}
    with pytest.raises(ValueError, match=rf'has shape \(1, 3\), but .* shape \(1, {N}\) .* with groups="entry" each'):
        hg.GradientDescent(lr="lr", groups="entry").validate(hparams, STEPS, problem.init_params())
    with pytest.raises(ValueError, match=rf"no coefficient differs by group; .* shape \(1, {N}\) or \({STEPS}, {N}\)"):
        hg.GradientDescent(lr=0.1, groups="entry").validate({}, STEPS, problem.init_params())
    with pytest.raises(TypeError, match="must be a list of patterns, or \"entry\", but it is 'entries'"):
        hg.GradientDescent(lr=0.1, groups="entries")  # pyright: ignore[reportArgumentType]


def test_entries_that_are_equal_change_nothing():
    problem, _, hparams = case("gradient descent")
    alike = {**hparams, "lr": torch.full((1, N), 0.05)}
    one = {**hparams, "lr": torch.tensor(0.05)}
    found = hg.Unrolled(solver=SOLVERS["gradient descent"], inner_steps=STEPS).estimate(
        problem, alike, problem.init_params()
    )
    same = hg.Unrolled(solver=hg.GradientDescent(lr="lr"), inner_steps=STEPS).estimate(
        problem, one, problem.init_params()
    )
    assert found.outer_loss == same.outer_loss
    torch.testing.assert_close(found.grad["lr"].sum(), same.grad["lr"], rtol=1e-12, atol=0)
    assert set(detach(found.params)) == {"W", "v", "b"}
