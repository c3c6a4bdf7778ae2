import pytest
import torch
from torch.distributions import constraints

import hypergrad as hg

CONSTRAINTS = {
    "real": (constraints.real, torch.tensor([-300.0, 0.0, 2.0])),
    "positive": (hg.positive, torch.tensor([1e-9, 1.0, 1e9])),
    "interval": (hg.interval(-2.0, 3.0), torch.tensor([-1.9, 0.0, 2.999])),
    "simplex": (hg.simplex, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)),
    "greater than": (constraints.greater_than(4.0), torch.tensor([4.001, 40.0])),
}


@pytest.mark.parametrize(("constraint", "init"), CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_natural_and_unconstrained_values_are_one_to_one_and_stay_inside(constraint, init):
    h = hg.Hyperparameter(init, constraint=constraint)
    u = h.to_unconstrained(h.value(torch.float64))
    assert torch.allclose(h.to_natural(u), init.double(), rtol=1e-9, atol=1e-12)
    assert constraint.check(h.to_natural(u + 3 * torch.linspace(-1, 1, len(u)))).all()


def test_a_number_fills_its_shape():
    assert torch.equal(hg.Hyperparameter(0.5, shape=(2, 3)).value(torch.float64), torch.full((2, 3), 0.5))
    assert hg.Hyperparameter(0.5).value(torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("init", "constraint", "error", "message"),
    [
        (-1.0, hg.positive, ValueError, "init = -1 violates the constraint"),
        (0.0, constraints.nonnegative, ValueError, "boundary"),
        (1.0, hg.unit_interval, ValueError, "boundary"),
        (float("nan"), constraints.real, ValueError, "finite"),
        (torch.tensor([0.5, 0.6]), hg.simplex, ValueError, "violates"),
        ("much", constraints.real, TypeError, "init must be a number or a tensor, but it is 'much' of str"),
        (1.0, constraints.integer_interval(0, 3), ValueError, "no bijection"),
    ],
)
def test_a_start_from_which_nothing_could_move_is_refused(init, constraint, error, message):
    with pytest.raises(error, match=message):
        hg.Hyperparameter(init, constraint=constraint)
