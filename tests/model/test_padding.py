"""Embeddings with a row of padding: equal to differences of plain training, or refused."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg

_L2, _LR, _STEPS = 0.3, 0.3, 5


class Texts(nn.Module):
    """The mean of embedded tokens, of which 0 is padding, or of those that are no padding."""

    def __init__(self, *, row: float = 0.0, masked: bool = False, tied: bool = False, frozen: bool = False) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(6, 4, padding_idx=0), nn.Linear(4, 4), nn.Linear(4, 6)
        self.masked = masked
        if tied:
            self.head.weight = self.embed.weight
        with torch.no_grad():
            self.embed.weight[0] = row * torch.randn(4)
        self.embed.weight.requires_grad_(not frozen)

    def forward(self, ids: Tensor) -> Tensor:
        used = (ids > 0) if self.masked else torch.ones_like(ids)
        mean = (torch.tanh(self.embed(ids)) * used.unsqueeze(2)).sum(1) / used.sum(1, keepdim=True).clamp(min=1)
        return self.head(torch.tanh(self.mix(mean)).square())


def part_of(n: int, seed: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 6, (n, 5), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = 1 + torch.arange(n) % 5
    return ids, torch.arange(n) % 6


TRAIN, DEV = part_of(8, 1), part_of(6, 2)


def problem_of(model: nn.Module, **settings: bool) -> hg.Supervised:
    return hg.Supervised(
        model=model, loss=cross_entropy, train=TRAIN, dev=DEV, hyperparameters={"l2": hg.L2(init=_L2)}, **settings
    )


def slope(model: nn.Module, lr: float, steps: int) -> float:
    """dF/dλ by central differences of plain training."""

    def trained(l2: float) -> float:
        net = deepcopy(model)
        params = [p for p in net.parameters() if p.requires_grad]
        for _ in range(steps):
            loss = cross_entropy(net(TRAIN[0]), TRAIN[1]) + l2 * sum(p.square().sum() for p in params)
            for p, g in zip(params, torch.autograd.grad(loss, params), strict=True):
                p.data.sub_(g, alpha=lr)
        return cross_entropy(net(DEV[0]), DEV[1]).item()

    return (trained(_L2 + 1e-5) - trained(_L2 - 1e-5)) / 2e-5


SERVED = {
    "a row of zeros": {},
    "a row of zeros, masked": {"masked": True},
    "another row, masked": {"row": 1.0, "masked": True},
    "tied and masked": {"row": 1.0, "masked": True, "tied": True},
    "frozen": {"row": 1.0, "frozen": True},
}


@pytest.mark.parametrize("kind", SERVED)
def test_padding_that_stays_or_does_not_matter_is_served(kind: str) -> None:
    torch.manual_seed(0)
    model = Texts(**SERVED[kind])
    problem = problem_of(model)
    solver = hg.GradientDescent(lr=_LR)
    for estimator in (
        hg.Unrolled(solver=solver, inner_steps=_STEPS),
        hg.Unrolled(solver=solver, inner_steps=_STEPS, tape=hg.Checkpoint()),
        hg.Forward(solver=solver, inner_steps=_STEPS),
    ):
        found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        assert found.grad["l2"].item() == pytest.approx(slope(model, _LR, _STEPS), rel=1e-6)


LINSOLVES = [hg.CG(tol=1e-10), hg.GMRES(tol=1e-10), hg.Dense(), hg.Auto(tol=1e-10)]
PRODUCTS = [hg.Reverse(), hg.ForwardOverReverse(), hg.CentredDifferences()]


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("linsolve", LINSOLVES, ids=lambda x: type(x).__name__)
def test_products_are_symmetric_with_a_row_of_zeros(linsolve: hg.LinearSolver, product: hg.Product) -> None:
    torch.manual_seed(0)
    model = Texts()
    problem = problem_of(model)
    estimator = hg.Implicit(
        solver=hg.GradientDescent(lr=0.5), inner_steps=300, inner_tol=1e-12, linsolve=linsolve, product=product
    )
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.grad["l2"].item() == pytest.approx(slope(model, 0.5, 300), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"row": 1.0}, "is not zero"), ({"tied": True}, "is a weight of a Linear too")],
    ids=["not zero", "tied"],
)
def test_padding_that_moves_and_matters_is_refused(settings: dict[str, bool], reason: str) -> None:
    torch.manual_seed(0)
    model = Texts(**settings)
    with pytest.raises(ValueError, match=f"'embed' of the model, a Embedding, .* padding_idx=0, which {reason}"):
        problem_of(model)
    problem = problem_of(model, probe=False)
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=_LR), inner_steps=_STEPS)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    truth = slope(model, _LR, _STEPS)
    assert abs(found.grad["l2"].item() - truth) > 1e-4 * abs(truth)
