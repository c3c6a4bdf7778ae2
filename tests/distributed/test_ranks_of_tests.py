"""The launcher of the tests on several processes."""

import pytest
import ranks


@pytest.mark.slow
def test_each_rank_runs_every_case():
    results = ranks.run("ranks_cases")
    assert results.of("total") == [3.0, 3.0]
    assert results.of("rank") == [0, 1]
    with pytest.raises(AssertionError, match=r"rank 0 failed in 'fail':(.|\n)*ValueError: on purpose"):
        results.of("fail")
    assert results.of("after") == ["as before", "as before"]
    assert ranks.run("ranks_cases") is results


@pytest.mark.slow
def test_a_deadlock_says_where_each_rank_stood():
    results = ranks.run("ranks_cases", function="deadlock", seconds=20)
    assert results.of("total") == [3.0, 3.0]
    with pytest.raises(AssertionError, match=r"rank 0 did not end 'wait':(.|\n)*wait_for_nobody"):
        results.of("wait")
