"""Errors of a batch: those of the library name the example, those of one's own function stay as they are."""

import pytest
import torch
from torch.utils.data import default_collate

from hypergrad.data.collation import Collation, collated

GOOD = (torch.ones(2), 0)


@pytest.mark.parametrize("error", [TypeError("mine"), ValueError("mine"), RuntimeError("mine")], ids=repr)
def test_an_error_of_ones_own_function_is_left_as_it_is(error):
    def raises(examples):
        raise error

    with pytest.raises(type(error), match="^mine") as caught:
        collated(Collation(raises, "train"), [GOOD, GOOD], [3, 4], "train")
    assert caught.value is error
    assert "putting 2 examples of the train part into a batch" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("odd", "kind", "message"),
    [
        ((torch.ones(3), 0), ValueError, "must have the same shape"),
        ((torch.ones(2), object()), TypeError, "must hold tensors, arrays or numbers"),
        (None, TypeError, "an example is a NoneType"),
    ],
    ids=["shape", "kind", "nothing"],
)
@pytest.mark.parametrize("place", [0, 2])
def test_the_example_that_fits_no_other_is_named(place, odd, kind, message):
    examples = [GOOD] * 4
    examples[place] = odd
    with pytest.raises(kind, match=f"Example {place + 10} of the dev part: .*{message}"):
        collated(Collation(default_collate, "dev"), examples, range(10, 14), "dev")
