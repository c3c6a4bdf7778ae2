"""How often the processes that share a problem sum over all of them, how many numbers, and that nothing else changes.

n = 35 parameters and p = 4 penalties on two processes. One all-reduce of n + 1 numbers brings a gradient and its loss.
"""

from typing import Any

import pytest
import ranks
from traffic_cases import STEPS

N, P, WEIGHTS, T = 35, 4, 13, STEPS
GRADIENT = N + 1
ENDS = 3 * GRADIENT
"""Numbers of the gradients at the start and the end of a run, and of the dev loss with its gradient."""


def found(case: str) -> Any:
    """What both ranks found, bit for bit the same."""
    first, second = ranks.run("traffic_cases").of(case)
    assert first == second
    return first


def test_a_training_step_is_one_all_reduce():
    assert found("step") == [1, GRADIENT]


def test_reverse_products_are_one_all_reduce_each():
    wanted = {"linearize": [1, GRADIENT], "product": [1, N], "mixed": [1, P], "columns": [1, 5 * N]}
    assert found("reverse") == wanted


def test_differences_are_one_all_reduce_for_each_gradient():
    both = GRADIENT + P
    wanted = {"linearize": [1, both], "product": [2, 2 * both], "mixed": [2, 2 * both], "columns": [10, 10 * both]}
    assert found("differences") == wanted


@pytest.mark.parametrize(("kind", "numbers"), [("inner_loss", GRADIENT + P), ("outer_loss", GRADIENT)])
def test_a_loss_brings_its_gradient_along(kind, numbers):
    result = found(f"{kind} False")
    assert result["count"] == [1, numbers]
    assert result["error"] <= 1e-14


@pytest.mark.parametrize("kind", ["inner_loss", "outer_loss"])
def test_a_loss_has_second_derivatives(kind):
    assert found(f"{kind} True")["error"] <= 1e-13


def test_a_batched_backward_pass_is_one_all_reduce():
    result = found("batched")
    assert result["error"] == 0
    assert result["count"] == [1, 9]
    assert "inside another one" in result["refused"]


UNROLLED = {
    "store": [3 * T + 3, 2 * T * GRADIENT + (T - 1) * N + ENDS + P],
    "graph": [2 * T + 3, T * GRADIENT + (T - 1) * N + ENDS + P],
    "adam": [3 * T + 3, 2 * T * GRADIENT + (T - 1) * N + ENDS + P],
    "reversible": [3 * T + 3, 2 * T * GRADIENT + (T - 1) * N + ENDS + P],
    "store weights": [3 * T + 3, 2 * T * GRADIENT + (T - 1) * N + ENDS + P + WEIGHTS],
    "forward": [4 * T + 3, T * (GRADIENT + N + P + P * N) + ENDS],
}


@pytest.mark.parametrize("case", UNROLLED)
def test_an_unrolled_estimate_sums_its_terms_once(case):
    result = found(case)
    assert result["count"] == UNROLLED[case]
    assert result["error"] <= (1e-9 if case == "reversible" else 1e-12)


def test_a_truncated_estimate_knows_its_bias():
    result = found("truncated")
    assert result["error"] <= 1e-12
    assert result["truncation_bias"] == pytest.approx(result["wanted_bias"], rel=1e-9)


def test_a_tuned_learning_rate_counts_once():
    assert found("tuned")["error"] <= 1e-12


def test_a_dense_hessian_is_one_all_reduce():
    """And the residual of the solution is another one."""
    dense, cg = found("dense"), found("cg")
    calls, numbers = (a - b for a, b in zip(dense["count"], cg["count"], strict=True))
    assert dense["error"] <= 1e-12
    assert (calls, numbers) == (2 - cg["matvecs"], (N + 1 - cg["matvecs"]) * N)


@pytest.mark.parametrize("case", ["nystrom", "cg"])
def test_implicit_estimates_are_those_of_one_process(case):
    assert found(case)["error"] <= 1e-10


COMPILED = {"unrolled": "training_remark", "auto": "training_remark", "implicit": "training_remark"}
COMPILED |= {"forward": "training_remark", "traced": "adjoint_remark"}


@pytest.mark.parametrize("case", COMPILED)
def test_compiling_is_refused_by_name(case):
    result = found(f"compiled {case}")
    assert result["error"] <= 1e-9
    assert "processes share the problem" in result[COMPILED[case]]
