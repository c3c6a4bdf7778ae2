"""Arguments, shapes and points at which rules were wrong or failed, as random compositions found them.

The truth is PyTorch's nested reverse mode, where that is right, or a formula.
"""

import math
from typing import Any

import pytest
import torch
from torch import linalg, special
from torch.nn import functional

import hypergrad as hg
from hypergrad.taylor import Polynomial
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.nested import nested_derivatives

COEFS = [torch.tensor(c, dtype=torch.float64) for c in ((0.4, -0.7, 1.2), (1.0, 2.0, -1.0), (0.3, -0.2, 0.5))]
C = torch.tensor([0.9, -1.1, 0.3], dtype=torch.float64)
A = torch.tensor([[2.0, 0.3, -0.1], [0.2, 1.5, 0.4], [0.0, -0.5, 1.0]], dtype=torch.float64)
NAN = torch.tensor([math.nan, 0.0, 0.0], dtype=torch.float64)
FIRST = torch.tensor([True, False, False])


def relu_in_place(x):
    h = x + C
    y = functional.relu(h, inplace=True)
    return y + h


def drawn_once(x):
    torch.manual_seed(3)
    return functional.rrelu(x, training=True)


ARGUMENTS = {
    "pad-value": lambda x: functional.pad(x, (1, 2), value=3.0),
    "diff-prepend": lambda x: torch.diff(x, prepend=C[:1], append=x[:1]),
    "diff-twice": lambda x: torch.diff(x, 2),
    "broadcast-tensors": lambda x: sum(torch.broadcast_tensors(x, A)),
    "nansum": lambda x: (x + NAN).nansum(),
    "to-int": lambda x: (3 * x).to(torch.int64) + x,
    "only-constants": lambda x: x.long() * x,
    "spectral-norm": lambda x: linalg.norm(A * x, 2),
    "linalg-norm": lambda x: linalg.norm(A * x),
    "norm-of-rows": lambda x: linalg.norm(A * x, 2, dim=1),
    "norm-keepdim": lambda x: linalg.vector_norm(A * x, keepdim=True),
    "norm-of-order-3": lambda x: torch.norm(x, 3),
    "relu-in-place": relu_in_place,
    "dropout": lambda x: functional.dropout(x, 0.5, training=False) + functional.dropout(x, 1.0),
    "where-scalar": lambda x: torch.where(FIRST[0], x[0], C).sum(),
    "where-method": lambda x: C.where(FIRST, x),
    "softplus-threshold": lambda x: functional.softplus(x, 1.0, 0.5),
    "clamp-tensor": lambda x: x[:1].clamp(min=C) + x.clamp(max=C),
    "number-to-the-power": lambda x: torch.pow(2.0, x) + 2.0**x,
    "power-tensor": lambda x: x ** torch.tensor([1.0, 2.0, 3.0]),
    "power-of-negative": lambda x: (x * 0 - 2.0) ** torch.tensor(3) * x,
    "rsub-alpha": lambda x: torch.rsub(x, x * x, alpha=3),
    "solve-batch-of-vectors": lambda x: linalg.solve(torch.stack([A, A + 1]), x),
    "var-default": lambda x: torch.var(x, correction=None),
    "higher-precision": lambda x: (x.float() + A) @ C,
    "softmax-dtype": lambda x: torch.softmax(x.float(), 0, torch.float64),
    "float-power": lambda x: torch.float_power(x.float(), 2),
    "keywords": lambda x: torch.mul(input=x, other=x) + torch.sum(input=x, dim=0) + torch.clamp(input=x, min=0.0),
    "special-exp2": special.exp2,
    "special-log1p": lambda x: special.log1p(x * x),
    "special-log-softmax": lambda x: special.log_softmax(x, 0),
    "drawn-once": drawn_once,
    "div-rounded": lambda x: torch.div(x, 0.3, rounding_mode="floor") + x,
    "gather-from-a-constant": lambda x: C.expand_as(A * x) * x,
    "solve-from-the-right": lambda x: linalg.solve(A + x[0], A, left=False),
    "batch-norm-with-averages": lambda x: functional.batch_norm(A * x, C * 0, C**2, training=True),
    "group-of-constants": lambda x: functional.linear(A, A, x),
    "largest-of-rows": lambda x: torch.amax(A * x, dim=1) + (A * x).max(dim=0).values,
    "clamp-min-tensor": lambda x: torch.clamp_min(x, C),
    "where-without-values": lambda x: x * torch.where(x)[0],
}


@pytest.mark.filterwarnings("ignore::hypergrad.NoTaylorRuleWarning")
@pytest.mark.parametrize("function", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_change_what_a_function_does(function):
    found = function(Polynomial(COEFS))
    truth = nested_derivatives(lambda t: function(COEFS[0] + COEFS[1] * t + COEFS[2] * t**2), 2, C)
    tol = (
        1e-5
        if found.dtype == torch.float32 or function in (ARGUMENTS["softmax-dtype"], ARGUMENTS["float-power"])
        else 1e-10
    )
    for k, c in enumerate(found.coefs):
        torch.testing.assert_close(
            torch.zeros_like(found.coefs[0]) if c is None else c, truth[k] / math.factorial(k), rtol=tol, atol=tol
        )


def coefficients(function, *coefs):
    return function(Polynomial([torch.tensor(c) for c in coefs])).coefs


@pytest.mark.parametrize(
    ("function", "start", "truth"),
    [
        (lambda x: x**18, 0.0, [0, 0, 0, 0, 0]),
        (lambda x: x**2.5, 0.0, [0, 0, 0]),
        (lambda x: x ** torch.tensor(2.0), 0.0, [0, 0, 1, 0, 0]),
        (lambda x: x ** torch.tensor(-1), -1.0, [-1, -1, -1, -1, -1]),
        (lambda x: torch.tensor(0.0) ** (x + 1), 0.0, [0, 0, 0, 0, 0]),
        (lambda x: torch.tensor(-2.0) ** (0 * x + 2), 0.0, [4]),
        (torch.sinc, 0.0, [1, 0, -(math.pi**2) / 6, 0, math.pi**4 / 120]),
        (lambda x: (x * C[:1] * 0).norm() + x, 0.0, [0, 1, 0, 0, 0]),
        (lambda x: (x - x.detach() * 0 - x).std(correction=0) + x, 0.0, [0, 1, 0, 0, 0]),
        (lambda x: linalg.det(torch.stack([torch.stack([x, x]), torch.stack([x, 1 + x])])), 0.0, [0, 1, 0, 0, 0]),
        (lambda x: linalg.det(x * torch.eye(3)), 0.0, [0, 0, 0, 1, 0]),
    ],
)
def test_points_where_a_formula_divides_by_zero(function, start, truth):
    found = coefficients(function, start, 1.0, 0.0, 0.0, 0.0)
    for k, value in enumerate(truth):
        assert float(0.0 if found[k] is None else found[k]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        (special.i0, [1, 0, 1 / 4, 0, 1 / 64]),
        (special.i1, [0, 1 / 2, 0, 1 / 16, 0]),
        (lambda x: torch.stack([x, x + 1]).logcumsumexp(0)[1] - x, [math.log(1 + math.e), 0, 0, 0, 0]),
        (lambda x: torch.cdist(torch.stack([x, x * x])[None], torch.tensor([[3.0, 4.0]]))[0, 0], [5, -0.6, -0.736]),
    ],
)
@pytest.mark.filterwarnings("ignore::hypergrad.NoTaylorRuleWarning")
def test_functions_of_which_pytorch_has_no_right_higher_derivative(function, truth):
    found = coefficients(function, 0.0, 1.0, 0.0, 0.0, 0.0)
    for k, value in enumerate(truth):
        assert float(found[k]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    "function",
    [
        abs,
        torch.relu,
        lambda x: x.clamp(0.0, 2.0),
        lambda x: torch.maximum(x, C * 0),
        lambda x: torch.min(2 * x, x),
        lambda x: x.max(),
        lambda x: x.amin() * x,
    ],
)
def test_at_a_kink_the_slope_is_that_of_autograd(function, order):
    coefs = [torch.zeros(3), *COEFS[1:], None]
    found = function(Polynomial(coefs)).coefs[order]
    truth = nested_derivatives(lambda t: function(COEFS[1] * t + COEFS[2] * t**2), order, C)[order]
    torch.testing.assert_close(torch.zeros_like(truth) if found is None else found, truth / math.factorial(order))


def test_a_maximum_keeps_nan():
    found: Any = torch.maximum(Polynomial([NAN, COEFS[1]]), C)
    assert found.coefs[0].isnan().tolist() == [True, False, False]


def assign(x):
    y = 2 * x
    y[0] = 5.0
    return y


def relu_of_a_view(x):
    h = x * 2
    functional.relu(h[:2], inplace=True)
    return h


@pytest.mark.parametrize(
    "function",
    [assign, relu_of_a_view, lambda x: torch.add(x, x, out=C.clone()), lambda x: torch.cumsum(x, 0, out=C.clone())],
)
def test_what_changes_in_place_is_refused(function):
    with pytest.raises(CannotExpandError):
        function(Polynomial(COEFS))


@pytest.mark.parametrize("function", [assign, relu_of_a_view])
def test_an_optimum_of_a_loss_that_changes_in_place(function):
    """Polynomials are refused, and the whole loss is expanded by nested derivatives."""

    def objective(w, hp):
        return (function(w - hp) ** 2).sum() + ((w - hp) ** 2).sum()

    hp = torch.tensor([0.5, 1.0, -2.0])
    with pytest.warns(hg.NoTaylorRuleWarning):
        first, second = hg.TaylorExpansion(order=2).at(objective, hp, hp).derivatives(C)
    torch.testing.assert_close(first, C)
    torch.testing.assert_close(second, torch.zeros(3))


def test_a_softmax_near_one_keeps_its_digits():
    """Coefficients of 1/(1 + e^{−z}), z = 25 + 300 t, from its other side e^{−z}/(1 + e^{−z})."""
    x: Any = Polynomial([torch.tensor([25.0, 0.0]), torch.tensor([300.0, 0.0]), None, None, None])
    near, far = torch.stack(x.softmax(0).coefs[1:]).T.tolist()
    assert near == pytest.approx([-v for v in far], rel=1e-12)
