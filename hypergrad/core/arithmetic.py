"""Fixed-point tensors whose sums, and products with a ratio, can be undone bit for bit."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.core.errors import FixedPointOverflowError, NonFiniteError

LARGEST_DENOMINATOR = 2**20
"""Largest denominator of a ratio: when 32 bits are moved, 11 bits of x stay, so rounding its bound up costs little."""
_ROOM_BITS = 62
"""Bits of a fixed-point number, without the sign: the sum of two fits in the 63 bits of int64."""
_WORD_BITS = 32
"""Bits that are moved to the stack at once, as many as an int32 holds."""
_CAPACITY = 2**63
"""First number that int64 does not hold."""


def to_fixed(x: Tensor, bits: int, peaks: "Peaks | None" = None) -> Tensor:
    """The integers q with q 2^−bits nearest to x, int64.

    Args:
        x: any numbers.
        bits: fractional bits.
        peaks: where to note the largest |x|, to be checked later; None checks it now, which synchronises a GPU.

    Raises:
        FixedPointOverflowError: if |x| ≥ 2^(62 − bits), so that the sum of two such numbers always fits in 63 bits.
        NonFiniteError: if x holds NaN.
    """
    scaled = _scaled(x, bits)
    if peaks is not None:
        peaks.note(scaled)
        return scaled.round().to(torch.int64)
    largest = scaled.abs().max().item() if scaled.numel() else 0.0
    if largest != largest:
        raise NonFiniteError(f"{int(x.isnan().sum())} of {x.numel()} values are NaN.")
    if largest >= 2.0**_ROOM_BITS:
        raise FixedPointOverflowError(_no_room(largest * 2.0**-bits, bits))
    return scaled.round().to(torch.int64)


def to_fixed_again(x: Tensor, bits: int) -> Tensor:
    """`to_fixed` of numbers that were in range before."""
    return _scaled(x, bits).round().to(torch.int64)


def _scaled(x: Tensor, bits: int) -> Tensor:
    return x.detach().to(torch.float64) * 2.0**bits


def to_float(q: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The numbers q 2^−bits, rounded to `dtype`."""
    return (q.to(torch.float64) * 2.0**-bits).to(dtype)


def add_fixed(q: Tensor, step: Tensor, bits: int, peaks: "Peaks | None" = None) -> Tensor:
    """The sum, exact, where both are below 2^62; undone by subtracting `step`. See `to_fixed` for `peaks`.

    Raises:
        FixedPointOverflowError: if the sum is not below 2^62, although it is still exact.
    """
    total = q + step
    if peaks is not None:
        peaks.note(total)
        return total
    largest = total.abs().max().item() if total.numel() else 0
    if largest >= 2**_ROOM_BITS:
        raise FixedPointOverflowError(_no_room(largest * 2.0**-bits, bits))
    return total


class Peaks:
    """The largest absolute values of many tensors, noted on their device and read all at once.

    Args:
        like: a tensor on the device.
        size: how many values are noted before they must be read.
    """

    def __init__(self, like: Tensor, size: int) -> None:
        self._values = {dtype: like.new_zeros(size, dtype=dtype) for dtype in (torch.float64, torch.int64)}
        self._slots = {dtype: values.unbind() for dtype, values in self._values.items()}
        self._used = dict.fromkeys(self._values, 0)

    def note(self, x: Tensor) -> None:
        """Note the largest absolute value of a tensor of float64 or int64."""
        if x.numel():
            slot = self._slots[x.dtype][self._used[x.dtype]]
            self._used[x.dtype] += 1
            if x.dtype == torch.float64:
                torch.linalg.vector_norm(x, torch.inf, out=slot)
            else:
                torch.amax(x.abs().flatten(), 0, out=slot)

    def leave_room(self) -> bool:
        """Whether all values since the last reading are below 2^62, and none is NaN."""
        largest = [self._values[dtype][:used].max() for dtype, used in self._used.items() if used]
        self._used = dict.fromkeys(self._values, 0)
        return all(value.item() < 2**_ROOM_BITS for value in largest)


def _no_room(value: float, bits: int) -> str:
    return f"a value of {value:.3g}, but {bits} fractional bits leave room only below {2.0 ** (_ROOM_BITS - bits):.3g}"


class _Word(NamedTuple):
    """What was moved to the stack: the lower 32 bits of x, the bound before, and the number of products before."""

    low: Tensor
    bound: int
    before: int


@dataclass
class Remainders:
    """Products q ↦ q n/d of integers with ratios 0 < n/d < 1, and what they lose, so that they can be undone.

    With q = d a + r, the product is n a + r′ for any r′ in 0, …, n − 1, and r is lost. Each entry keeps a number x. The
    remainder r is put into it as a digit in base d, and r′ is taken from it as a digit in base n,

        x ← d x + r,    q ← n a + x mod n,    x ← ⌊x / n⌋,

    which can be undone. It makes x grow by log₂(d/n) bits, the information that a product with n/d destroys. If x < c
    before, then x < ⌈c d/n⌉ after. This bound is the same for all entries and does not depend on the data, so all
    entries move their lower 32 bits to a stack at the same step, before d x could exceed 63 bits. Because d ≤ 2^20, at
    least 11 bits stay, so rounding c up costs almost nothing.

    Attributes:
        x: the number of each entry, int64.
        bound: c, above every entry of x.
        words: the stack.
        count: products so far.

    Source: Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization through reversible learning", ICML
    (2015), section 3; Duda, "Asymmetric numeral systems" (2009), for moving words instead of the whole number.
    """

    x: Tensor
    bound: int = 1
    words: list["_Word"] = field(default_factory=list)
    count: int = 0

    def multiply(self, q: Tensor, ratio: Fraction) -> Tensor:
        """The integers q n/d, each rounded to one of the n nearest; x decides which.

        Also raised, by what it calls: ValueError if the ratio is not above 0 and below 1, or its denominator is above
        2^20.
        """
        n, d = _terms(ratio)
        if self.bound * d > _CAPACITY:
            self._push()
        a = q.div(d, rounding_mode="floor")
        x = self.x * d + (q - a * d)
        self.x = x.div(n, rounding_mode="floor")
        self.bound = -(-self.bound * d // n)
        self.count += 1
        return a * n + (x - self.x * n)

    def divide(self, q: Tensor, ratio: Fraction) -> Tensor:
        """Undo the last product; the ratio must be the same."""
        n, d = _terms(ratio)
        a = q.div(n, rounding_mode="floor")
        x = self.x * n + (q - a * n)
        self.x = x.div(d, rounding_mode="floor")
        self.bound = self.bound * n // d
        self.count -= 1
        undone = a * d + (x - self.x * d)
        if self.words and self.words[-1].before == self.count:
            self._pop()
        return undone

    @property
    def bits(self) -> int:
        """The bits of memory per entry: 32 for each of its words, and 64 for x."""
        return 32 * len(self.words) + 64

    def _push(self) -> None:
        upper = self.x >> _WORD_BITS
        # int32 is signed, so 2^31 is subtracted from a word in 0, …, 2^32 − 1.
        low = (self.x - (upper << _WORD_BITS) - 2 ** (_WORD_BITS - 1)).to(torch.int32)
        self.words.append(_Word(low, self.bound, self.count))
        self.x, self.bound = upper, -(-self.bound >> _WORD_BITS)

    def _pop(self) -> None:
        word = self.words.pop()
        self.x = (self.x << _WORD_BITS) + (word.low.to(torch.int64) + 2 ** (_WORD_BITS - 1))
        self.bound = word.bound


def _terms(ratio: Fraction) -> tuple[int, int]:
    n, d = ratio.numerator, ratio.denominator
    if not 0 < n < d:
        raise ValueError(f"The ratio of a product that can be undone must be above 0 and below 1, but it is {ratio}.")
    if d > LARGEST_DENOMINATOR:
        raise ValueError(
            f"The ratio {ratio} has a denominator above {LARGEST_DENOMINATOR}, which leaves too little room for the "
            f"remainders; use Fraction.limit_denominator({LARGEST_DENOMINATOR}) or less."
        )
    return n, d
