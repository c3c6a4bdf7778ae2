"""Each kind of problem on two processes gives the hypergradients of one."""

import problem_cases
import pytest
import ranks


@pytest.mark.parametrize("case", problem_cases.cases())
def test_parity(case):
    first, second = ranks.run("problem_cases").of(case)
    assert max(*first, *second) < 1e-10
