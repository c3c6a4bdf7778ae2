import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import hypergrad as hg
from hypergrad.taylor import Polynomial
from hypergrad.taylor.names import CannotExpandError
from hypergrad.taylor.nested import nested_derivatives

DEGREE = 4
_generator = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, generator=_generator, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
IGNORED = torch.where(torch.arange(len(Y)) % 3 == 1, 7, Y)
ONE_HOT = functional.one_hot(Y, 4).double()

LINEAR = {
    "matvec": lambda x: X @ x,
    "broadcast": lambda x: (x * 3 - 1 + X).sum(),
    "mm": lambda x: (X * x).T @ X,
    "mT": lambda x: (X * x).mT,
    "cat": lambda x: torch.cat([x, X[0], x * x]),
    "stack": lambda x: torch.stack([x, X[0]]),
    "where": lambda x: torch.where(X > 0, x, X),
    "index": lambda x: x[1:] * x[:-1],
    "split": lambda x: torch.stack(x.split(2)),
    "iterate": lambda x: sum(v * v for v in x),
    "pad": lambda x: functional.pad(x, (1, 1)),
    "linear": lambda x: functional.linear(X, torch.outer(x, x), x),
    "conv1d": lambda x: functional.conv1d(X[None, :1], x[None, None, :2], x[:1]),
    "conv1d-channels": lambda x: functional.conv1d(X[None, :1], x.reshape(2, 1, 2), x[:2]),
    "detach": lambda x: x.detach() * x,
    "methods": lambda x: x.mul(2).add(x, alpha=3).sub(1).neg(),
    "rsub": lambda x: 1 - x,
    "comparison": lambda x: (x > 0) * x,
    "einsum-one": lambda x: torch.einsum("ij->i", X * x),
    "masked-fill": lambda x: (X * x).masked_fill(X > 0, 2.0),
}
ANALYTIC = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "exp2": torch.exp2,
    "log": lambda x: (x * x + 1).log(),
    "log1p": lambda x: (x**2).log1p(),
    "log2": lambda x: torch.log2(x * x + 1),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: functional.softplus(x, beta=2.0),
    "logsigmoid": functional.logsigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "cube": lambda x: x**3,
    "fifth": lambda x: x.mean() ** 5,
    "power": lambda x: (x * x + 1) ** -1.5,
    "sqrt": lambda x: (x * x + 1).sqrt(),
    "quotient": lambda x: x / (2 + x * x),
    "reciprocal": lambda x: 1 / (2 + x * x),
    "base": lambda x: 2.0**x,
    "exponent": lambda x: (x * x + 1) ** x,
}
COMPOSITE = {
    "dot": lambda x: x @ x,
    "einsum": lambda x: torch.einsum("i,ij->j", x, X[:4]),
    "cross-entropy": lambda x: functional.cross_entropy((X * x)[:, :3], Y, weight=X[0, :3] ** 2),
    "cross-entropy-probabilities": lambda x: functional.cross_entropy(X * x, torch.softmax(X, 1)),
    "cross-entropy-smoothed": lambda x: functional.cross_entropy(
        (X * x)[:, :3], IGNORED, weight=X[0, :3] ** 2, ignore_index=7, label_smoothing=0.3
    ),
    "cross-entropy-smoothed-sum": lambda x: functional.cross_entropy(
        (X * x)[:, :3], Y, reduction="sum", label_smoothing=0.3
    ),
    "cross-entropy-smoothed-probabilities": lambda x: functional.cross_entropy(
        X * x, torch.softmax(X, 1), weight=X[0] ** 2, label_smoothing=0.3
    ),
    "cross-entropy-ignored": lambda x: functional.cross_entropy((X * x)[:, :3], IGNORED, ignore_index=7),
    "cross-entropy-images": lambda x: functional.cross_entropy(
        (X * x)[:, :3].reshape(2, 3, 3), Y.reshape(2, 3), weight=X[0, :3] ** 2, label_smoothing=0.3
    ),
    "softmax": lambda x: torch.softmax(X * x, 1),
    "logsumexp": lambda x: torch.logsumexp(X * x, 1),
    "bce": lambda x: functional.binary_cross_entropy_with_logits(
        X @ x, (Y > 0).double(), weight=X[:, 0] ** 2, pos_weight=torch.tensor(2.0)
    ),
    "mse": lambda x: functional.mse_loss(X @ x, X[:, 0]),
    "l1-sum": lambda x: functional.l1_loss(X @ x, X[:, 0], reduction="sum"),
    "smooth-l1-zero": lambda x: functional.smooth_l1_loss(X @ x, X[:, 0], beta=0.0),
    "relu": lambda x: torch.relu(x) ** 2,
    "leaky-relu": lambda x: functional.leaky_relu(x, 0.1),
    "clamp": lambda x: x.clamp(-0.1, 0.2) * x,
    "clamp-by-polynomials": lambda x: X.clamp(-0.3 - x * x, 0.2 + x * x),
    "abs": abs,
    "max": lambda x: x.max(),
    "min": lambda x: x.min(),
    "maximum": lambda x: torch.maximum(x, X[0]),
    "var": lambda x: (X * x).var(0),
    "std": lambda x: (X * x).std(),
    "norm": lambda x: x.norm(),
    "vector-norm": lambda x: torch.linalg.vector_norm(X * x, dim=1),
    "batch-norm": lambda x: functional.batch_norm(X * x + x.square().sum() * X**2, None, None, x, x, training=True),
    "batch-norm-fixed": lambda x: functional.batch_norm(X * x, X[0], X[1] ** 2 + 1, x, X[2]),
    "instance-norm": lambda x: functional.instance_norm((X**2 * x).view(2, 3, 4), weight=x[:3]),
}
MATRIX = {
    "inverse": lambda x: torch.linalg.inv(matrix(x)),
    "solve": lambda x: torch.linalg.solve(matrix(x), X.T * x[:, None]),
    "solve-vector": lambda x: torch.linalg.solve(matrix(x), x),
    "solve-constant": lambda x: torch.linalg.solve(X[:4] + 3 * torch.eye(4, dtype=X.dtype), x),
    "logdet": lambda x: torch.logdet(matrix(x)),
    "slogdet": lambda x: torch.linalg.slogdet(matrix(x)).logabsdet,
    "det": lambda x: torch.linalg.det(torch.stack([matrix(x), matrix(-x)])),
}


def matrix(x):
    return 2 * torch.eye(4, dtype=X.dtype) + (X * x).T @ X / 4 + torch.outer(x, X[0] + x) / 4


FUNCTIONS: dict[str, Callable] = LINEAR | ANALYTIC | COMPOSITE | MATRIX
PATHS = {"dense": range(DEGREE + 1), "gaps": (0, 2)}


def path(which: str) -> list:
    generator = torch.Generator().manual_seed(1)
    coefs = [0.5 * torch.randn(4, generator=generator) for _ in range(DEGREE + 1)]
    return [c if k in PATHS[which] else None for k, c in enumerate(coefs)]


def expected(function: Callable, coefs: list) -> list[Tensor]:
    def along(t):
        return function(sum(c * t**k for k, c in enumerate(coefs) if c is not None))

    return [d / math.factorial(k) for k, d in enumerate(nested_derivatives(along, DEGREE, X))]


def require_coefficients(found, truth):
    for c, d in zip(found.coefs, truth, strict=True):
        torch.testing.assert_close(torch.zeros_like(d) if c is None else c, d, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("which", PATHS)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_rules_agree_with_nested_jvp(function, which):
    coefs = path(which)
    require_coefficients(function(Polynomial(coefs)), expected(function, coefs))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_value_and_slope_are_those_of_torch(function):
    """Not by `nested_derivatives`, which computes losses and normalisations by the same rules."""
    coefs = path("dense")
    truth = torch.func.jvp(function, (coefs[0],), (coefs[1],))
    require_coefficients(Polynomial(function(Polynomial(coefs)).coefs[:2]), truth)


def test_has_the_dtype_of_its_coefficients():
    assert Polynomial([torch.zeros(2, dtype=torch.float32), None]).dtype == torch.float32


def test_integers_of_a_function_without_a_rule_are_those_at_the_start():
    coefs = path("dense")
    with pytest.warns(hg.NoTaylorRuleWarning, match="sort"):
        values, indices = torch.sort(Polynomial(coefs))
    require_coefficients(values, [c[coefs[0].argsort()] for c in coefs])
    assert torch.equal(indices, coefs[0].argsort())


def test_a_loss_weighs_its_examples_though_its_rule_does_not():
    def function(x):
        return functional.mse_loss(X @ x, X[:, 0], weight=X[:, 1] ** 2)  # pyright: ignore[reportCallIssue]

    with pytest.warns(hg.NoTaylorRuleWarning, match="mse_loss"):
        found = function(Polynomial(path("dense")))
    by_hand = expected(lambda x: (X[:, 1] ** 2 * (X @ x - X[:, 0]) ** 2).sum() / (X[:, 1] ** 2).sum(), path("dense"))
    require_coefficients(found, by_hand)


def huber(gap):
    return torch.where(gap.abs() < 0.3, gap * gap / 2, 0.3 * (gap.abs() - 0.15)).mean()


def layer_norm(x):
    gap = x - x.mean(-1, keepdim=True)
    return gap / ((gap * gap).mean(-1, keepdim=True) + 1e-5) ** 0.5


BY_HAND = {
    "huber": (lambda x: functional.huber_loss(X @ x, X[:, 0], delta=0.3), lambda x: huber(X @ x - X[:, 0])),
    "smooth-l1": (
        lambda x: 0.3 * functional.smooth_l1_loss(X @ x, X[:, 0], beta=0.3),
        lambda x: huber(X @ x - X[:, 0]),
    ),
    "layer-norm": (lambda x: functional.layer_norm(X * x, (4,)), lambda x: layer_norm(X * x)),
}


@pytest.mark.parametrize(("function", "by_hand"), BY_HAND.values(), ids=BY_HAND)
def test_rules_where_nested_jvp_fails_or_is_wrong(function, by_hand):
    require_coefficients(function(Polynomial(path("dense"))), expected(by_hand, path("dense")))


def test_a_module_takes_it_for_its_parameter():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    fixed = {name: p.detach() for name, p in module.named_parameters()}

    def function(weight):
        return torch.func.functional_call(module, fixed | {"0.weight": weight.reshape(1, 4).repeat(3, 1)}, (X,))

    require_coefficients(function(Polynomial(path("dense"))), expected(function, path("dense")))


@pytest.mark.parametrize("which", PATHS)
def test_a_function_without_a_rule_is_expanded_with_a_warning(which):
    def function(x):
        return torch.special.i0(x)

    with pytest.warns(hg.NoTaylorRuleWarning, match="special_i0 has no Taylor rule"):
        found = function(Polynomial(path(which)))
    require_coefficients(found, expected(function, path(which)))


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x.add_(1), lambda x: x.tolist()])
def test_reading_or_changing_a_value_is_refused(read):
    with pytest.raises(CannotExpandError):
        read(Polynomial(path("dense")))


def test_append_jvp_to_order_four_on_a_polynomial():
    x, d = torch.tensor([2.0, 3.0]), torch.tensor([1.0, -2.0])
    function, directions = lambda x: x[0] ** 4 * x[1] ** 2, []
    t = torch.tensor(0.0)
    for order, truth in enumerate(nested_derivatives(lambda t: (2 + t) ** 4 * (3 - 2 * t) ** 2, 4, t)[1:], start=1):
        function = hg.append_jvp(function)
        directions.append(d)
        torch.testing.assert_close(function(x, *directions), truth, rtol=1e-12, atol=0.0)
        assert len(directions) == order


LEFT_TO_TORCH = {
    "cross_entropy": (
        lambda x: functional.cross_entropy((X * x)[:, :3], Y, size_average=False),
        lambda x: ((X * x)[:, :3].logsumexp(1) - (X * x)[:, :3][range(len(Y)), Y]).sum(),
    ),
    "binary_cross_entropy_with_logits": (
        lambda x: functional.binary_cross_entropy_with_logits(X @ x, (Y > 0).double(), size_average=False),
        lambda x: (functional.softplus(X @ x) - (Y > 0).double() * (X @ x)).sum(),
    ),
    "mse_loss": (
        lambda x: functional.mse_loss(X @ x, X[:, 0], False),
        lambda x: ((X @ x - X[:, 0]) ** 2).sum(),
    ),
    "einsum": (lambda x: torch.einsum("i,ij,i->j", x, X[:4], x), lambda x: x**2 @ X[:4]),
    "logsumexp": (lambda x: torch.logsumexp(X * x, (0, 1)), lambda x: (X * x).reshape(-1).logsumexp(0)),
    "pairwise_distance": (
        lambda x: functional.pairwise_distance(X * x, X - 2, p=4.0, eps=0.0),
        lambda x: ((X * x - X + 2) ** 4).sum(1) ** 0.25,
    ),
    "var": (lambda x: (X * x).var(0, unbiased=False), lambda x: x**2 * X.var(0, correction=0)),
}


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
@pytest.mark.parametrize("name", LEFT_TO_TORCH)
def test_a_rule_leaves_rare_arguments_to_torch(name):
    function, by_hand = LEFT_TO_TORCH[name]
    with pytest.warns(hg.NoTaylorRuleWarning, match=name):
        found = function(Polynomial(path("dense")))
    require_coefficients(found, expected(by_hand, path("dense")))


def test_a_large_determinant_is_that_of_the_matrix_determinant_lemma():
    B = torch.randn(20, 4, generator=torch.Generator().manual_seed(5)) / 4

    def function(x):
        return torch.linalg.det(torch.eye(20) + torch.outer(B @ x, B @ x))

    require_coefficients(function(Polynomial(path("dense"))), expected(lambda x: 1 + (B @ x) @ (B @ x), path("dense")))
