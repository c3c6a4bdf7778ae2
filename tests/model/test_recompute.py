"""Blocks that compute their activations again: the same derivatives, fewer bytes, and how often a block is called."""

from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import hypergrad as hg
from hypergrad.core.accumulation import accumulated
from hypergrad.core.autodiff import leaves
from hypergrad.model.blocks import blocks_of
from hypergrad.model.pure_module import PureModule
from hypergrad.problem.oracle import Oracle
from hypergrad.tape.footprint import measure
from hypergrad.training.dynamics import Dynamics

WORDS, LENGTH, WIDTH = 13, 6, 8


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (y.unflatten(2, (2, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2))
        return self.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    calls = 0

    def __init__(self, dropout):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(dropout))
        self.project = nn.Linear(16, WIDTH)
        self.register_buffer("scale", torch.tensor(0.9))

    def forward(self, x, *, shift):
        Block.calls += 1
        x = x + self.attention(self.norm(x))
        return self.scale * x + self.project(self.mlp(x)), shift + 0.1


class GPT(nn.Module):
    """With a head tied to the embedding, dropout, buffers, and blocks that take and return two tensors."""

    def __init__(self, dropout=0.1, depth=3):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        x, shift = self.words(ids) + self.places, self.places.mean()
        for block in self.blocks:
            x, shift = block(x, shift=shift)
        return (self.head(self.norm(x)) + shift).transpose(1, 2)


def text(seed):
    ids = torch.randint(0, WORDS, (7, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def gpt(recompute, **settings):
    return hg.Supervised(
        model=GPT(**settings),
        loss=cross_entropy,
        train=text(1),
        dev=text(2),
        hyperparameters={"l2": hg.L2(init=0.01), "scale": hg.Buffer(name="blocks.1.scale")},
        recompute=recompute,
    )


@lru_cache
def plain():
    return gpt(False)


CHOICES = {
    "all that repeat": True,
    "nested": ["blocks.*", "blocks.*.mlp"],
    "parts": ["*.attention", "norm"],
    "the tied head": ["head", "words"],
}
PRODUCTS = {
    "reverse": hg.Reverse(),
    "Gauss-Newton": hg.GaussNewton(),
    "forward over reverse": hg.ForwardOverReverse(),
    "differences": hg.CentredDifferences(),
}


@pytest.mark.parametrize(
    ("recompute", "product"), [*((choice, "reverse") for choice in CHOICES), *(("nested", kind) for kind in PRODUCTS)]
)
def test_values_and_derivatives_are_the_plain_ones(recompute, product):
    def found(recompute):
        problem = gpt(recompute) if recompute else plain()
        w = {name: 1.3 * p + 0.01 for name, p in problem.init_params().items()}  # not the module's own weights
        at = PRODUCTS[product].linearize(Oracle(problem, problem.init_hparams(), problem.inner_batch(3)), w)
        generator = torch.Generator().manual_seed(0)
        v, V = torch.randn(at.phi.shape, generator=generator), torch.randn(len(at.phi), 3, generator=generator)
        columns = [at.product.columns(V)] if product == "reverse" and at.product.columns is not None else []
        return [at.phi, at.product(v), *at.mixed(v).values(), *columns]

    for x, y in zip(found(CHOICES[recompute]), found(False), strict=True):
        assert torch.linalg.vector_norm(x - y) <= 1e-12 * torch.linalg.vector_norm(y)


@pytest.mark.parametrize("tape", [hg.Graph(), hg.Store()], ids=["graph", "store"])
def test_hypergradients_through_training_are_the_plain_ones(tape):
    estimator = hg.Unrolled(solver=hg.Adam(lr=0.01), tape=tape, inner_steps=4)
    found, wanted = (
        estimator.estimate(problem, problem.init_hparams(), problem.init_params()) for problem in (gpt(True), plain())
    )
    for name, grad in wanted.grad.items():
        assert found.grad[name].item() == pytest.approx(grad.item(), rel=1e-12, abs=1e-14)


def test_a_traced_product_is_the_plain_one():
    def found(recompute):
        torch.manual_seed(0)
        X, y = torch.randn(9, 3), torch.randn(9, 3)
        problem = hg.Supervised(
            model=nn.Sequential(nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.Tanh()) for _ in range(2)))),
            loss=nn.functional.mse_loss,
            train=(X[:5], y[:5]),
            dev=(X[5:], y[5:]),
            hyperparameters={"l2": hg.L2(init=0.01)},
            recompute=recompute,
        )
        oracle = Oracle(problem, problem.init_hparams(), problem.inner_batch(3))
        at = hg.Traced(precision="float64").linearize(oracle, problem.init_params())
        assert at.product.approximate is not None
        return at.product.approximate()(at.phi)

    wanted = found(False)
    assert torch.linalg.vector_norm(found(True) - wanted) <= 1e-12 * torch.linalg.vector_norm(wanted)


def function(x, w, u):
    hidden = torch.tanh(x @ w)
    return hidden @ u + x, hidden.sum(1)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_every_order(order):
    generator = torch.Generator().manual_seed(0)
    x, w, u = (torch.randn(shape, generator=generator) for shape in ((5, 3), (3, 4), (4, 3)))

    def found(evaluate):
        given = w.clone().requires_grad_(), u.clone().requires_grad_()
        y, h = x + given[0].sum(), x
        for _ in range(2):
            y, h = evaluate(y, *given)
        values = [y.square().mean() + h.sin().sum()]
        for _ in range(order):
            values = torch.autograd.grad(values, given, [torch.ones_like(v) for v in values], create_graph=True)
        return torch.cat([value.flatten() for value in values])

    again = found(lambda *tensors: accumulated([function], tensors))
    wanted = found(function)
    assert torch.linalg.vector_norm(again - wanted) <= 1e-12 * torch.linalg.vector_norm(wanted)


def test_one_tensor_given_twice_is_two_arguments():
    x = torch.tensor([1.5, -2.0], requires_grad=True)
    (y,) = accumulated([lambda a, b: (a.square() * b,)], (x, x))
    assert y is not None
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert torch.allclose(first, 3 * x.square())
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.allclose(second, 6 * x)


def counted(work):
    Block.calls = 0
    work()
    return Block.calls / 3


def test_how_often_a_block_is_computed():
    problem = gpt(True)
    hparams, w = leaves(problem.init_hparams()), problem.init_params()
    oracle = Oracle(problem, hparams, problem.inner_batch(0))
    oracle(w)  # second derivatives are tried once
    with torch.no_grad():
        assert counted(lambda: oracle(w)) == 2
    at = hg.Reverse().linearize(oracle, w)
    assert counted(lambda: hg.Reverse().linearize(oracle, w)) == 2
    assert counted(lambda: at.product(at.phi)) == 2
    dynamics, state = Dynamics(problem, hg.GradientDescent(), hparams), {"params": w}
    assert counted(lambda: dynamics.linearize(state, 0).pull_back(state)) == 4
    with torch.no_grad():
        assert counted(lambda: oracle.loss(w)) == 1


def test_bytes_kept_by_a_step():
    sizes = {}
    for recompute in (False, True):
        problem = gpt(recompute, depth=12)
        dynamics = Dynamics(problem, hg.GradientDescent(), leaves(problem.init_hparams()))
        sizes[recompute] = measure(dynamics, {"params": problem.init_params()}, 0).graph
    assert sizes[True] < sizes[False] / 4


def test_autocast_in_the_model_is_entered_again():
    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(4, 4)
            self.blocks = nn.ModuleList([nn.Sequential(self.linear, nn.Tanh()), nn.Sequential(nn.Linear(4, 4))])

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                for block in self.blocks:
                    x = block(x)
                return (x + self.linear(x)).float()

    X = torch.randn(9, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(0))

    def found(recompute):
        model = PureModule(Cast().float(), X, 0, probe=False, recompute=recompute)
        w = leaves(model.params())
        loss = model(w, X, 0).square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(w.values()))])

    wanted = found(False)  # it adds up the gradients of a weight that is used twice in bfloat16
    assert torch.linalg.vector_norm(found(True) - wanted) <= 1e-2 * torch.linalg.vector_norm(wanted)


# --- which blocks


def test_all_that_repeat_are_the_items_of_containers_of_one_class():
    def stage():
        return nn.Sequential(Block(0.0), Block(0.0))

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), stage(), nn.ModuleList([stage(), stage()]), nn.Linear(2, 2))
    assert blocks_of(model, True) == ["2.0", "2.1", "3.0", "3.1"]
    assert blocks_of(model, ["2.*", "*.norm"]) == [
        *("2.0", "2.1", "2.0.norm", "2.1.norm", "3.0.0.norm", "3.0.1.norm", "3.1.0.norm", "3.1.1.norm")
    ]
    assert blocks_of(model, False) == []


@pytest.mark.parametrize(
    ("recompute", "error", "message"),
    [
        (
            ["layers.*"],
            ValueError,
            r"The pattern 'layers.\*' of recompute matches no part of the model; it has 'words'",
        ),
        ("blocks.*", TypeError, r"a list of patterns of module names, but it is 'blocks.\*'; write such as"),
        (3, TypeError, "must be True, False, or a list of patterns of module names, but it is 3"),
    ],
)
def test_bad_choices_are_refused(recompute, error, message):
    with pytest.raises(error, match=message):
        gpt(recompute)


def test_a_model_in_which_nothing_repeats_is_refused():
    with pytest.raises(ValueError, match="recompute=True needs blocks that repeat: .* but this Linear has none"):
        PureModule(nn.Linear(3, 1), torch.ones(5, 3), 0, recompute=True)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        x += 1
        return self.linear(x)


def test_a_block_that_changes_its_inputs_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), InPlace(), InPlace())
    with pytest.raises(ValueError, match=r"The layer '1' of the model, a InPlace, changes its inputs in place, so it"):
        PureModule(model, torch.ones(5, 4), 0, recompute=["1", "2"])


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(4, 4), []

    def forward(self, x):
        return self.linear(x) + self.seen[0]


class Hidden(nn.Module):
    """Hands a tensor to a block through an attribute."""

    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Linear(4, 4), Reads()

    def forward(self, x):
        x = self.first(x)
        self.block.seen[:] = [2 * x]
        return self.block(x)


def test_a_block_that_reads_what_is_not_given_to_it_is_refused():
    with pytest.raises(ValueError, match=r"The layer 'block' .* reads a tensor of shape .* that is neither among its"):
        slope_of(PureModule(Hidden(), torch.ones(5, 4), 0, probe=False, recompute=["block"]))


def slope_of(model):
    w = leaves(model.params())
    torch.autograd.grad(model(w, torch.ones(5, 4), 0).sum(), list(w.values()))
