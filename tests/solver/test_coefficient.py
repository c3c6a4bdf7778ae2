"""Coefficients by step and by group, and what is said of those that do not fit."""

import pytest
import torch
from runs import SOLVERS

import hypergrad as hg
from hypergrad.solver.all_tensors import scaled_sums
from hypergrad.solver.coefficient import groups_of

STEPS = 4


class Layers(hg.Quadratic):
    """The quadratic as a net of two layers, with a hyperparameter `x`."""

    def __init__(self, x):
        super().__init__(size=8)
        self.x = x

    def init_params(self):
        names = ("first.weight", "first.bias", "second.weight", "second.bias")
        return {name: self.c.new_full((2,), 1.0 + index) for index, name in enumerate(names)}

    def hyperparameters(self):
        return super().hyperparameters() | {"x": hg.Hyperparameter(self.x)}


def moved(problem, solver, t):
    """How far step t moves each tensor, per unit of gradient."""
    params = problem.init_params()
    grad = {name: torch.ones_like(w) for name, w in params.items()}
    coefficients = solver.coefficients_at(problem.init_hparams(), t, params)
    after = solver.update(solver.init(params), grad, coefficients, t)["params"]
    return [(params[name] - after[name])[0].item() for name in params]


def test_each_tensor_gets_the_entry_of_its_step_and_group():
    rates = torch.arange(1.0, 1 + 2 * STEPS).reshape(STEPS, 2)
    cases = {
        "one": (torch.tensor(3.0), None, [3, 3, 3, 3]),
        "per step": (rates[:, 0], None, [5, 5, 5, 5]),
        "per tensor": (torch.tensor([[1.0, 2, 3, 4]]), None, [1, 2, 3, 4]),
        "per group": (rates[:1], ("*.weight", "*.bias"), [1, 2, 1, 2]),
        "per step and group": (rates, ("first.*", "second.*"), [5, 5, 6, 6]),
        "groups in any order": (rates, ("*.bias", "*.weight"), [6, 5, 6, 5]),
    }
    for name, (values, groups, expected) in cases.items():
        problem, solver = Layers(values), hg.GradientDescent(lr="x", groups=groups)
        solver.validate(problem.init_hparams(), STEPS, problem.init_params())
        assert moved(problem, solver, t=2) == pytest.approx(expected), name
    half = hg.GradientDescent(lr=hg.StepDecay(base="x", every=2, ratio=0.5), groups=("first.*", "second.*"))
    assert moved(Layers(rates), half, t=2) == pytest.approx([2.5, 2.5, 3, 3])


def refused(values, solver):
    problem = Layers(values)
    hg.Unrolled(solver=solver, inner_steps=STEPS).estimate(problem, problem.init_hparams(), problem.init_params())


CONSTRAINT = "give the hyperparameter a constraint that keeps it there, such as hg.positive"
MISFITS = {
    "a schedule of the wrong length": (
        torch.ones(3),
        hg.GradientDescent(lr="x"),
        r"GradientDescent.lr = 'x' has shape \(3,\), but .* shape \(4,\) for one per inner step, shape \(1, 4\)",
    ),
    "the wrong number of groups": (
        torch.ones(STEPS, 3),
        hg.GradientDescent(lr="x", groups=("*.weight", "*.bias")),
        r"has shape \(4, 3\), but .* shape \(4, 2\) for one per step and group",
    ),
    "a name that is none": (torch.ones(()), hg.Adam(beta1="y"), "'y' is neither a number nor the name .* penalty"),
    "a schedule over a name that is none": (
        torch.ones(()),
        hg.Adam(lr=hg.Cosine(base="y", steps=2)),
        "Adam.lr = 'y' is neither a number nor the name",
    ),
    "a schedule that is cut off": (
        torch.ones(()),
        hg.Adam(lr=hg.Warmup(base="x", steps=9)),
        "takes 9 steps, but training has 4, .* raise inner_steps to 9",
    ),
    "a rate below zero": (
        torch.tensor([0.1, 0.1, -0.2, 0.1]),
        hg.GradientDescent(lr="x"),
        f"GradientDescent.lr = 'x' must be > 0, but it holds -0.2; {CONSTRAINT}",
    ),
    "a decay of one": (
        torch.tensor(1.0),
        hg.Momentum(momentum="x"),
        f"Momentum.momentum = 'x' must be ≥ 0 and < 1, but it holds 1; {CONSTRAINT}",
    ),
    "a tensor in no group": (
        torch.ones(1, 2),
        hg.GradientDescent(lr="x", groups=("*.weight", "first.bias")),
        r"'second.bias' matches none; the tensors are 'first.weight'",
    ),
    "a tensor in two groups": (
        torch.ones(1, 2),
        hg.GradientDescent(lr="x", groups=("*.weight", "first.*", "second.bias")),
        r"'first.weight' matches '\*.weight' and 'first.\*'",
    ),
    "a pattern for nothing": (
        torch.ones(1, 3),
        hg.GradientDescent(lr="x", groups=("*.weight", "*.bias", "*.scale")),
        r"'\*.scale' matches none of 'first.weight'",
    ),
    "groups for nothing": (
        torch.ones(()),
        hg.GradientDescent(lr="x", groups=("*.weight", "*.bias")),
        r"GradientDescent.groups is set, but no coefficient differs by group; .* shape \(1, 2\) or \(4, 2\)",
    ),
}


@pytest.mark.parametrize(("values", "solver", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_refused_by_name(values, solver, message):
    with pytest.raises(ValueError, match=message):
        refused(values, solver)


def test_a_hyperparameter_that_became_nan_is_refused():
    problem, hparams = Layers(1.0), {"x": torch.tensor(float("nan"))}
    with pytest.raises(ValueError, match="RMSprop.eps = 'x' must be > 0, but it holds nan"):
        hg.RMSprop(eps="x").validate(hparams, STEPS, problem.init_params())


def test_groups_may_come_as_a_list_and_are_kept_as_a_tuple():
    solver = hg.Adam(groups=["*.weight", "*.bias"])  # pyright: ignore[reportArgumentType]
    assert solver.groups == ("*.weight", "*.bias")
    assert hash(solver) == hash(hg.Adam(groups=("*.weight", "*.bias")))
    assert groups_of(("a.weight", "a.bias"), ("*.weight", "*.bias")) == (0, 1)


def test_why_training_blew_up_names_the_largest_of_several_rates():
    problem = Layers(torch.tensor([[0.1, 9.0, 0.1, 0.1]]))
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr="x"), inner_steps=99)
    with pytest.raises(hg.DivergenceError, match=r"The largest of the learning rates was 9.00e\+00; lower it."):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_operation_for_all_tensors_has_the_bits_of_one_for_each(dtype, sign):
    generator = torch.Generator().manual_seed(0)
    x, y = (
        {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in (("a", (3, 40)), ("b", ()))}
        for _ in range(2)
    )
    c = dict.fromkeys(x, 0.3)
    with torch.no_grad():
        found = scaled_sums(x, c, dict(reversed(y.items())), sign)
    for name, wanted in scaled_sums(x, c, y, sign).items():
        assert torch.equal(found[name], wanted)
        assert torch.equal(wanted, x[name].add(y[name], alpha=sign * 0.3))
    mapped = torch.vmap(lambda a: scaled_sums({"a": a}, c, {"a": a}, sign)["a"])
    with torch.no_grad():
        assert torch.equal(mapped(x["a"]), x["a"].add(x["a"], alpha=sign * 0.3))


class Update:
    """One update of a solver on tensors of several shapes, one of which never had a gradient."""

    def __init__(self, solver, dtype):
        self.solver, generator = solver, torch.Generator().manual_seed(0)
        shapes = {"a": (3, 40), "b": (), "c": (5,)}
        w, self.grad = ({k: torch.randn(s, generator=generator, dtype=dtype) for k, s in shapes.items()} for _ in "ab")
        self.grad["c"] = torch.zeros(5, dtype=dtype)
        self.state = solver.init(w)
        self.hparams = {"lr": torch.tensor(0.07, dtype=dtype), "beta": torch.tensor(0.7, dtype=dtype)}

    def run(self):
        state = self.state
        for t in range(3):
            coefficients = self.solver.coefficients_at(self.hparams, t, state["params"])
            state = self.solver.update(state, self.grad, coefficients, t)
        return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "solver",
    [
        *SOLVERS.values(),
        hg.GradientDescent(lr=0.03, weight_decay=0.1),
        hg.Momentum(lr=0.05, weight_decay=0.01, nesterov=True),
        hg.Adam(lr=0.1, weight_decay=0.02),
        hg.AdamW(lr=0.1),
    ],
    ids=repr,
)
def test_an_update_has_the_same_bits_with_and_without_a_graph(solver, dtype):
    update = Update(solver, dtype)
    with_graph = update.run()
    with torch.no_grad():
        without = update.run()
    assert all(torch.equal(x, without[group][k]) for group, xs in with_graph.items() for k, x in xs.items())
