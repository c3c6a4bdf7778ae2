"""Losses as they are: weights of examples keep their reduction and denominator, and they move with the problem."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import hypergrad as hg
from hypergrad.core.autodiff import flatten

N, K = 12, 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def real(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def classes(*shape, ignored=None, seed=1, high=K):
    y = torch.randint(0, high, shape, generator=generator(seed))
    if ignored is not None:
        y.view(-1)[1::5] = ignored
    return y


def probabilities(*shape, seed=2):
    return real(*shape, seed=seed).softmax(1)


def signs(*shape):
    return 2 * classes(*shape, high=2).double() - 1


CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 10.0, 0.5], dtype=torch.float64)
SETS = torch.tensor([[0, 2, -1, 1], [3, -1, 0, 0], [1, 2, 3, -1], [-1, 0, 0, 0]]).repeat(N // 4, 1)
LABELS = {
    "classes": (real(N, K), classes(N)),
    "probabilities": (real(N, K), probabilities(N, K)),
    "ignored": (real(N, K), classes(N, ignored=-100)),
    "255": (real(N, K), classes(N, ignored=255)),
    "in range": (real(N, K), classes(N, ignored=2)),
    "images": (real(N, K, 2, 3), classes(N, 2, 3, ignored=-100)),
    "images of probabilities": (real(N, K, 3), probabilities(N, K, 3)),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "class weights": {"weight": CLASS_WEIGHTS},
    "class weights, sum": {"weight": CLASS_WEIGHTS, "reduction": "sum"},
    "smoothing": {"weight": CLASS_WEIGHTS, "label_smoothing": 0.2},
}
IGNORED = {"255": {"ignore_index": 255}, "in range": {"ignore_index": 2}}
ENTRIES: dict[str, tuple[type[nn.Module], Any, dict[str, Any], tuple[torch.Tensor, torch.Tensor]]] = {
    "mse": (nn.MSELoss, functional.mse_loss, {}, (real(N), real(N, seed=3))),
    "mse of columns": (nn.MSELoss, functional.mse_loss, {}, (real(N, 3), real(N, 3, seed=3))),
    "mse of one column": (nn.MSELoss, functional.mse_loss, {}, (real(N, 1), real(N, 1, seed=3))),
    "mse of flat targets": (nn.MSELoss, functional.mse_loss, {}, (real(N, 1), real(N, seed=3))),
    "mse of integers": (nn.MSELoss, functional.mse_loss, {}, (real(N, 1), classes(N))),
    "l1": (nn.L1Loss, functional.l1_loss, {}, (real(N, 3), real(N, 3, seed=3))),
    "smooth l1": (nn.SmoothL1Loss, functional.smooth_l1_loss, {"beta": 0.4}, (real(N, 3), real(N, 3, seed=3))),
    "huber": (nn.HuberLoss, functional.huber_loss, {"delta": 0.4}, (real(N, 3), real(N, 3, seed=3))),
    "bce": (
        nn.BCELoss,
        functional.binary_cross_entropy,
        {"weight": torch.tensor([1.0, 2.0])},
        (unit(N, 2), unit(N, 2, seed=3)),
    ),
    "bce with logits": (
        nn.BCEWithLogitsLoss,
        functional.binary_cross_entropy_with_logits,
        {"pos_weight": torch.tensor([1.0, 2.0]), "weight": torch.tensor([3.0, 0.5])},
        (real(N, 2), classes(N, 2, high=2)),
    ),
    "binary": (
        nn.BCEWithLogitsLoss,
        functional.binary_cross_entropy_with_logits,
        {},
        (real(N, 1), classes(N, high=2).bool()),
    ),
    "kl": (nn.KLDivLoss, functional.kl_div, {}, (real(N, K).log_softmax(1), probabilities(N, K))),
    "kl by batch": (
        nn.KLDivLoss,
        functional.kl_div,
        {"reduction": "batchmean"},
        (real(N, K).log_softmax(1), probabilities(N, K)),
    ),
    "poisson": (nn.PoissonNLLLoss, functional.poisson_nll_loss, {"full": True}, (real(N, 2), classes(N, 2, high=9))),
    "soft margin": (nn.SoftMarginLoss, functional.soft_margin_loss, {}, (real(N, 2), signs(N, 2))),
    "hinge embedding": (nn.HingeEmbeddingLoss, functional.hinge_embedding_loss, {"margin": 0.5}, (unit(N), signs(N))),
    "multi margin": (
        nn.MultiMarginLoss,
        functional.multi_margin_loss,
        {"weight": CLASS_WEIGHTS, "p": 2},
        LABELS["classes"],
    ),
    "multilabel margin": (nn.MultiLabelMarginLoss, functional.multilabel_margin_loss, {}, (real(N, K), SETS)),
    "multilabel soft margin": (
        nn.MultiLabelSoftMarginLoss,
        functional.multilabel_soft_margin_loss,
        {"weight": CLASS_WEIGHTS},
        (real(N, K), classes(N, K, high=2)),
    ),
}


def table() -> dict[str, tuple[Any, torch.Tensor, torch.Tensor]]:
    """Every loss of torch.nn with targets, as a module and as a partial of its function."""
    rows: dict[str, Any] = {}
    for data, (z, y) in LABELS.items():
        for name, given in SETTINGS.items():
            settings: dict[str, Any] = given | IGNORED.get(data, {})
            rows[f"cross entropy, {name}, {data}"] = nn.CrossEntropyLoss(**settings), z, y
            rows[f"cross_entropy, {name}, {data}"] = partial(functional.cross_entropy, **settings), z, y
            if not y.is_floating_point() and "label_smoothing" not in settings:
                rows[f"nll, {name}, {data}"] = nn.NLLLoss(**settings), z.log_softmax(1), y
                rows[f"nll_loss, {name}, {data}"] = partial(functional.nll_loss, **settings), z.log_softmax(1), y
    for name, (module, function, settings, (z, y)) in ENTRIES.items():
        for reduction in ("mean", "sum"):
            all_settings = {"reduction": reduction} | settings
            rows[f"{name}, {reduction}"] = module(**all_settings), z, y
            rows[f"{name} as a function, {reduction}"] = partial(function, **all_settings), z, y
    return rows | {
        "a function of torch": (functional.cross_entropy, *LABELS["ignored"]),
        "own, a value for each": (lambda z, y: (z - y).abs().pow(1.5), real(N, 1), real(N, seed=3)),
        "own, values for each": (lambda z, y: (z - y[:, None]).abs(), real(N, 3), real(N, seed=3)),
        "own, with a reduction": (focal, *LABELS["classes"]),
        "own, a sum": (partial(focal, reduction="sum"), *LABELS["classes"]),
        "own, a partial with a tensor": (partial(focal, scale=CLASS_WEIGHTS), *LABELS["classes"]),
        "own module": (Tilted(0.3), real(N, 3), real(N, 3, seed=3)),
        "own module by example": (Tilted(0.3, by_example=True), real(N, 3), real(N, 3, seed=3)),
    }


def focal(z, y, scale=None, reduction="mean"):
    p = z.softmax(1)[torch.arange(len(y)), y]
    terms = (1 - p).square() * -p.log() * (1.0 if scale is None else scale[y])
    return {"mean": terms.mean(), "sum": terms.sum(), "none": terms}[reduction]


class Tilted(nn.Module):
    """A quantile loss with a reduction of its own, over the entries or over the examples."""

    def __init__(self, q, *, by_example=False):
        super().__init__()
        self.q: Any
        self.register_buffer("q", torch.tensor(q))
        self.reduction, self.by_example = "mean", by_example

    def forward(self, z, y):
        terms = torch.maximum(self.q * (y - z), (self.q - 1) * (y - z))
        if self.reduction == "none":
            return terms
        return terms.sum() / len(y) if self.by_example else terms.mean()


class Table(nn.Module):
    """A model whose outputs are its parameters, so that a loss is tried at any outputs."""

    def __init__(self, z):
        super().__init__()
        self.z = nn.Parameter(z.clone())

    def forward(self, rows):
        return self.z[rows]


def on_table(loss, z, y, **settings: Any) -> hg.Supervised:
    parts = {part: (torch.arange(N), y) for part in ("train", "dev")}
    usual: dict[str, Any] = {"hyperparameters": {"l2": hg.L2(init=0.1)}}
    with pytest.warns(UserWarning, match="dev examples are in the train part too"):
        return hg.Supervised(model=Table(z), loss=loss, **parts, **usual | settings)


def own_value(loss, z, y) -> torch.Tensor:
    """The loss as torch has it."""
    z = z.squeeze(1) if z.shape == (len(y), 1) and y.ndim == 1 else z
    function = loss.func if isinstance(loss, partial) else loss
    is_entry = any(function is f or isinstance(function, m) for m, f, *_ in ENTRIES.values())
    as_index = isinstance(function, nn.MultiLabelMarginLoss | nn.MultiMarginLoss) or function in (
        functional.multi_margin_loss,
        functional.multilabel_margin_loss,
    )
    return loss(z, y.to(z.dtype) if is_entry and not as_index else y).mean()


def value_and_slope(problem, z, **hparams):
    with torch.no_grad():  # two losses of torch have a first derivative only
        found, gradient = problem.inner_loss_and_gradient({"z": z}, hparams, None)
    return found, flatten(gradient)


LOSSES = table()


@pytest.mark.parametrize(("loss", "z", "y"), LOSSES.values(), ids=LOSSES)
@pytest.mark.filterwarnings("ignore:reduction. .mean. divides the total loss by both")
def test_weights_keep_the_reduction_and_the_denominator(loss, z, y):
    problem = on_table(loss, z, y, hyperparameters={"l2": hg.L2(init=0.1)})
    weighted = problem.weighted("c")
    l2 = {"l2": torch.tensor(0.0)}
    w = z.clone().requires_grad_()
    by_torch = own_value(loss, w, y)
    (slope,) = torch.autograd.grad(by_torch, w)
    for found in (value_and_slope(problem, z, **l2), value_and_slope(weighted, z, **l2, c=torch.ones(N))):
        torch.testing.assert_close(found[0], by_torch, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found[1], slope.flatten(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(weighted.outer_loss({"z": z}, l2, None), by_torch, rtol=1e-12, atol=1e-13)

    # The loss is linear in the weights, and example i has the slope 1/N du_i/dz_i, in its own rows only.
    c = unit(N, seed=7) + 0.5
    c[3] = 0
    found, gradient = value_and_slope(weighted, z, **l2, c=c)
    torch.testing.assert_close(gradient.view_as(z), slope * c.view(-1, *[1] * (z.ndim - 1)), rtol=1e-12, atol=1e-13)
    parts = [weighted.inner_loss({"z": z}, l2 | {"c": e}, None) for e in torch.eye(N)]
    torch.testing.assert_close(found, c @ torch.stack(parts), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.stack(parts).sum(), by_torch, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("loss", "z", "y"), LOSSES.values(), ids=LOSSES)
@pytest.mark.filterwarnings("ignore:reduction. .mean. divides the total loss by both")
def test_a_weight_of_two_is_an_example_that_occurs_twice(loss, z, y):
    """Up to the denominator, which is that of the examples as they are: one factor for the value and all slopes."""
    weighted, twice, c = (
        on_table(loss, z, y).weighted("c"),
        torch.cat([torch.arange(N), torch.tensor([4])]),
        torch.ones(N),
    )
    c[4] = 2
    found, gradient = value_and_slope(weighted, z, l2=torch.tensor(0.0), c=c)
    w = z.clone().requires_grad_()
    doubled = own_value(loss, w[twice], y[twice])
    (slope,) = torch.autograd.grad(doubled, w)
    factor = found / doubled
    torch.testing.assert_close(gradient, factor * slope.flatten(), rtol=1e-12, atol=1e-13)
    assert 1 - 1e-12 < factor < 1.5


WEIGHINGS = {
    "classes": {"c": hg.ClassWeights()},
    "examples": {"c": hg.ExampleWeights()},
    "both": {"c": hg.ClassWeights(), "d": hg.ExampleWeights()},
}


@pytest.mark.parametrize("hyperparameters", WEIGHINGS.values(), ids=WEIGHINGS)
@pytest.mark.parametrize("batch_size", [None, 5])
def test_every_effect_that_weighs_keeps_them_too(hyperparameters, batch_size):
    z, y = LABELS["ignored"]
    loss = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS)
    problem = on_table(loss, z, y, hyperparameters=hyperparameters, batch_size=batch_size)
    for step in range(3):
        batch = problem.inner_batch(step)
        rows = slice(None) if batch is None else batch.rows
        found = problem.inner_loss({"z": z}, problem.init_hparams(), batch)
        torch.testing.assert_close(found, loss(z[rows], y[rows]), rtol=1e-12, atol=0)


NO_TERMS = {
    "a scalar": lambda z, y: functional.cross_entropy(z, y),
    "a mean and a penalty": lambda z, y, reduction="mean": functional.cross_entropy(z, y, reduction=reduction) + 0.1,
    "an own denominator": lambda z, y, reduction="mean": functional.cross_entropy(
        z, y, weight=CLASS_WEIGHTS, reduction=reduction
    ),
    "an old setting": partial(functional.cross_entropy, size_average=True),
}


@pytest.mark.parametrize("loss", NO_TERMS.values(), ids=NO_TERMS)
@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
def test_a_loss_whose_terms_are_not_known_is_refused_where_weights_are_asked_for(loss):
    z, y = LABELS["classes"]
    if loss is NO_TERMS["a mean and a penalty"]:
        loss = lambda z, y, reduction="mean": (  # noqa: E731
            functional.cross_entropy(z, y, reduction=reduction)
            + (0.1 * z.square().mean() if reduction == "mean" else 0)
        )
    problem = on_table(loss, z, y)
    with pytest.raises(ValueError, match="Weights of examples need a loss for each of the examples.*but"):
        problem.weighted("c")
    for effect in (hg.ExampleWeights(), hg.ClassWeights()):
        with pytest.raises(ValueError, match="give it an argument `reduction`"):
            on_table(loss, z, y, hyperparameters={"c": effect})
