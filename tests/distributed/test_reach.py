"""What is built on hypergradients gives on several processes what it gives on one, or is refused."""

import pytest
import ranks
import reach_cases

TOLERANCES = {"error bar": 1e-3, "in float32": 1e-5, "checked": 1e-8}
"""A bar is a norm of what is left of the gradient; differences through retraining magnify rounding."""
MESSAGES = {
    "l1": "ValueError: DataParallel needs a smooth inner loss, but Lasso has an L1 penalty",
    "condition": "ValueError: DataParallel needs an optimality condition that is the gradient of the inner loss",
    "no parts": "NotImplementedError: Quadratic does not define `inner_share`",
    "twice": "ValueError: DataParallel needs a problem whose losses one process can compute",
    "influences": "TypeError: The influence of examples is computed by one process, but 2 share the problem",
}


def require_parity(results: ranks.Results, name: str) -> None:
    for distance, is_same in results.of(name):
        assert distance <= TOLERANCES.get(name, 1e-10)
        assert is_same


@pytest.mark.parametrize("name", reach_cases.QUICK)
def test_two_processes_give_what_one_gives(name):
    require_parity(ranks.run("quick_cases"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in reach_cases.FOUND if name not in reach_cases.QUICK])
def test_two_processes_give_what_one_gives_in_longer_runs(name):
    require_parity(ranks.run("reach_cases", function="slow", seconds=600), name)


@pytest.mark.parametrize("name", reach_cases.REFUSED)
def test_what_several_processes_cannot_share_is_refused_by_name(name):
    for said in ranks.run("quick_cases").of(f"refused {name}"):
        assert said.startswith(MESSAGES[name])
