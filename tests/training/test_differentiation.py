"""SOLVERS × coefficients × shapes: the derivative of a training run against central differences through retraining."""

from dataclasses import replace

import pytest
import torch

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, flatten, leaves, unflatten
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training

STEPS = 6
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch, of its own use
SOLVERS = {
    "gradient descent": hg.GradientDescent(lr=0.05, weight_decay=0.3),
    "momentum": hg.Momentum(lr=0.05, momentum=0.7, dampening=0.2, weight_decay=0.3),
    "nesterov": hg.Momentum(lr=0.05, momentum=0.7, weight_decay=0.3, nesterov=True),
    "adam": hg.Adam(lr=0.05, beta1=0.7, beta2=0.8, eps=0.1, weight_decay=0.3),
    "adamw": hg.AdamW(lr=0.05, beta1=0.7, beta2=0.8, eps=0.1, weight_decay=0.3),
    "rmsprop": hg.RMSprop(lr=0.05, alpha=0.8, eps=0.1, momentum=0.5, weight_decay=0.3),
    "rmsprop, centred": hg.RMSprop(lr=0.05, alpha=0.8, eps=0.1, momentum=0.5, weight_decay=0.3, centered=True),
}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
SHAPES = {"scalar": (), "per step": (STEPS,), "per tensor": (1, 2), "per step and tensor": (STEPS, 2)}
CASES = [
    pytest.param(solver, field, shape, id=f"{name}-{field}-{kind}")
    for name, solver in SOLVERS.items()
    for field in solver.coefficients()
    if not (solver == SOLVERS["nesterov"] and field == "dampening")
    for kind, shape in SHAPES.items()
]


class Tuned(hg.Quadratic):
    """The quadratic, not quite quadratic, with one more hyperparameter and a start away from zero."""

    def __init__(self, value=None):
        super().__init__(size=5)
        self.value = value

    def init_params(self):
        return unflatten(torch.linspace(-1, 2, 5), super().init_params())

    def hyperparameters(self):
        more = {} if self.value is None else {"coefficient": hg.Hyperparameter(self.value)}
        return super().hyperparameters() | more

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams, batch) + (flatten(params) ** 4).sum() / 20


def random_like(tensors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(x.shape, generator=generator) for name, x in tensors.items()}


def slope(function, point, direction, step=2e-3):
    """The directional derivative, O(step⁴) by extrapolation."""
    wide, narrow = (central_difference(function, point, direction, h) for h in (step, step / 2))
    return ((4 * narrow - wide) / 3).item()


@pytest.mark.parametrize(("solver", "field", "shape"), CASES)
def test_coefficients_agree_with_central_differences_through_retraining(solver, field, shape):
    value = getattr(solver, field)
    spread = 1 + 0.1 * torch.linspace(-1, 1, max(1, torch.Size(shape).numel())).reshape(shape)
    problem, tuned = Tuned(value * spread), replace(solver, **{field: "coefficient"})
    hparams, start = problem.init_hparams(), problem.init_params()
    found = hg.Unrolled(solver=tuned, inner_steps=STEPS).estimate(problem, hparams, start)

    def dev_loss(hp):
        return problem.outer_loss(Training(solver=tuned, steps=STEPS).run(problem, hp, start).params, hp, None)

    for name, grad in found.grad.items():
        still = {k: torch.zeros_like(v) for k, v in hparams.items()}
        direction = still | {name: random_like(hparams)[name] * hparams[name].abs().mean()}
        witness = slope(dev_loss, hparams, direction)
        assert (grad * direction[name]).sum().item() == pytest.approx(witness, rel=1e-6, abs=1e-10)


@EVERY_SOLVER
def test_the_start_agrees_with_central_differences_through_retraining(solver):
    problem = Tuned()
    hparams = problem.init_hparams()
    start = leaves(problem.init_params())

    def dev_loss(w):
        return problem.outer_loss(Training(solver=solver, steps=STEPS).run(problem, hparams, w).params, hparams, None)

    state = solver.init(start)
    for t in range(STEPS):
        state = Dynamics(problem, solver, hparams).transition(state, t)
    loss = problem.outer_loss(solver.params(state), hparams, None)
    grads = torch.autograd.grad(loss, tuple(start.values()))
    direction = random_like(start, 1)
    found = sum((grad * d).sum() for grad, d in zip(grads, direction.values(), strict=True))
    assert float(found) == pytest.approx(slope(dev_loss, problem.init_params(), direction), rel=1e-6)


@EVERY_SOLVER
def test_an_update_can_be_differentiated_twice(solver):
    """With respect to state, gradient and coefficients, by autograd's own central differences."""
    fields = [field for field, value in solver.coefficients().items() if value != 0]
    tuned = replace(solver, **{field: field for field in fields})
    values = {field: torch.tensor(getattr(solver, field)) for field in fields}
    parts = list(solver.init({"w": torch.zeros(3)}))
    inputs = [random_like({"w": torch.zeros(3)}, seed)["w"].abs() + 0.5 for seed in range(len(parts) + 1)]
    if "first_moment" in parts and "second_moment" in parts:  # a mean below the root of the mean square
        inputs[parts.index("second_moment")] += inputs[parts.index("first_moment")] ** 2

    def update(grad, *rest):
        state = {part: {"w": x} for part, x in zip(parts, rest[: len(parts)], strict=True)}
        hparams = dict(zip(fields, rest[len(parts) :], strict=True))
        after = tuned.update(state, {"w": grad}, tuned.coefficients_at(hparams, 2, {"w": grad}), 2)
        return torch.cat([tensors["w"] for tensors in after.values()])

    arguments = [x.requires_grad_() for x in (inputs[-1], *inputs[:-1], *values.values())]
    assert torch.autograd.gradcheck(update, arguments)
    assert torch.autograd.gradgradcheck(update, arguments)


@FORWARD_MODE
@EVERY_SOLVER
def test_an_update_goes_through_torch_func(solver):
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩ by forward and reverse mode, and a vectorised update is the update of each."""
    problem = Tuned()
    state, hparams = solver.init(problem.init_params()), problem.init_hparams()
    state = Dynamics(problem, solver, hparams).transition(state, 0)
    state = {part: {name: x.detach() for name, x in tensors.items()} for part, tensors in state.items()}
    grad = random_like(problem.init_params(), 2)

    def update(state, grad):
        return solver.update(state, grad, solver.coefficients_at(hparams, 1, grad), 1)

    def dot(a, b):
        return sum((a[part][name] * b[part][name]).sum() for part in a for name in a[part])

    v = ({part: random_like(tensors, 3) for part, tensors in state.items()}, random_like(grad, 4))
    u = {part: random_like(tensors, 5) for part, tensors in state.items()}
    forward = torch.func.jvp(update, (state, grad), v)[1]
    wrt_state, wrt_grad = torch.func.vjp(update, state, grad)[1](u)
    reverse = dot(wrt_state, v[0]) + dot({"grad": wrt_grad}, {"grad": v[1]})
    assert float(dot(u, forward)) == pytest.approx(float(reverse), rel=1e-10)

    many = {name: torch.stack([x, -x, 2 * x]) for name, x in grad.items()}
    batched = torch.func.vmap(update, in_dims=(None, 0))(state, many)
    for index in range(3):
        alone = update(state, {name: x[index] for name, x in many.items()})
        for part, tensors in alone.items():
            for name, x in tensors.items():
                assert torch.allclose(batched[part][name].expand(3, *x.shape)[index], x, rtol=1e-12)


class Dead(Tuned):
    """Entries whose gradient is zero at every step, as that of a pixel that is never lit."""

    def inner_loss(self, params, hparams, batch):
        w = flatten(params) * torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
        return super().inner_loss(unflatten(w, params), hparams, batch)


ADAPTIVE = {
    name: replace(solver, eps=1e-8, weight_decay=0.0) for name, solver in SOLVERS.items() if "eps" in str(solver)
}


@pytest.mark.parametrize("solver", ADAPTIVE.values(), ids=ADAPTIVE)
def test_an_entry_without_a_gradient_has_a_finite_derivative(solver):
    problem = Dead()
    hparams, start = problem.init_hparams(), problem.init_params()
    found = hg.Unrolled(solver=solver, inner_steps=STEPS).estimate(problem, hparams, start)

    def dev_loss(hp):
        return problem.outer_loss(Training(solver=solver, steps=STEPS).run(problem, hp, start).params, hp, None)

    for name, grad in found.grad.items():
        direction = {k: torch.zeros_like(v) for k, v in hparams.items()} | {name: random_like(hparams)[name]}
        witness = slope(dev_loss, hparams, direction, step=1e-4)
        assert (grad * direction[name]).sum().item() == pytest.approx(witness, rel=1e-6)


@FORWARD_MODE
@pytest.mark.parametrize(
    ("solver", "expected"),
    [(hg.Adam(lr=0.3, eps=0.2), 0.3 / 0.2), (hg.RMSprop(lr=0.3, eps=0.2), 0.3 / 0.2)],
    ids=["adam", "rmsprop"],
)
def test_the_slope_of_a_step_at_gradient_zero_is_lr_over_eps(solver, expected):
    def after(grad):
        params = {"w": torch.zeros(1)}
        return solver.update(solver.init(params), {"w": grad}, solver.coefficients_at({}, 0, params), 0)["params"]["w"]

    by_reverse = torch.func.jacrev(after)(torch.zeros(1))
    assert by_reverse.item() == pytest.approx(-expected, rel=1e-12)
    assert torch.func.jacfwd(after)(torch.zeros(1)).item() == pytest.approx(-expected, rel=1e-12)
    assert ((after(torch.tensor([1e-9])) - after(torch.tensor([-1e-9]))) / 2e-9).item() == pytest.approx(
        -expected, 1e-6
    )
