"""All derivatives of one order at once, against nested `jacfwd`."""

import math
from itertools import permutations

import pytest
import torch
from optima import OPTIMA, SEED, A
from torch.func import jacfwd

import hypergrad as hg


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_tensor_is_nested_jacfwd(order):
    objective, solve, hpar0, delta = SEED
    w0 = solve(hpar0)
    found = hg.TaylorExpansion(order=4).at(objective, w0, hpar0).tensor(order)
    function = hg.argmin(objective, w0, hpar0)
    for _ in range(order):
        function = jacfwd(function)
    torch.testing.assert_close(found, function(hpar0), rtol=1e-8, atol=1e-11)
    for axes in permutations(range(1, order + 1)):
        assert torch.equal(found, found.permute(0, *axes))
    along = hg.TaylorExpansion(order=order).at(objective, w0, hpar0).derivatives(delta)[-1]
    for _ in range(order):
        found = found @ delta
    torch.testing.assert_close(found, along, rtol=1e-8, atol=1e-12)


def test_named_hyperparameters_and_a_root():
    def phi(w, hp):
        return {"w": A @ w["w"] + torch.tanh(w["w"]) * hp["a"].sum() - hp["b"] - w["w"] ** 2 * hp["a"][0, 0]}

    def flat_phi(w, hp):
        return phi({"w": w}, {"a": hp[:2].view(1, 2), "b": hp[2:]})["w"]

    hp0 = torch.tensor([0.2, 0.1, 0.3, -0.2, 0.1, 0.4])
    w0 = torch.zeros(4)
    for _ in range(30):
        w0 = w0 - torch.linalg.solve(jacfwd(flat_phi)(w0, hp0), flat_phi(w0, hp0))
    named = {"a": hp0[:2].view(1, 2), "b": hp0[2:]}
    found = hg.TaylorExpansion(order=3).at(hg.Root(phi), {"w": w0}, named).tensor()
    truth = jacfwd(jacfwd(jacfwd(hg.argmin(hg.Root(flat_phi), w0, hp0))))(hp0)
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-10)


def test_the_systems_behind_it_are_solved_to_rounding():
    """A polynomial whose derivatives are known in closed form, up to 10 variables at order 4: 715 directions."""
    d = 10
    a = torch.linspace(-1, 1, d)

    def objective(w, hp):
        return (w**2 / 2 - w * (a @ hp + (a @ hp) ** 4)).sum()

    found = hg.TaylorExpansion(order=4).at(objective, torch.zeros(1), torch.zeros(d)).tensor(4)[0]
    truth = math.factorial(4) * torch.einsum("i,j,k,l->ijkl", a, a, a, a)
    torch.testing.assert_close(found, truth, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("order", "message"), [(0, "from 1 to 2"), (3, "from 1 to 2")])
def test_another_order_is_refused(order, message):
    objective, solve, hpar0, _ = SEED
    with pytest.raises(ValueError, match=message):
        hg.TaylorExpansion(order=2).at(objective, solve(hpar0), hpar0).tensor(order)


def test_too_large_a_tensor_is_refused():
    objective, solve, ones, _ = OPTIMA["logistic"]
    with pytest.raises(ValueError, match="37820 different entries, but tensors are made with at most 3000"):
        hg.TaylorExpansion(order=3).at(objective, solve(ones), ones).tensor()
