"""A check lets right estimators pass, finds wrong ones out, and never claims more than its witness knows."""

import copy
import io
import math
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from commands import call
from rich.console import Console
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.check.__main__ import main
from hypergrad.check.central_differences import directional_derivative
from hypergrad.check.retraining import RetrainingError, at_the_optimum

ROOT = Path(__file__).parent.parent.parent
HEAVY_BALL = hg.Momentum(lr=0.07, momentum=0.8)
SOLVED = {"solver": HEAVY_BALL, "inner_steps": 3000}
RIGHT: dict[str, hg.HypergradEstimator] = {
    "ift-cg": hg.Implicit(linsolve=hg.CG(tol=1e-8), inner_tol=1e-8, **SOLVED),
    "ift-neumann": hg.Implicit(linsolve=hg.Neumann(num_terms=2000, tol=1e-7), inner_tol=1e-8, **SOLVED),
    "unrolled": hg.Unrolled(solver=HEAVY_BALL, inner_steps=300),
    "unrolled-unconverged": hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=7),
}


@dataclass(frozen=True, kw_only=True)
class Scaled(hg.Implicit):
    """Wrong by a factor."""

    factor: float = 1.0

    def estimate(self, *args, **kwargs):
        found = super().estimate(*args, **kwargs)
        return replace(found, grad={name: self.factor * g for name, g in found.grad.items()})


WRONG: dict[str, hg.HypergradEstimator] = {
    "a percent off": Scaled(factor=1.01, **SOLVED),
    "wrong sign": Scaled(factor=-1.0, **SOLVED),
    "truncated series": hg.Implicit(linsolve=hg.Neumann(num_terms=3), **SOLVED),
    "training cut short": hg.Implicit(solver=hg.GradientDescent(lr=0.05), inner_steps=5),
    "damped": hg.Implicit(damping=0.1, **SOLVED),
    "truncated horizon": hg.Unrolled(solver=HEAVY_BALL, inner_steps=300, horizon=3),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("ridge", torch.float64),
        pytest.param("quadratic", torch.float64, marks=pytest.mark.slow),
        pytest.param("ridge", torch.float32, marks=pytest.mark.slow),
        pytest.param("quadratic", torch.float32, marks=pytest.mark.slow),
    ],
)
def test_right_estimators_agree_and_wrong_ones_are_found_out(name, dtype):
    problem = copy.deepcopy(PROBLEMS[name]).to(dtype)
    found = hg.check_hypergradient(problem, estimators=RIGHT | WRONG)
    for row in found.rows:
        assert row.verdict == ("agrees" if row.estimator in RIGHT else "disagrees"), row
    assert {row.estimator for row in found.rows} == RIGHT.keys() | WRONG.keys()
    assert not found.ok


def test_all_right_is_ok():
    found = hg.check_hypergradient(PROBLEMS["quadratic"], estimators={k: RIGHT[k] for k in ("ift-cg", "unrolled")})
    assert found.ok
    assert found.spread < 1e-6
    assert [row.direction for row in found.rows] == [0, 1, 0, 1]


def test_the_witness_is_the_closed_form_within_its_uncertainty():
    """In both dtypes, along the same direction, away from the initial hyperparameters too."""
    for dtype, accuracy in [(torch.float64, 1e-6), (torch.float32, 1e-2)]:
        problem = copy.deepcopy(PROBLEMS["ridge"]).to(dtype)
        for scale in (1.0, 0.1):
            hparams = {"l2": scale * problem.init_hparams()["l2"]}
            found = hg.check_hypergradient(problem, hparams, estimators={"dense": hg.Implicit(**SOLVED)})
            # λ = exp(u), so that dF/du = λ dF/dλ; there is one direction, up or down
            truth = (hparams["l2"] * problem.hypergradient(hparams)["l2"]).item()
            (row,) = found.rows
            assert abs(abs(row.witness) - abs(truth)) <= row.uncertainty <= accuracy * abs(truth)


def test_a_wrong_estimate_within_the_uncertainty_is_not_called_wrong():
    problem = copy.deepcopy(PROBLEMS["quadratic"]).float()
    nearly = Scaled(factor=1 + 1e-6, **SOLVED)
    found = hg.check_hypergradient(problem, estimators={"nearly": nearly}, tol=1e-9)
    for row in found.rows:
        assert row.verdict == "agrees"
        assert 1e-9 < row.relative_error <= row.uncertainty / abs(row.witness)


def test_implicit_and_unrolled_have_witnesses_of_their_own():
    found = hg.check_hypergradient(PROBLEMS["quadratic"], estimators=RIGHT)
    witness = {(row.estimator, row.direction): row.witness for row in found.rows}
    assert witness["ift-cg", 0] == witness["ift-neumann", 0]
    assert abs(witness["unrolled-unconverged", 0] - witness["ift-cg", 0]) > 1e-2


def test_a_solver_of_ones_own_trains_the_witness():
    slow = hg.Implicit(solver=hg.GradientDescent(lr=1e-6), inner_steps=0)
    problem = PROBLEMS["quadratic"]
    at_solution = problem.solution(problem.init_hparams())
    found = hg.check_hypergradient(problem, params=at_solution, estimators={"slow": slow}, solver=HEAVY_BALL)
    assert found.ok


class Stochastic(hg.Quadratic):
    """An inner loss that changes with the step, so that nothing converges."""

    def inner_batch(self, step):
        return 0.1 * torch.randn(len(self.c), generator=torch.Generator().manual_seed(step))

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams, batch) + torch.cat([params["a"], params["b"]]) @ batch


def test_an_error_is_a_row():
    problem = PROBLEMS["quadratic"]
    diverging = hg.Unrolled(solver=hg.GradientDescent(lr=5.0))
    found = hg.check_hypergradient(problem, estimators={"diverging": diverging, "good": RIGHT["ift-cg"]})
    first, *others = found.rows
    assert first.verdict.startswith("error: Training blew up")
    assert first.direction is None
    assert math.isnan(first.derivative)
    assert [row.verdict for row in others] == ["agrees", "agrees"]
    assert not found.ok


def test_where_there_is_no_optimum_there_is_no_witness_but_for_unrolled():
    problem = Stochastic(size=5)
    estimators = {"implicit": hg.Implicit(inner_steps=50), "unrolled": hg.Unrolled(inner_steps=50)}
    found = hg.check_hypergradient(problem, estimators=estimators)
    verdicts = {row.estimator: row.verdict for row in found.rows}
    assert verdicts["implicit"].startswith(
        "error: there is no witness. Retraining stopped improving at a gradient norm"
    )
    assert verdicts["unrolled"] == "agrees"


def test_retraining_that_runs_out_of_steps_says_so():
    problem = PROBLEMS["quadratic"]
    hparams = problem.init_hparams()
    with pytest.raises(RetrainingError, match="after 400 steps, and still falls"):
        at_the_optimum(problem, hg.GradientDescent(lr=0.01), hparams, problem.init_params(), 400)


def test_a_flat_dev_loss_is_no_witness():
    """At its minimum the derivative is nothing but rounding."""
    problem = copy.deepcopy(PROBLEMS["ridge"]).float()
    flat = hg.Implicit(**SOLVED)
    low, high = -6.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        slope = PROBLEMS["ridge"].hypergradient({"l2": torch.tensor(math.exp(middle))})["l2"]
        low, high = (low, middle) if slope > 0 else (middle, high)
    hparams = {"l2": torch.tensor(math.exp(low), dtype=torch.float32)}
    (row,) = hg.check_hypergradient(problem, hparams, estimators={"flat": flat}).rows
    assert row.verdict.startswith("error: the witness is uncertain by")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ladder_leaves_out_steps_that_diverge(dtype):
    def function(x):
        value = x["x"].sum()
        if abs(value.item() - 1) > 0.02:
            raise hg.DivergenceError("too far")
        return torch.sin(value)

    x, d = {"x": torch.ones(1, dtype=dtype)}, {"x": torch.ones(1, dtype=dtype)}
    found = directional_derivative(function, x, d)
    assert abs(found.value - math.cos(1)) <= found.uncertainty < 1e-3
    with pytest.raises(hg.DivergenceError, match="too far"):
        directional_derivative(lambda x: function({"x": x["x"] + (x["x"] != 1) * 9}), x, d)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimators": {}}, "estimators must hold at least 1 estimator"),
        ({"num_directions": 0}, "num_directions ≥ 1.* but they are 0, 100000 and 0.0001"),
        ({"tol": 0.0}, "tol > 0"),
        ({"hparams": {"shift": torch.zeros(3)}}, "hparams must hold penalty, shift, but it holds shift"),
        (
            {"hparams": {"penalty": torch.tensor(-1.0), "shift": torch.zeros(3)}},
            "1 of 1 values of 'penalty' lie outside",
        ),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        hg.check_hypergradient(PROBLEMS["quadratic"], **{"estimators": RIGHT, **changes})


def test_it_prints_a_table_and_the_errors_below():
    estimators = {
        "good": RIGHT["ift-cg"],
        "off": WRONG["wrong sign"],
        "bad": hg.Unrolled(solver=hg.GradientDescent(lr=5.0)),
    }
    console = Console(width=80, file=io.StringIO(), record=True)
    hg.check_hypergradient(PROBLEMS["ridge"], estimators=estimators).print(console)
    text = console.export_text()
    assert "…" not in text
    for part in ("agrees", "disagrees", "bad: error: Training blew up", "1 of 3 agree", "largest difference"):
        assert part in text


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COLUMNS", "100")
        return call(main, *arguments, cwd=cwd)


def test_the_command_checks_every_estimator(tmp_path):
    done = command("experiment=ridge", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "configs" / "estimator").glob("*.yaml"):
        assert (path.stem in done.stdout) is (path.stem != "single_loop")
    assert "disagrees" not in done.stdout


def test_the_command_finds_out_a_truncated_series(tmp_path):
    done = command("experiment=ridge", "estimator=ift_neumann", "linsolve.num_terms=3", cwd=tmp_path)
    assert done.returncode == 1
    assert "disagrees" in done.stdout
    assert "unrolled" not in done.stdout


@pytest.mark.slow
def test_a_solver_that_single_loops_refuse_is_no_reason_to_stop(tmp_path):
    """`SingleLoop` is not compared, so it is not built either: SOBA with momentum needs a setting of its own."""
    done = command("experiment=ridge", "solver=momentum", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "7 of 7 agree" in done.stdout


def test_the_command_refuses_a_sweep(tmp_path):
    done = command("-m", "experiment=ridge", "data.seed=1,2", cwd=tmp_path)
    assert done.returncode == 1
    assert "this command needs a single config; leave out -m" in done.stderr


def test_the_page_shows_a_check_that_runs(capsys):
    page = (ROOT / "docs" / "checking.md").read_text()
    block, _ = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    exec(compile(block, "checking.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.findall(r" (agrees|disagrees)", printed) == ["agrees"] * 2 + ["disagrees"] * 2 + ["agrees"] * 2
    assert printed.endswith("False\n")
