"""The influence of train examples on the dev loss, by the command and against refits."""

import csv
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import call
from slow_cases import mostly_slow
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.influence.__main__ import main
from hypergrad.influence.examples import influences
from hypergrad.training.training import Training

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return call(main, *arguments, cwd=cwd)


def logistic(**settings) -> hg.Supervised:
    """Softmax regression on 60 examples in 3 features and 2 classes, the first one mislabelled."""
    torch.manual_seed(0)
    X = torch.randn(100, 3)
    y = (X[:, 0] + 0.5 * torch.randn(100) > 0).long()
    y[0] = 1 - y[0]
    ignored = settings.pop("ignored", None)
    if ignored is not None:
        y[3::10] = ignored
    given = {"loss": cross_entropy, "hyperparameters": {"l2": hg.L2(init=0.02)}, "batch_size": 20} | settings
    model = given.pop("model", nn.Linear(3, 2))
    return hg.Supervised(model=model, train=(X[:60], y[:60]), dev=(X[60:], y[60:]), **given).double()


def fitted(problem, hparams):
    return Training(solver=hg.Newton(), steps=50, tol=1e-12).run(problem, hparams, problem.init_params()).params


def test_the_changes_are_those_of_refits_to_first_order():
    problem = logistic()
    weighted = problem.weighted("omega")
    hparams = weighted.init_hparams()
    w = fitted(weighted, hparams)
    found = influences(problem, w, problem.init_hparams())

    def dev_loss(weight: float, example: int) -> float:
        moved = hparams | {"omega": hparams["omega"].index_fill(0, torch.tensor(example), weight)}
        return weighted.outer_loss(fitted(weighted, moved), moved, None).item()

    assert found.dev_loss == pytest.approx(dev_loss(1.0, 0))
    for example in (0, 7, 30):
        slope = (dev_loss(1 + 1e-4, example) - dev_loss(1 - 1e-4, example)) / 2e-4
        assert found.change[example].item() == pytest.approx(-slope, rel=1e-6, abs=1e-10)
    refits = torch.tensor([dev_loss(0.0, example) for example in range(60)]) - found.dev_loss
    assert torch.corrcoef(torch.stack([found.change, refits]))[0, 1] > 0.99
    torch.testing.assert_close(found.losses.mean(), cross_entropy(problem.outputs(w, hparams, None), problem.y))


CLASS_WEIGHTS = torch.tensor([1.0, 5.0], dtype=torch.float64)
LOSSES = {
    "mean": nn.CrossEntropyLoss(),
    "class weights": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "class weights of a partial": partial(cross_entropy, weight=CLASS_WEIGHTS),
    "ignored": nn.CrossEntropyLoss(ignore_index=7),
    "class weights and ignored": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=7, label_smoothing=0.1),
    "sum": nn.CrossEntropyLoss(reduction="sum"),
}


def minimiser(objective) -> Tensor:
    """By Newton's method, from 0, of a function of the 8 weights and biases."""
    w = torch.zeros(8)
    for _ in range(15):
        w = w - torch.linalg.solve(torch.func.hessian(objective)(w), torch.func.grad(objective)(w))
    return w


def named(w: Tensor) -> dict[str, Tensor]:
    return {"weight": w[:6].view(2, 3), "bias": w[6:]}


@pytest.mark.parametrize("loss", mostly_slow(LOSSES, list(LOSSES)[::3]))
def test_leaving_one_out_is_a_refit_whatever_the_loss_divides_by(loss):
    problem = logistic(loss=loss, ignored=7 if getattr(loss, "ignore_index", 0) == 7 else None, batch_size=None)
    X, y, hparams = problem.X, problem.y, problem.init_hparams()

    def refit(c: Tensor) -> Tensor:
        """With the terms of torch, and the denominator that torch has with all examples."""
        given = (
            loss.keywords if isinstance(loss, partial) else {"weight": loss.weight, "ignore_index": loss.ignore_index}
        )
        smoothing = getattr(loss, "label_smoothing", 0.0)
        counted = y != given.get("ignore_index", -100)
        weight = torch.ones(2) if given["weight"] is None else given["weight"]
        divisor = 1 if getattr(loss, "reduction", "") == "sum" else weight[y[counted]].sum()

        def objective(w):
            terms = cross_entropy(
                X @ w[:6].view(2, 3).T + w[6:], y, **given, label_smoothing=smoothing, reduction="none"
            )
            return (c * terms).sum() / divisor + 0.02 * w.square().sum()

        return minimiser(objective)

    ones = torch.ones(60)
    w = refit(ones)
    assert torch.allclose(flatten(fitted(problem, hparams)), w, atol=1e-9)
    examples = torch.tensor([3, 7, 30, 41])
    off = torch.eye(60)[examples]
    jackknife = hg.InfinitesimalJackknife().at(problem, named(w), hparams)
    slopes = torch.stack([(refit(ones + 1e-4 * e) - refit(ones - 1e-4 * e)) / 2e-4 for e in off], 1)
    assert torch.allclose(jackknife.jacobian[:, examples], slopes, rtol=1e-6, atol=1e-7)

    refits = torch.stack([refit(ones - e) for e in off])
    errors = []
    for order in (1, 2, 3):
        out = hg.InfinitesimalJackknife(order=order).at(problem, named(w), hparams).leave_out(examples)
        errors.append((torch.cat([out["weight"].flatten(1), out["bias"]], 1) - refits).norm(dim=1))
    moved = (refits - w).norm(dim=1)
    assert (errors[0] <= 0.2 * moved + 1e-9).all()
    assert (errors[1] <= errors[0] + 1e-9).all()
    assert (errors[2] <= 0.03 * moved + 1e-9).all()
    assert (moved > 1e-3).tolist() == (y[examples] != 7).tolist()

    found, dev = influences(problem, named(w), hparams), problem.outer_loss(named(w), hparams, None)
    changes = torch.stack([problem.outer_loss(named(v), hparams, None) for v in refits]) - dev
    assert (found.change[examples] - changes).abs().max() <= 0.2 * changes.abs().max()
    assert found.losses.mean().item() == pytest.approx(problem.inner_loss(named(w), {"l2": torch.tensor(0.0)}, None))


def test_example_weights_that_are_there_already_are_weighted_again():
    problem = logistic(hyperparameters={"l2": hg.L2(init=0.02), "omega": hg.ExampleWeights(init=0.5)})
    hparams = problem.init_hparams()
    whole = problem.weighted("more")
    w = fitted(whole, whole.init_hparams())
    found = influences(problem, w, hparams)
    by_jackknife = hg.InfinitesimalJackknife(weights="omega").at(logistic_on_all(problem), w, hparams).influence()
    torch.testing.assert_close(found.change, -0.5 * by_jackknife)


def logistic_on_all(problem: hg.Supervised) -> hg.Supervised:
    problem.batch_size = None
    return problem


def test_what_has_no_terms_of_examples_or_no_one_solution_is_refused():
    scalar = logistic(loss=lambda z, y: cross_entropy(z, y))
    with pytest.raises(ValueError, match="need a loss for each of the examples"):
        influences(scalar, scalar.init_params(), scalar.init_hparams())
    dropped = logistic(model=nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"without random numbers.*Call eval\(\)"):
        influences(dropped, dropped.init_params(), dropped.init_hparams())
    problem = logistic()
    with pytest.raises(hg.NotOptimalError, match="Train further"):
        influences(problem, {k: w + 1 for k, w in problem.init_params().items()}, problem.init_hparams())
    with pytest.raises(ValueError, match="already have a 'l2'"):
        problem.weighted("l2")


def test_the_command_prints_both_ends_and_writes_all(tmp_path):
    done = run(
        *("experiment=digits", "data=breast_cancer", "problem.model.in_features=30", "problem.model.out_features=1"),
        *("problem.loss._target_=torch.nn.BCEWithLogitsLoss", "problem.hyperparameters.l2.init=0.01", "top=3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "most harmful" in done.stdout
    assert "most helpful" in done.stdout
    (path,) = tmp_path.glob("outputs/digits-influence/*/influence.csv")
    assert str(path) in done.stdout
    rows = list(csv.DictReader(path.read_text().splitlines()))
    changes = torch.tensor([float(row["dev_loss_change_without"]) for row in rows])
    assert [int(row["example"]) for row in rows] == list(range(len(rows)))
    for i in changes.argsort()[:3].tolist() + changes.argsort()[-3:].tolist():
        assert f"{changes[i]:+.3e}" in done.stdout


def test_a_problem_without_examples_is_refused():
    problem = hg.Ridge(hg.diabetes(seed=1))
    with pytest.raises(
        TypeError, match="needs a Supervised problem, .* the problem is a Ridge. Choose experiment=digits"
    ):
        influences(problem, problem.init_params(), problem.init_hparams())


def test_what_the_command_cannot_do_it_says(tmp_path, monkeypatch):
    done = run("experiment=digits", "steps=3", cwd=tmp_path)
    assert done.returncode == 1
    assert re.search("(?s)must solve the inner problem.* took 3 steps and ended .*; allow more", done.stderr)
    assert "Traceback" not in done.stderr
    monkeypatch.setattr(sys, "argv", ["influence", "top=0"])
    with pytest.raises(SystemExit, match="top must be an integer of at least 1, but it is '0'"):
        main()
