"""Meta-gradients: held against loops by hand, closed forms and differences, task by task."""

from functools import partial

import pytest
import torch
from tables import relative_error
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import central_difference


def network(*widths):
    torch.manual_seed(3)
    layers = [layer for k, n in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(k, n), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def waves(*, hidden=(8, 8), **settings):
    usual = {"tasks": hg.Sinusoids(shots=5, queries=7), "tasks_per_step": 3, "test_tasks": 2}
    return hg.MetaLearning(model=network(1, *hidden, 1), loss=mse_loss, **usual | settings)


def classes(**settings):
    family = hg.FewShot(data=hg.digits(), ways=3, shots=2, queries=4)
    return hg.MetaLearning(model=network(64, 6, 3), loss=cross_entropy, tasks=family, tasks_per_step=3, **settings)


def by_hand(problem, hparams, *, lr, steps, first_order=False):
    """The mean dev loss of the tasks of a step, one after the other, as one would write it."""
    losses = []
    for i in range(problem.tasks_per_step):
        w = dict(hparams)
        for _ in range(steps):
            z = functional_call(problem.model.module, w, (problem.X_support[i],))
            loss = problem.criterion.loss(z.squeeze(1) if z.shape[1] == 1 else z, problem.y_support[i])
            grads = torch.autograd.grad(loss, tuple(w.values()), create_graph=not first_order)
            w = {name: x - lr * grad for (name, x), grad in zip(w.items(), grads, strict=True)}
        z = functional_call(problem.model.module, w, (problem.X_query[i],))
        losses.append(problem.criterion.loss(z.squeeze(1) if z.shape[1] == 1 else z, problem.y_query[i]))
    return torch.stack(losses).mean()


def grad_by_hand(problem, hparams, **settings):
    point = {name: x.clone().requires_grad_() for name, x in hparams.items()}
    loss = by_hand(problem, point, **settings)
    return loss.item(), dict(zip(point, torch.autograd.grad(loss, tuple(point.values())), strict=True))


def moved(problem, scale=0.1):
    """λ away from where the model starts."""
    g = torch.Generator().manual_seed(1)
    return {name: x + scale * torch.randn(x.shape, generator=g) for name, x in problem.init_hparams().items()}


PROBLEMS = {"waves": waves, "classes": classes, "waves of step 3": lambda: waves().at_outer_step(3)}


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(("horizon", "first_order"), [(None, False), (0, True)], ids=["second order", "first order"])
@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_maml_and_its_first_order_are_those_of_a_loop_over_the_tasks(make, horizon, first_order, steps):
    problem = make()
    hparams = moved(problem)
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=steps, horizon=horizon)
    found = estimator.estimate(problem, hparams, problem.init_params())
    loss, truth = grad_by_hand(problem, hparams, lr=0.05, steps=steps, first_order=first_order)
    assert found.outer_loss == pytest.approx(loss, rel=1e-12)
    assert relative_error(found.grad, truth) <= 1e-10
    assert found.stats["num_matvecs"] == (0 if first_order else steps)


@pytest.mark.parametrize(
    "estimator",
    [
        hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=1),
        hg.Unrolled(solver=hg.Momentum(lr=0.03, momentum=0.8), inner_steps=5, tape=hg.Store()),
    ],
    ids=["one step", "momentum"],
)
@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_the_second_order_meta_gradient_is_that_of_differences(make, estimator):
    problem = make()
    hparams = moved(problem)
    found = estimator.estimate(problem, hparams, problem.init_params())
    for name, x in hparams.items():
        direction = {k: torch.zeros_like(v) for k, v in hparams.items()}
        direction[name] = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))

        def dev_loss(at):
            w = estimator.training.run(problem, at, problem.init_params()).params
            return problem.outer_loss(w, at, None)

        slope = central_difference(dev_loss, hparams, direction, step=1e-5).item()
        assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


def linear(*, proximity, test_tasks=1):
    """y = w x: one parameter for each task, and everything in closed form."""
    model = nn.Linear(1, 1, bias=False)
    family = hg.Sinusoids(shots=4, queries=3)
    return hg.MetaLearning(
        model=model, loss=mse_loss, tasks=family, tasks_per_step=3, test_tasks=test_tasks, proximity=proximity
    )


@pytest.mark.parametrize("proximity", [0.0, 2.0])
def test_through_gradient_steps_the_closed_form_of_a_quadratic(proximity):
    problem, lr, steps = linear(proximity=proximity), 0.03, 4
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=lr), inner_steps=steps)
    found = estimator.estimate(problem, {"weight": torch.tensor([[0.7]])}, problem.init_params())
    x, x_query = problem.X_support[:3, :, 0], problem.X_query[:3, :, 0]
    h, c = 2 * x.square().mean(1), 2 * (x * problem.y_support[:3]).mean(1)
    w, dw = torch.full((3,), 0.7), torch.ones(3)
    for _ in range(steps):
        w, dw = (
            (1 - lr * (h + proximity)) * w + lr * (c + proximity * 0.7),
            (1 - lr * (h + proximity)) * dw + lr * proximity,
        )
    df = 2 * (x_query * (x_query * w[:, None] - problem.y_query[:3])).mean(1)
    assert found.grad["weight"].item() == pytest.approx((df * dw).mean().item(), rel=1e-10)


@pytest.mark.parametrize("proximity", [0.5, 4.0])
@pytest.mark.parametrize("linsolve", [hg.CG(tol=1e-12), hg.Dense()], ids=["cg", "dense"])
def test_implicitly_the_closed_form_of_a_quadratic_at_two_proximities(linsolve, proximity):
    problem, start = linear(proximity=proximity), 0.7
    estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=linsolve, inner_tol=1e-12)
    found = estimator.estimate(problem, {"weight": torch.tensor([[start]])}, problem.init_params())
    x, x_query = problem.X_support[:3, :, 0], problem.X_query[:3, :, 0]
    h, c = 2 * x.square().mean(1), 2 * (x * problem.y_support[:3]).mean(1)
    w = (c + proximity * start) / (h + proximity)
    torch.testing.assert_close(found.params["weight"][:3, 0, 0], w)
    df = 2 * (x_query * (x_query * w[:, None] - problem.y_query[:3])).mean(1)
    assert found.grad["weight"].item() == pytest.approx((df / (1 + h / proximity)).mean().item(), rel=1e-8)


def test_the_implicit_meta_gradient_solves_its_system_and_does_not_depend_on_the_way():
    problem = waves(proximity=2.0)
    hparams = moved(problem)
    ways = {
        "gradient descent": hg.GradientDescent(lr=0.02),
        "momentum": hg.Momentum(lr=0.02, momentum=0.8),
        "L-BFGS": hg.LBFGS(),
        "Newton": hg.Newton(),
    }
    found = {}
    for name, solver in ways.items():
        estimator = hg.Implicit(
            solver=solver, linsolve=hg.CG(tol=1e-8, max_iter=1000), inner_steps=20_000, inner_tol=1e-8, error_bar=False
        )
        found[name] = estimator.estimate(problem, hparams, problem.init_params())
        assert found[name].stats["inner_status"] == "converged"
        assert float(found[name].stats["adjoint_residual"]) < 1e-6
        # (I + H/ρ) v = g with v = ρ (H + ρ I)⁻¹ g, by products with the Hessian of the support losses alone
        adjoint = found[name].carry
        assert adjoint is not None
        assert residual_by_hand(problem, found[name].params, adjoint) < 1e-6
    for other in ways:
        assert relative_error(found[other].grad, found["gradient descent"].grad) < 1e-4


def residual_by_hand(problem, params, adjoint):
    """‖(I + H/ρ) v − g‖ / ‖g‖ of the tasks of the step, with H and g of each by torch's own means."""
    rests, gradients = [], []
    blocks = dict(zip(params, adjoint.split([w.numel() for w in params.values()]), strict=True))
    for i in range(problem.tasks_per_step):
        w = tuple(x[i] for x in params.values())
        v = tuple(problem.proximity * blocks[name].view_as(x)[i] for name, x in params.items())

        def loss(*w, X, y):
            named = dict(zip(params, w, strict=True))
            return mse_loss(functional_call(problem.model.module, named, (X,))[:, 0], y)

        support = partial(loss, X=problem.X_support[i], y=problem.y_support[i])
        _, Hv = torch.autograd.functional.hvp(support, w, v)
        query = partial(loss, X=problem.X_query[i], y=problem.y_query[i])
        g = torch.autograd.functional.vjp(query, w, torch.tensor(1 / problem.tasks_per_step))[1]
        gradients += g
        rests += [a + b / problem.proximity - c for a, b, c in zip(v, Hv, g, strict=True)]
    return (torch.cat([x.flatten() for x in rests]).norm() / torch.cat([x.flatten() for x in gradients]).norm()).item()


@pytest.mark.parametrize(
    "estimator",
    [
        hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=2),
        hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-10), inner_tol=1e-9, error_bar=False),
    ],
    ids=["unrolled", "implicit"],
)
def test_held_out_tasks_are_adapted_and_judged_and_change_nothing(estimator):
    alone, beside = waves(test_tasks=0, proximity=2.0), waves(test_tasks=4, proximity=2.0)
    hparams = moved(alone)
    ours, theirs = (estimator.estimate(p, hparams, p.init_params()) for p in (alone, beside))
    assert relative_error(theirs.grad, ours.grad) <= 1e-6
    assert theirs.outer_loss == pytest.approx(ours.outer_loss, rel=1e-6)
    assert alone.metrics(ours.params, hparams) == {}
    metrics = beside.metrics(theirs.params, hparams)
    z = functional_call(beside.model.module, hparams, (beside.X_query[3:],))[..., 0]
    assert float(metrics["test_loss_before"]) == pytest.approx(mse_loss(z, beside.y_query[3:]).item(), rel=1e-12)
    adapted = {name: w[3:] for name, w in theirs.params.items()}
    by_task = [
        mse_loss(functional_call(beside.model.module, {k: w[i] for k, w in adapted.items()}, (X,))[:, 0], y)
        for i, (X, y) in enumerate(zip(beside.X_query[3:], beside.y_query[3:], strict=True))
    ]
    assert float(metrics["test_loss"]) == pytest.approx(torch.stack(by_task).mean().item(), rel=1e-12)


def test_tasks_are_a_function_of_seed_and_step_and_held_out_ones_stay():
    problem = waves()
    for step in (0, 5):
        once, again = problem.at_outer_step(step), problem.at_outer_step(2).at_outer_step(step)
        assert torch.equal(once.X_support, again.X_support)
        assert torch.equal(once.y_query[3:], problem.y_query[3:])
        assert torch.equal(once.y_query[:3], problem.y_query[:3]) == (step == 0)
        assert not torch.equal(once.X_support, waves(seed=1).at_outer_step(step).X_support)
    single = waves().float().at_outer_step(5)
    assert single.X_support.dtype == torch.float32
    assert torch.equal(single.X_support, problem.at_outer_step(5).X_support.float())


def test_a_trainer_meets_fresh_tasks_in_each_step():
    problem = waves()
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=1)
    sgd = partial(torch.optim.SGD, lr=0.1)
    result = hg.fit(problem, estimator, sgd, 2, progress=False, warm_start=False)
    hparams = problem.init_hparams()
    for step, row in enumerate(result.history):
        loss, grad = grad_by_hand(problem.at_outer_step(step), hparams, lr=0.05, steps=1)
        assert row["loss/dev"] == pytest.approx(loss, rel=1e-10)
        hparams = {name: x - 0.1 * grad[name] for name, x in hparams.items()}


def test_the_luckiest_tasks_do_not_choose_the_start():
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=1)
    still = partial(torch.optim.SGD, lr=0.0)
    run = partial(hg.fit, waves(), estimator, still, 3, progress=False, warm_start=False)
    result = run()
    assert result.history[-1]["loss/dev"] > min(row["loss/dev"] for row in result.history)
    assert result.best.step == 3
    with pytest.raises(
        ValueError, match="MetaLearning has different tasks and a different dev loss in each outer step"
    ):
        run(patience=2)


def test_classes_are_counted_right():
    problem = classes(test_tasks=6)
    w, hparams = problem.init_params(), problem.init_hparams()
    metrics = problem.metrics(w, hparams)
    z = functional_call(problem.model.module, hparams, (problem.X_query[3:],))
    assert float(metrics["test_accuracy"]) == (z.argmax(2) == problem.y_query[3:]).double().mean()
    assert metrics["test_loss"] == metrics["test_loss_before"]


def test_gauss_newton_products_serve():
    """At a model that is linear in w they are those of the Hessian."""
    problem = linear(proximity=1.0)
    estimators = [
        hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12), product=product, inner_tol=1e-12)
        for product in (hg.Reverse(), hg.GaussNewton())
    ]
    exact, found = (e.estimate(problem, problem.init_hparams(), problem.init_params()).grad for e in estimators)
    assert relative_error(found, exact) < 1e-8


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="MetaLearning.initial defines where training starts.* use warm_start=False"):
        hg.fit(waves(), hg.Unrolled(inner_steps=1), partial(torch.optim.SGD, lr=0.1), 1, progress=False)
    noisy = nn.Sequential(nn.Linear(1, 4), nn.Dropout(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="needs a model without random numbers .* the same in all tasks"):
        hg.MetaLearning(model=noisy, loss=mse_loss, tasks=hg.Sinusoids())
    with pytest.raises(ValueError, match="MetaLearning.proximity must be at least 0, but it is -1"):
        waves(proximity=-1.0)
    # Without a proximal term the optimum does not depend on where training started.
    problem = linear(proximity=0.0)
    with pytest.raises(hg.UnusedHyperparameterError, match="Nothing depends on the hyperparameter"):
        hg.Implicit(solver=hg.LBFGS()).estimate(problem, problem.init_hparams(), problem.init_params())
