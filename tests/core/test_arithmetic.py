"""Products that can be undone bit for bit, and the bits that this needs."""

import math
from fractions import Fraction

import pytest
import torch

import hypergrad as hg
from hypergrad.core.arithmetic import LARGEST_DENOMINATOR, Remainders, add_fixed, to_fixed, to_float


def integers(size=37, largest=2**55, seed=0):
    return torch.randint(-largest, largest, (size,), generator=torch.Generator().manual_seed(seed))


RATIOS = {
    "half": Fraction(1, 2),
    "0.9": Fraction(9, 10),
    "0.98": Fraction(49, 50),
    "0.99": Fraction(99, 100),
    "tiny": Fraction(1, LARGEST_DENOMINATOR),
    "large terms": Fraction(LARGEST_DENOMINATOR - 3, LARGEST_DENOMINATOR),
}


@pytest.mark.parametrize("ratio", RATIOS.values(), ids=RATIOS)
def test_products_are_undone_bit_for_bit(ratio):
    start = q = integers()
    remainders, added = Remainders(torch.zeros_like(q)), []
    for t in range(400):
        before = q
        q = remainders.multiply(q, ratio)
        # the n integers nearest to q n/d, in exact arithmetic
        assert all(
            abs(after - value * ratio) < ratio.numerator
            for after, value in zip(q.tolist(), before.tolist(), strict=True)
        )
        added.append(integers(largest=2**50, seed=t))
        q = q + added[-1]
    for step in reversed(added):
        q = remainders.divide(q - step, ratio)
    assert torch.equal(q, start)
    assert not remainders.x.any()
    assert remainders.bound == 1
    assert not remainders.words


def test_the_ratio_may_change_from_product_to_product():
    generator = torch.Generator().manual_seed(1)
    ratios = [Fraction(int(n), 997) for n in torch.randint(1, 997, (300,), generator=generator)]
    start = q = integers()
    remainders = Remainders(torch.zeros_like(q))
    for ratio in ratios:
        q = remainders.multiply(q + 12345, ratio)
    for ratio in reversed(ratios):
        q = remainders.divide(q, ratio) - 12345
    assert torch.equal(q, start)


@pytest.mark.parametrize("num_steps", [1000, 10_000])
@pytest.mark.parametrize("ratio", [Fraction(1, 2), Fraction(9, 10), Fraction(49, 50), Fraction(99, 100)], ids=str)
def test_takes_the_bits_that_are_lost_and_no_more_than_one_word_beside(ratio, num_steps):
    q = torch.zeros(1, dtype=torch.int64)
    remainders = Remainders(torch.zeros_like(q))
    for _ in range(num_steps):
        q = remainders.multiply(q, ratio)
    lost = -num_steps * math.log2(ratio)
    assert remainders.bits <= 1.05 * lost + 64
    # without the bits of the 64 that are still empty: the first digits in base d are not full yet
    assert 32 * len(remainders.words) + math.log2(remainders.bound) <= 1.05 * lost + math.log2(ratio.denominator)


def test_fixed_point_is_within_half_a_unit_and_sums_are_exact():
    x = torch.randn(100, generator=torch.Generator().manual_seed(3))
    q = to_fixed(x, 30)
    assert (to_float(q, 30, torch.float64) - x).abs().max() <= 2.0**-31
    assert torch.equal(add_fixed(q, to_fixed(-x, 30), 30), torch.zeros_like(q))
    assert to_float(q, 30, torch.float32).dtype == torch.float32


def test_what_does_not_fit_is_refused_with_the_value_and_the_room():
    with pytest.raises(
        hg.FixedPointOverflowError,
        match=r"a value of 1.64e\+04, but 48 fractional bits leave room only below 1.64e\+04",
    ):
        to_fixed(torch.tensor([2.0**14]), 48)
    with pytest.raises(hg.FixedPointOverflowError, match="a value of inf"):
        to_fixed(torch.tensor([torch.inf, 1.0]), 48)
    near = to_fixed(torch.tensor([-(2.0**14) + 1]), 48)
    with pytest.raises(hg.FixedPointOverflowError, match=r"a value of 3.28e\+04"):
        add_fixed(near, near, 48)
    with pytest.raises(hg.NonFiniteError, match="1 of 2 values are NaN"):
        to_fixed(torch.tensor([0.0, torch.nan]), 48)


@pytest.mark.parametrize("ratio", [Fraction(0), Fraction(1), Fraction(3, 2), Fraction(-1, 2)], ids=str)
def test_a_ratio_outside_0_and_1_is_refused(ratio):
    with pytest.raises(ValueError, match="must be above 0 and below 1, but it is"):
        Remainders(torch.zeros(1, dtype=torch.int64)).multiply(integers(1), ratio)


def test_too_large_a_denominator_is_refused():
    with pytest.raises(ValueError, match=r"denominator above 1048576.*limit_denominator\(1048576\)"):
        Remainders(torch.zeros(1, dtype=torch.int64)).multiply(integers(1), Fraction(1, 2**20 + 1))
