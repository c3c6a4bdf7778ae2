"""The launcher of the tests on several processes."""

import pytest
import ranks


def test_each_rank_runs_every_case_until_the_time_is_up():
    results = ranks.run("ranks_cases", seconds=3)
    assert results.of("total") == [3.0, 3.0]
    assert results.of("rank") == [0, 1]
    with pytest.raises(AssertionError, match=r"rank 0 failed in 'fail':(.|\n)*ValueError: on purpose"):
        results.of("fail")
    assert results.of("after") == ["as before", "as before"]
    with pytest.raises(AssertionError, match=r"rank 0 did not end 'wait':(.|\n)*wait_for_nobody"):
        results.of("wait")
    assert ranks.run("ranks_cases", seconds=3) is results
