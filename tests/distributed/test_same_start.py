"""What ranks hold differently is an error that names it where a problem is shared, and no wrong number in silence."""

import pytest
import ranks


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("data", "the data X_dev"),
        ("parameters", "the parameter weight"),
        ("hyperparameters", "the setting effects"),
        ("seed", "the setting batches"),
        ("batch size", "the setting batches"),
        ("length", "the length of train"),
        ("first examples", "the data reader.digest"),
        ("kinds", "the list of what a problem holds"),
        ("sharded parameters", "the parameter weight"),
    ],
)
def test_what_differs_is_named(case: str, name: str):
    for said in ranks.run("same_start_cases").of(case):
        kind = "FullySharded" if case == "sharded parameters" else "DataParallel"
        assert said.startswith(f"{name} on rank 1 differs from {name} on the other ranks, where hg.{kind} was made.")


def test_problems_that_are_the_same_are_shared():
    assert ranks.run("same_start_cases").of("same") == 2 * [4 * [""]]


def test_what_is_made_of_a_shared_problem_is_not_compared_again():
    assert ranks.run("same_start_cases").of("again") == [0, 0]
