"""Products with the gradients of single examples, against the gradients themselves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import leaves
from hypergrad.influence.terms import Terms


class Tied(nn.Module):
    """An embedding whose matrix is also that of a linear layer, which is applied at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(6, 5)
        self.inner = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.inner(self.tokens(x)))
        return nn.functional.linear(h, self.tokens.weight).mean(1)


class Turned(nn.Module):
    """A layer whose inputs have the places in front of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(3, 5), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1).mean(1))


class Reversed(nn.Module):
    """A layer that sees the examples in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(3, 5), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.inner(x.flip(0))).flip(0))


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 6)), (3,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 6)), (3,)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 6)), (1, 4, 4)),
    "strides": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=2, padding=1, dilation=(1, 2), bias=False),
            nn.Tanh(),
            nn.Conv2d(4, 4, 2, groups=2),
            nn.Conv2d(4, 3, 1, padding="same"),
            nn.Flatten(),
            nn.Linear(12, 6),
        ),
        (2, 5, 6),
    ),
    "places": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Flatten(), nn.Linear(20, 6)), (4, 3)),
    "places first": (Turned, (4, 3)),
    "as many places as examples tried": (Turned, (7, 3)),
    "as many places as examples": (Turned, (9, 3)),
    "another order": (Reversed, (3,)),
    "norm": (lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 6)), (3,)),
    "tied": (Tied, None),
}

SERVED = {
    **{
        "mlp": {"0.weight", "2.weight", "4.weight"},
        "no bias": {"0.weight", "2.weight"},
        "cnn": {"0.weight", "3.weight"},
    },
    "strides": {"0.weight", "5.weight"},
    **{"places": {"0.weight", "3.weight"}, "places first": {"last.weight"}, "norm": {"0.weight", "3.weight"}},
    **{"as many places as examples tried": set(), "another order": set(), "tied": {"inner.weight", "tokens.weight"}},
    "as many places as examples": {"last.weight"},
}
"""The matrices and kernels without gradients of single examples."""


@pytest.mark.parametrize("net", NETS, ids=NETS)
def test_products_are_those_with_the_gradients(net):
    make, shape = NETS[net]
    torch.manual_seed(0)
    X = torch.randint(6, (20, 4)) if shape is None else torch.randn(20, *shape, dtype=torch.float64)
    y = torch.randint(6, (20,))
    problem = hg.Supervised(
        model=make().double(),
        loss=nn.CrossEntropyLoss(weight=torch.arange(1.0, 7.0).double(), label_smoothing=0.1),
        train=(X[:16], y[:16]),
        dev=(X[16:], y[16:]),
        hyperparameters={"weights": hg.ExampleWeights(init=0.3), "l2": hg.L2(init=0.1)},
    )
    params, hparams = problem.init_params(), problem.init_hparams()
    terms = Terms(problem, params, hparams, block=9)
    V = {name: torch.randn(3, *p.shape, dtype=p.dtype) for name, p in params.items()}
    w = leaves(params)
    flat = torch.cat([x.flatten(1) for x in V.values()], 1)
    expected = []
    for one in terms.train(w, slice(0, 16)):
        grads = torch.autograd.grad(one, list(w.values()), retain_graph=True)
        expected.append(flat @ torch.cat([g.flatten() for g in grads]))
    torch.testing.assert_close(terms.products(V), torch.stack(expected, 1), rtol=1e-10, atol=1e-13)
    assert terms._layers == SERVED[net]
    total = terms.train(params, slice(0, 16)).sum() + 0.1 * sum(p.square().sum() for p in params.values())
    torch.testing.assert_close(problem.inner_loss(params, hparams, None), total)
    dev = terms.dev(params, slice(0, 4)).mean()
    torch.testing.assert_close(problem.outer_loss(params, hparams, None), dev)


def test_several_places_are_served_a_few_examples_at_a_time(monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Flatten(), nn.Linear(20, 2)).double()
    X, y = torch.randn(12, 4, 3, dtype=torch.float64), torch.randint(2, (12,))
    problem = hg.Supervised(
        model=net, loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": hg.L2()}
    )
    terms = Terms(problem, problem.init_params(), problem.init_hparams(), block=12)
    V = {name: torch.randn(3, *p.shape, dtype=p.dtype) for name, p in terms.params.items()}
    whole = terms.products(V)
    monkeypatch.setattr("hypergrad.influence.linear_calls._MOST", 31)
    torch.testing.assert_close(terms.products(V), whole)
