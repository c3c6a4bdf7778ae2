"""All ranks take the same branch, also where their own parts of the data would lead them apart."""

import ranks


def test_the_tape_fits_on_every_rank():
    found = ranks.run("quick_cases").of("tape_that_fits")
    for needed, distance in found:
        assert min(needed) < max(needed)
        assert distance <= 1e-10


def test_a_batch_that_differs_on_one_rank_is_refused_on_all():
    first, second = ranks.run("quick_cases").of("batch_that_differs")
    assert first == second
    assert first.startswith("ValueError: LBFGS needs the same inner loss at every step")


def test_nan_on_one_rank_is_the_same_error_on_all():
    for part in ("nan_on_one_rank", "nan_in_dev_on_one_rank"):
        first, second = ranks.run("quick_cases").of(part)
        assert first == second
        assert first.startswith("NonFiniteError: ")
