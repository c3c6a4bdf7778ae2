import pytest

from experiments.unrolled_error.table import at_condition, decay, fitted_rate


def test_the_unrolled_error_decays_with_the_slowest_direction():
    """As T (1 − ρμ)^T: the fitted rate leaves 1 by what 1 − ρμ does, to 3 %."""
    found = decay(3, 0.03, steps=(1000, 2000))
    assert (1 - fitted_rate(found["rows"])) / (1 - found["rate"]) == pytest.approx(1, abs=0.03)


def test_before_convergence_unrolled_is_exact_for_its_run_and_implicit_for_nothing():
    rows = decay(3, 0.1, steps=(3, 10, 30))["rows"]
    for _, unrolled, implicit, bar, unrolled_of_run, implicit_of_run in rows:
        assert unrolled_of_run < 1e-6
        assert implicit_of_run > 1e-2
        assert 1e-3 < implicit <= bar
        assert unrolled > 1e-2


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
def test_the_error_bar_bounds_the_error_at_every_condition_number(condition):
    found = at_condition(condition, damping=0.0, max_iter=2000)
    assert 0.5 * condition <= found["told"] <= (1 + 1e-6) * condition
    rounding = 2.2e-16 * condition  # of the closed form
    assert found["error"] <= found["bar"] + rounding


def test_damping_is_paid_with_a_bias_in_proportion():
    errors = [at_condition(1e2, damping, max_iter=2000)["error"] for damping in (1e-8, 1e-6, 1e-4)]
    assert errors[2] / errors[1] == pytest.approx(100, rel=0.05)
    assert errors[1] / errors[0] == pytest.approx(100, rel=0.05)
