"""Several processes give the hypergradient of one, with every strategy, to rounding, and the same bits on all ranks."""

from pathlib import Path

import parity_table as table
import pytest
import ranks

CONFIGS = Path(__file__).parents[2] / "configs"
SOME = list(table.some_estimates())
SINGLE = 2e-4
"""How far apart hypergradients in float32 may be; the largest distance that was met is in docs/parity.md."""


def require_parity(results: ranks.Results, name: str, tol: float) -> None:
    for found in results.of(name):
        assert found["same bits"]
        assert found["grad"] <= tol
        assert found["params"] <= 10 * tol
        assert found["loss"] <= 10 * tol


@pytest.mark.parametrize(
    ("family", "listed"),
    [
        ("linsolve", {*table.LINSOLVES}),
        ("product", {*table.PRODUCTS}),
        ("solver", {*table.SOLVERS, *table.OF_L1}),
        ("tape", {*table.TAPES}),
        ("single_loop", {*table.METHODS}),
    ],
)
def test_the_table_has_every_strategy(family, listed):
    assert listed == {path.stem for path in (CONFIGS / family).glob("*.yaml")}


@pytest.mark.parametrize("name", SOME)
def test_two_processes_give_the_hypergradient_of_one(name):
    require_parity(ranks.run("quick_cases"), name, table.tolerance(name))


@pytest.mark.parametrize("name", SOME[::3])
def test_four_processes_give_the_hypergradient_of_one(name):
    require_parity(ranks.run("parity_cases", world=4, function="a_third"), name, table.tolerance(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_two_processes_in_single_precision(name):
    require_parity(ranks.run("parity_cases", function="single", seconds=300), name, SINGLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", table.every_estimate())
@pytest.mark.parametrize("world", [2, 4])
def test_every_strategy_with_every_other(name, world):
    require_parity(ranks.run("parity_cases", world, "exhaustive", 3000), name, table.tolerance(name))
