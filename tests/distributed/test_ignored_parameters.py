"""Parameters that the part of one rank ignores: the numbers of one process, and no sums of different length."""

import ignored_cases
import pytest
import ranks


@pytest.mark.parametrize("case", ignored_cases.cases())
def test_a_rank_may_ignore_parameters_that_others_use(case: str):
    assert max(ranks.run("ignored_cases").of(case)) < (1e-9 if case == "SAMA" else 1e-10)
